"""Plug-ins of a folder as modules: a file or a package each, executed from source that was read once.

The modules of one folder are in a package of their own, so that they can import each other with relative
imports, and plug-ins with modules of the same name do not meet. What a plug-in imports from its folder is
part of it: if one of these files changed, the next load executes it again.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, ModuleType

from bts_exporter.collection import plugin_file

#: The package of all plug-ins, with a package for each folder of them.
PACKAGE = "bts_exporter_plugins"

Sources = Mapping[Path, bytes]
#: Returns the source of each module of a plug-in, by path.
Read = Callable[[Path], Sources]


def load(path: Path, read: Read = plugin_file.sources) -> ModuleType:
    """Return the module of the plug-in `path`: a file, or the folder of a package.

    It is the same as before while nothing changed that it consists of. `read` returns its source, and that of the
    others in its folder that it imports; what that raises, and what the plug-in raises, is passed on.
    """
    key = path.absolute().parent
    if key not in _folders:
        _folders[key] = _Folder(path.parent, f"{PACKAGE}.f{len(_folders) + 1}")
    return _folders[key].load(path, read)


def imported_files(path: Path) -> list[Path]:
    """Return the files of the plug-in `path`, those that it imports from its folder included, when it was loaded."""
    folder = _folders.get(path.absolute().parent)
    return folder.files(_name(path)) if folder is not None else []


@dataclass(frozen=True)
class _Unit:
    """A file or package in the folder."""

    path: Path
    sources: Sources
    #: Names of the units that it imports.
    needs: frozenset[str]


class _Folder:
    """The plug-ins of one folder."""

    def __init__(self, path: Path, package: str) -> None:
        self._path = path
        self._package = package
        self._units: dict[str, _Unit] = {}
        self._module = _empty_package(package)

    def load(self, path: Path, read: Read) -> ModuleType:
        name = _name(path)
        found = self._with_needs(name, path, read)
        units, modules = dict(self._units), self._modules()
        for changed in [n for n, unit in found.items() if self._units.get(n, unit) != unit]:
            self._drop_with_dependents(changed)
        self._forget([n for n in modules if n.split(".")[2] not in self._units])
        self._units |= found
        try:
            return importlib.import_module(f"{self._package}.{name}")
        except BaseException:
            # The collectors of before are still running, and may import more of their own modules.
            self._forget([*self._modules()])
            self._units = units
            self._restore(modules)
            raise

    def files(self, name: str) -> list[Path]:
        """Return the files of a unit and of those that it imports; none if it is not loaded."""
        todo, seen = [name], set[str]()
        while todo:
            if (name := todo.pop()) in self._units and name not in seen:
                seen.add(name)
                todo += self._units[name].needs
        return [path for name in sorted(seen) for path in self._units[name].sources]

    def spec(self, fullname: str) -> ModuleSpec | None:
        """Return how to load a module; None if there is no such file."""
        _, _, *names = fullname.split(".")
        unit = self._units.get(names[0])
        if unit is None:
            return None
        below = unit.path.joinpath(*names[1:])
        if len(names) == 1 and unit.path.suffix == ".py":
            return _spec(fullname, unit.path, unit.sources)
        package = _spec(fullname, below / "__init__.py", unit.sources, below)
        if package is None and len(names) > 1:
            package = _spec(fullname, below.with_name(f"{below.name}.py"), unit.sources)
        return package

    def _with_needs(self, name: str, path: Path, read: Read) -> dict[str, _Unit]:
        """Return the unit `path`, and those of this folder that it imports, as they are now."""
        found: dict[str, _Unit] = {}
        todo = {name: path}
        while todo:
            name, path = todo.popitem()
            sources = read(path)
            needs = {n: p for n in _imports(path, sources) if (p := self._find(n)) is not None}
            found[name] = _Unit(path, sources, frozenset(needs))
            todo |= {n: p for n, p in needs.items() if n not in found}
        return found

    def _find(self, name: str) -> Path | None:
        """Return the file or package that a relative import means."""
        for path in (self._path / name, self._path / f"{name}.py"):
            if path.is_file() if path.suffix else (path / "__init__.py").is_file():
                return path
        return None

    def _drop_with_dependents(self, name: str) -> None:
        if self._units.pop(name, None) is not None:
            for other in [n for n, unit in self._units.items() if name in unit.needs]:
                self._drop_with_dependents(other)

    def _modules(self) -> dict[str, ModuleType]:
        """Return the modules of this folder that are imported now."""
        imported = dict(sys.modules)  # other threads may import meanwhile
        return {n: m for n, m in imported.items() if n.startswith(f"{self._package}.")}

    def _forget(self, names: Sequence[str]) -> None:
        for name in names:
            sys.modules.pop(name, None)
            vars(self._module).pop(name.removeprefix(f"{self._package}."), None)

    def _restore(self, modules: Mapping[str, ModuleType]) -> None:
        for name, module in modules.items():
            sys.modules[name] = module
            if "." not in (short := name.removeprefix(f"{self._package}.")):
                setattr(self._module, short, module)


class _Loader(InspectLoader):
    """Executes a source that was read before."""

    def __init__(self, path: Path, source: bytes, *, package: bool) -> None:
        self._path = path
        self._source = source
        self._is_package = package

    def is_package(self, fullname: str) -> bool:  # noqa: ARG002  # the interface
        return self._is_package

    def get_source(self, fullname: str) -> str:  # noqa: ARG002  # the interface
        return importlib.util.decode_source(self._source)

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002  # the interface
        if (position := self._source.find(b"\0")) >= 0:  # Python would not say in which file
            line = self._source.count(b"\n", 0, position) + 1
            msg = "source code cannot contain null bytes"
            raise SyntaxError(msg, (str(self._path), line, None, None))
        # Not from a compiled copy: those miss a change within the second.
        return compile(self._source, self._path, "exec", dont_inherit=True)


class _Finder(MetaPathFinder):
    """Finds the modules of plug-ins; other finders would read files that nothing has checked."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,  # noqa: ARG002  # the interface
        target: ModuleType | None = None,  # noqa: ARG002  # the interface
    ) -> ModuleSpec | None:
        if fullname.startswith(f"{PACKAGE}."):
            for folder in _folders.values():
                if fullname.startswith(f"{folder._package}."):  # noqa: SLF001  # of this module
                    found = folder.spec(fullname)
                    if found is None:
                        msg = f"No module named {fullname!r}"
                        raise ModuleNotFoundError(msg, name=fullname)
                    return found
        return None


def _name(path: Path) -> str:
    """Return the name of a plug-in's module; one with a dot would be taken for a module in a package."""
    stem = path.stem if path.suffix == ".py" else path.name
    return stem.replace(".", "%2E")


def _imports(path: Path, sources: Sources) -> Iterator[str]:
    """Yield the first names of what a plug-in's files import from the folder that it is in."""
    for file, source in sources.items():
        if file.suffix != ".py":
            continue
        depth = len(file.relative_to(path.parent).parts)
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError):  # reported when it is executed
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.level == depth:
                if node.module is not None:
                    yield node.module.partition(".")[0]
                else:
                    yield from (alias.name for alias in node.names)


def _spec(
    fullname: str, path: Path, sources: Sources, folder: Path | None = None
) -> ModuleSpec | None:
    if path not in sources:
        return None
    loader = _Loader(path, sources[path], package=folder is not None)
    spec = ModuleSpec(fullname, loader, origin=str(path), is_package=folder is not None)
    spec.has_location = True
    if folder is not None:
        spec.submodule_search_locations = [str(folder)]
    return spec


def _empty_package(name: str) -> ModuleType:
    module = sys.modules[name] = ModuleType(name)
    module.__path__ = []
    return module


_folders: dict[Path, _Folder] = {}
_empty_package(PACKAGE)
sys.meta_path.insert(0, _Finder())
