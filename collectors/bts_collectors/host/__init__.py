"""Statistics of the machine, one collector a subsystem, under the names of node_exporter.

Every module of `subsystems` is one: there is no list to edit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from pkgutil import iter_modules
from types import new_class
from typing import Any, cast

from bts_collectors.host import subsystems
from bts_collectors.host.psutil_fallback import portable
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import Collector, CollectorConfig, Metric, Template


def _subsystems() -> dict[str, type[Subsystem]]:
    modules = [
        import_module(f"{subsystems.__name__}.{module.name}")
        for module in iter_modules(subsystems.__path__)
    ]
    found = {module.COLLECTOR.name: module.COLLECTOR for module in modules}
    return dict(sorted(found.items()))


#: The subsystems by name.
SUBSYSTEMS = _subsystems()


class _Selection(Paths, frozen=True):
    """Which subsystems are collected: the default ones, plus `enable`, minus `disable`."""

    enable: tuple[str, ...] = ()
    disable: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise ValueError for names that mean nothing, or both things at once."""
        unknown = sorted({*self.enable, *self.disable} - SUBSYSTEMS.keys())
        if unknown:
            msg = f"no such subsystem: {', '.join(unknown)}; there are: {', '.join(SUBSYSTEMS)}"
            raise ValueError(msg)
        both = sorted({*self.enable} & {*self.disable})
        if both:
            msg = f"both enabled and disabled: {', '.join(both)}"
            raise ValueError(msg)


def _config() -> type[CollectorConfig]:
    """Return the settings of a host: paths, selection, and a block for each subsystem that has some."""
    blocks = {name: cls.Settings for name, cls in SUBSYSTEMS.items() if cls.Settings is not None}

    def fill(namespace: dict[str, Any]) -> None:
        namespace["__annotations__"] = blocks
        namespace["__doc__"] = "Settings of a host."
        namespace["__module__"] = __name__
        namespace.update({name: settings() for name, settings in blocks.items()})

    return cast("type[CollectorConfig]", new_class("HostConfig", (_Selection,), {}, fill))


class Host(Collector):
    """The machine, as a collector for each of its subsystems."""

    Config = _config()

    @classmethod
    def build(cls, config: Any) -> Sequence[Collector]:
        """Return a collector for each subsystem that `config` selects."""
        paths = {field: getattr(config, field) for field in Paths.__struct_fields__}
        return [
            portable(subsystem)(_own_config(subsystem, config, paths))
            for name, subsystem in SUBSYSTEMS.items()
            if name in config.enable or (subsystem.by_default and name not in config.disable)
        ]

    @classmethod
    def declared(cls) -> Iterator[Metric | Template]:
        """Yield the metrics of every subsystem, each once."""
        chain = (metric for cls in SUBSYSTEMS.values() for metric in cls.declared())
        yield from dict.fromkeys(chain)


def _own_config(subsystem: type[Subsystem], config: Any, paths: dict[str, str]) -> CollectorConfig:
    settings: dict[str, Any] = {}
    if subsystem.Settings is not None:
        settings["settings"] = getattr(config, subsystem.name)
    return subsystem.Config(**paths, **settings)


COLLECTOR = Host
