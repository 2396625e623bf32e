"""Statistics of the host: one collector per subsystem, with the metric names of node_exporter.

Each module in `subsystems` is one subsystem; there is no list to edit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from pkgutil import iter_modules
from typing import Annotated, Any

from msgspec import Meta, defstruct

from bts_collectors.host import subsystems
from bts_collectors.host.psutil_fallback import for_this_platform
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import Collector, Metric, Template


def _subsystems() -> dict[str, type[Subsystem]]:
    modules = [
        import_module(f"{subsystems.__name__}.{module.name}")
        for module in iter_modules(subsystems.__path__)
    ]
    found = {module.COLLECTOR.name: module.COLLECTOR for module in modules}
    return dict(sorted(found.items()))


#: The subsystems by name.
SUBSYSTEMS = _subsystems()


#: For editors; `__post_init__` checks the names.
_Name = Annotated[str, Meta(extra_json_schema={"enum": list(SUBSYSTEMS)})]


class _Enabled(Paths, frozen=True):
    """The subsystems to collect: the default ones, plus `enable`, minus `disable`."""

    #: Subsystems to collect in addition to the default ones.
    enable: tuple[_Name, ...] = ()
    #: Default subsystems not to collect.
    disable: tuple[_Name, ...] = ()

    def __post_init__(self) -> None:
        """Raise ValueError for unknown names, and for names in both lists."""
        unknown = sorted({*self.enable, *self.disable} - SUBSYSTEMS.keys())
        if unknown:
            msg = f"{', '.join(unknown)}: not a subsystem (expected {', '.join(SUBSYSTEMS)})"
            raise ValueError(msg)
        both = sorted({*self.enable} & {*self.disable})
        if both:
            msg = f"in both enable and disable: {', '.join(both)}"
            raise ValueError(msg)


def _config() -> type[Any]:
    """Return the type of a host's settings: a field for each subsystem that has settings."""
    blocks = [
        (name, cls.Settings, cls.Settings())
        for name, cls in SUBSYSTEMS.items()
        if cls.Settings is not None
    ]
    return defstruct(
        "HostConfig",
        blocks,
        bases=(_Enabled,),
        namespace={"__doc__": "Settings of a host."},
        module=__name__,
        frozen=True,
    )


class Host(Collector):
    """A host: builds one collector for each subsystem that is enabled."""

    Config = _config()

    @classmethod
    def build(cls, config: Any) -> Sequence[Collector]:
        """Return a collector for each subsystem that `config` enables; no I/O here."""
        paths = {field: getattr(config, field) for field in Paths.__struct_fields__}
        return [
            for_this_platform(subsystem)(_config_of(subsystem, config, paths))
            for name, subsystem in SUBSYSTEMS.items()
            if name in config.enable or (subsystem.by_default and name not in config.disable)
        ]

    @classmethod
    def declared(cls) -> Iterator[Metric | Template]:
        """Yield the metrics of every subsystem, each once."""
        chain = (metric for cls in SUBSYSTEMS.values() for metric in cls.declared())
        yield from dict.fromkeys(chain)


def _config_of(subsystem: type[Subsystem], config: Any, paths: dict[str, str]) -> Any:
    settings: dict[str, Any] = {}
    if subsystem.Settings is not None:
        settings["settings"] = getattr(config, subsystem.name)
    return subsystem.Config(**paths, **settings)


COLLECTOR = Host
