"""Collections as the exporter makes them: settings from text, a thread, a deadline, and an outcome."""

from __future__ import annotations

from pathlib import Path, PurePath
from types import TracebackType
from typing import Any, NamedTuple, Self

from bts_exporter.collection.collector_set import CollectorSet
from bts_exporter.collection.registry import load_file, load_installed
from bts_exporter.collection.type_check import checked
from bts_exporter.errors import ConfigError, Reason
from bts_exporter.page_service import sound_part
from bts_exporter.plugin import Collector
from bts_exporter.settings.loader import Common
from bts_exporter.settings.schema import Schema
from bts_exporter.settings.yaml_document import Document
from bts_exporter.test_kit.samples import Samples


class Collected(NamedTuple):
    """What one collection gave, and how it ended."""

    samples: Samples
    success: bool
    #: False if there was nothing to read: the collector raised NotPresent, or its optional target is absent.
    supported: bool
    #: Why it failed, as in the label `reason` of the exporter's own metrics; None if it did not.
    reason: Reason | None
    message: str


class Running:
    """A collector that is started, and stopped at the end of the `with` block."""

    def __init__(self, collector: Collector, **common: Any) -> None:
        """Take the collector, and settings that all collectors have, such as `max_series`."""
        self._set = CollectorSet()
        kind = collector.name or type(collector).__name__.lower()
        self._runner = self._set.add(collector, kind, Common(**common))

    def __enter__(self) -> Self:
        self._runner.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for last in self._set.stop([self._runner]):
            last.wait(10)
        self._set.close()

    def scrape(self, seconds: float = 10.0) -> Collected:
        """Collect once, and return what there is after `seconds` at the latest.

        A collection that is not ready then goes on in its thread: it has the reason `timeout`, and those
        after it have `busy` until it ends.
        """
        [found] = self._set.collect([self._runner], seconds)
        shot = sound_part(found)
        outcome = shot.outcome
        return Collected(
            Samples(shot.samples),
            outcome.success,
            outcome.supported,
            outcome.reason,
            outcome.message,
        )


def run(collector: Collector, seconds: float = 10.0, **common: Any) -> Collected:
    """Start a collector, collect once as the exporter does, with a deadline, and stop it."""
    with Running(collector, **common) as running:
        return running.scrape(seconds)


def configured(kind: type[Collector] | str | PurePath, /, **settings: Any) -> Collector:
    """Return a collector with settings as they are written in config.yaml.

    `kind` is its class, the file or folder of a plug-in, or the name of an installed type. ConfigError with
    every mistake in the settings.
    """
    cls = checked(kind) if isinstance(kind, type) else _loaded(kind)
    schema = Schema(Document("settings", ""))
    config = schema.convert(_plain(settings), cls.Config, ())
    if schema.problems:
        raise ConfigError(schema.problems)
    built = list(cls.build(config))
    if len(built) != 1:
        msg = f"{cls.__name__} builds {len(built)} collectors for these settings: call its build(config)"
        raise AssertionError(msg)
    return built[0]


def _loaded(kind: str | PurePath) -> type[Collector]:
    if isinstance(kind, str) and kind.isidentifier():
        return load_installed(kind)
    return load_file(Path(kind))


def _plain(value: Any) -> Any:
    """Return a value as YAML has it: paths are text, and sequences are lists."""
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
