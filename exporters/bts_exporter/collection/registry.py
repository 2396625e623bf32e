"""Finds collector types: in installed packages and in a folder of drop-in files.

A type is imported only when it is used, and a broken one does not affect others.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import msgspec

from bts_exporter.collection import plugin_file
from bts_exporter.collection.prometheus_client_adapter import adapt
from bts_exporter.errors import PluginError, text_of
from bts_exporter.metric import Metric, Template
from bts_exporter.plugin import Collector, CollectorConfig, Command
from bts_exporter.settings.loader import COMMON_KEYS

GROUP = "bts_exporter.collectors"

#: Drop-in files that were imported, with what was in them.
_imported: dict[Path, tuple[bytes, ModuleType]] = {}


@dataclass(frozen=True)
class Origin:
    """Where a type comes from, and how it is loaded."""

    name: str
    #: Such as `bts-exporter 0.1.0` or the path of a file.
    source: str
    entry_point: importlib.metadata.EntryPoint | None = None
    file: Path | None = None


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
                origins = [o for o in origins if o.file is None or plugin_file.is_safe(o.file)]
            if len(origins) > 1:
                msg = f"type {name} is provided by {self.source(name)}: remove one of them"
                raise PluginError(msg)
            self._loaded[name] = _load(origins[0])
        return self._loaded[name]


def _installed() -> Iterator[Origin]:
    for entry_point in importlib.metadata.entry_points(group=GROUP):
        dist = entry_point.dist
        source = f"{dist.name} {dist.version}" if dist else entry_point.value
        yield Origin(entry_point.name, source, entry_point=entry_point)


def _dropped_in(folder: Path) -> Iterator[Origin]:
    try:
        files = sorted(folder.glob("*.py"))
    except OSError:
        return
    for file in files:
        if not file.name.startswith("_") and file.name.isprintable():
            yield Origin(file.stem, str(file), file=file)


def _load(origin: Origin) -> type[Collector]:
    try:
        if origin.entry_point is not None:
            loaded = origin.entry_point.load()
        else:
            assert origin.file is not None  # noqa: S101  # one of the two is set
            loaded = _only_collector(_import_file(origin.file), origin.file)
        return _checked(adapt(loaded))
    except PluginError as error:
        msg = f"type {origin.name} ({origin.source}) is broken: {error}"
        raise PluginError(msg) from error
    except BaseException as error:
        # Importing a plug-in runs its code, which may do anything; SystemExit among it.
        if isinstance(error, KeyboardInterrupt):
            raise
        words = f"{type(error).__name__}: {text_of(error)}"
        msg = f"type {origin.name} ({origin.source}) is broken: {words}"
        raise PluginError(msg) from error


def _import_file(file: Path) -> ModuleType:
    source = plugin_file.read(file)
    # A file that did not change keeps its classes over a reload, and so its collectors.
    before, module = _imported.get(file, (b"", None))
    if module is not None and before == source:
        return module
    name = f"bts_exporter_plugins.{file.stem}"
    module = sys.modules[name] = ModuleType(name)
    module.__file__ = str(file)
    # Not by importlib, whose compiled copies miss a change within the second.
    exec(compile(source, file, "exec", dont_inherit=True), vars(module))  # noqa: S102  # it is what plug-ins are for
    _imported[file] = (source, module)
    return module


def _only_collector(module: ModuleType, file: Path) -> object:
    explicit = getattr(module, "COLLECTOR", None)
    if explicit is not None:
        return explicit
    own = [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and value.__module__ == module.__name__
        and callable(getattr(value, "collect", None))
    ]
    if len(own) != 1:
        what = "no collector" if not own else "several collectors"
        msg = f"{file} defines {what}: one class with a collect method, or name it COLLECTOR"
        raise PluginError(msg)
    return own[0]


def _checked(cls: type[Collector]) -> type[Collector]:
    if not issubclass(cls.Config, CollectorConfig):
        msg = f"{cls.__name__}.Config must derive from CollectorConfig"
        raise PluginError(msg)
    # Annotations that cannot be resolved raise here, where the error names this type.
    msgspec.structs.fields(cls.Config)
    taken = sorted(COMMON_KEYS & set(cls.Config.__struct_fields__))
    if taken:
        msg = f"{cls.__name__}.Config: {', '.join(taken)} is reserved by the engine; choose another name"
        raise PluginError(msg)
    odd = [metric for metric in cls.declared() if not isinstance(metric, Metric | Template)]
    if odd or not all(isinstance(command, Command) for command in cls.commands.values()):
        msg = f"{cls.__name__}: declared must yield metrics, and commands hold a Command for each name"
        raise PluginError(msg)
    if cls.collect is Collector.collect and cls.build.__func__ is Collector.build.__func__:  # type: ignore[attr-defined]
        msg = f"{cls.__name__} has no collect method"
        raise PluginError(msg)
    if inspect.isgeneratorfunction(cls.collect) or inspect.iscoroutinefunction(cls.collect):
        msg = f"{cls.__name__}.collect is a generator or coroutine and would never run: call scrape.emit instead"
        raise PluginError(msg)
    return cls
