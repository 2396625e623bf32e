"""Finds collector types: in installed packages and in a folder of drop-in files.

A type is imported only when it is used, and a broken one does not affect others.
"""

from __future__ import annotations

import importlib.metadata
import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from bts_exporter.collection import plugin_file, plugin_modules
from bts_exporter.collection.prometheus_client_adapter import adapt
from bts_exporter.collection.type_check import checked
from bts_exporter.errors import PluginError, line_in, text_of, words_of
from bts_exporter.plugin import API_VERSION, Collector

GROUP = "bts_exporter.collectors"


@dataclass(frozen=True)
class Origin:
    """Where a type comes from, and how it is loaded."""

    name: str
    #: Such as `bts-exporter 0.1.0` or the path of a file.
    source: str
    entry_point: importlib.metadata.EntryPoint | None = None
    #: A file, or the folder of a package.
    file: Path | None = None

    @property
    def package(self) -> str:
        """Return the top-level package that the type's code is in."""
        if self.entry_point is None:
            return plugin_modules.PACKAGE
        return self.entry_point.module.partition(".")[0]


@dataclass
class Registry:
    """All collector types."""

    folder: Path
    _origins: dict[str, list[Origin]] = field(init=False)
    _loaded: dict[str, type[Collector]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Find the types, without importing them."""
        self._origins = {}
        for origin in (*_installed(), *_dropped_in(self.folder)):
            self._origins.setdefault(origin.name, []).append(origin)

    def names(self) -> list[str]:
        """Return the names of all types, broken ones included."""
        return sorted(self._origins)

    def source(self, name: str) -> str:
        """Return where the type `name` comes from."""
        return " and ".join(origin.source for origin in self._origins[name])

    def version(self, name: str) -> str:
        """Return the version of the package that the type `name` is from; empty for a file."""
        points = [o.entry_point for o in self._origins[name] if o.entry_point is not None]
        return points[0].dist.version if points and points[0].dist else ""

    def load(self, name: str) -> type[Collector]:
        """Return the type `name`; PluginError with its origin if it cannot be loaded."""
        if name not in self._loaded:
            origins = self._origins[name]
            if len(origins) > 1:
                # A file that other users could have written does not disable an installed type.
                safe = [o for o in origins if o.file is None or plugin_file.is_safe(o.file)]
                origins = safe or origins
            if len(origins) > 1:
                msg = f"type {name} is provided by {self.source(name)}: remove one of them"
                raise PluginError(msg)
            self._loaded[name] = _load(origins[0])
        return self._loaded[name]


def load_file(path: Path) -> type[Collector]:
    """Return the type in a file, or in the folder of a package, that somebody names; PluginError if it is broken.

    Unlike those in the plug-in folder it may belong to any user, as a program that is started.
    """
    name = path.stem if path.suffix == ".py" else path.name
    return _load(Origin(name, str(path), file=path), _sources)


def load_installed(name: str) -> type[Collector]:
    """Return the type of an installed package; PluginError if it is broken, or not installed."""
    found = [origin for origin in _installed() if origin.name == name]
    if not found:
        msg = f"no installed package provides a collector type {name}: is it installed in this environment?"
        raise PluginError(msg)
    return _load(found[0])


def _sources(path: Path) -> dict[Path, bytes]:
    """Return the source of each file of a plug-in, and the state of those that are not Python's."""
    if path.is_file():
        return {path: path.read_bytes()}
    return {
        file: file.read_bytes() if file.suffix == ".py" else plugin_file.state(file.stat())
        for file in sorted(path.rglob("*"))
        if file.is_file() and all(map(plugin_file.is_part, file.relative_to(path).parts))
    }


def _installed() -> Iterator[Origin]:
    for entry_point in importlib.metadata.entry_points(group=GROUP):
        dist = entry_point.dist
        source = f"{dist.name} {dist.version}" if dist else entry_point.value
        yield Origin(entry_point.name, source, entry_point=entry_point)


def _dropped_in(folder: Path) -> Iterator[Origin]:
    """Find the files, and the folders that are packages, whose names do not begin with an underscore."""
    try:
        packages = [file.parent for file in folder.glob("*/__init__.py")]
        found = sorted([*folder.glob("*.py"), *packages])
    except OSError:
        return
    for path in found:
        if not path.name.startswith(("_", ".")) and path.name.isprintable():
            name = path.stem if path.suffix == ".py" else path.name
            yield Origin(name, str(path), file=path)


def _load(origin: Origin, read: plugin_modules.Read = plugin_file.sources) -> type[Collector]:
    try:
        if origin.entry_point is not None:
            loaded = origin.entry_point.load()
        else:
            assert origin.file is not None  # noqa: S101  # one of the two is set
            loaded = _only_collector(plugin_modules.load(origin.file, read), origin.file)
        return checked(adapt(loaded))
    except BaseException as error:
        # Importing a plug-in runs its code, which may do anything; SystemExit among it.
        if isinstance(error, KeyboardInterrupt):
            raise
        words = text_of(error) if isinstance(error, PluginError) else words_of(error)
        place, cure = line_in(origin.package, error), _cure(error, origin)
        msg = f"type {origin.name} ({origin.source}) is broken: {words}{place}{cure}"
        raise PluginError(msg) from error


def _cure(error: BaseException, origin: Origin) -> str:
    """Return what to do about an import that failed; empty for other errors."""
    if not isinstance(error, ImportError) or error.name is None:
        return ""
    wanted = error.name.partition(".")[0]
    if wanted == "bts_exporter":
        return (
            f"; this bts-exporter has API version {API_VERSION}: the plug-in may need another one"
        )
    if origin.file is None:
        return ""
    for folder in (origin.file, origin.file.parent):
        if (folder / f"{wanted}.py").is_file() or (folder / wanted).is_dir():
            dots = "." if folder == origin.file or origin.file.suffix == ".py" else ".."
            return f"; a file next to it is imported with a dot: from {dots} import {wanted}"
    return ""


def _only_collector(module: ModuleType, file: Path) -> object:
    explicit = getattr(module, "COLLECTOR", None)
    if explicit is not None:
        return explicit
    own = [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and f"{value.__module__}.".startswith(f"{module.__name__}.")
        and callable(getattr(value, "collect", None))
    ]
    if len(own) != 1:
        what = "no collector" if not own else "several collectors"
        msg = f"{file} defines {what}: one class with a collect method, or name it COLLECTOR"
        raise PluginError(msg)
    return own[0]
