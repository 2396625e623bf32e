"""The base classes of a collector, its settings and its commands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import msgspec

from bts_exporter.matches import Match
from bts_exporter.metric import Key, Metric, Template
from bts_exporter.scrape import Scrape
from bts_exporter.stored_state import Restored, StoredState


class CollectorConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of a collector's settings: frozen, typed, unknown keys refused.

    The keys that all collectors share (name, labels, interval, timeout, max_series, optional,
    metrics) belong to the engine and are taken out before.
    """

    #: Where keys belong that users may expect here, by key; part of the error about such a key.
    advice: ClassVar[Mapping[str, str]] = MappingProxyType({})


class Command(NamedTuple):
    """A command of a collector type, for people: `bts-exporter TYPE-NAME ARGUMENT...`."""

    help: str
    #: What it takes, in this order, all of it needed: name -> help.
    arguments: Mapping[str, str]
    #: Called with the type's blocks of settings and the arguments; yields the lines to print, and
    #: raises ValueError with the reason.
    run: Callable[..., Iterable[str]]


class Collector:
    """Base of a collector: override `Config`, declare metrics as class attributes, write `collect`.

    An instance lives as long as its settings do not change. All but `__init__` may do I/O.
    """

    #: The type of this collector's block of settings.
    Config: ClassVar[type[CollectorConfig]] = CollectorConfig
    #: Name of one of several collectors that one block of settings builds; empty for the type's.
    name: ClassVar[str] = ""
    #: True if it reads kernel files and answers at once: it shares a thread with others like it.
    local: ClassVar[bool] = False
    #: `max_series` where the settings do not give it: above what it serves within its own bounds.
    default_max_series: ClassVar[int] = 100_000
    #: Commands of this type by name; they are offered as `bts-exporter TYPE-NAME`.
    commands: ClassVar[Mapping[str, Command]] = MappingProxyType({})
    #: Whether it serves metrics that it cannot declare, such as those of files or of another exporter.
    open_ended: bool = False
    #: Success and duration under the names of the exporter that it is compatible with, by `collector`.
    outcome_metrics: ClassVar[tuple[Metric, Metric] | None] = None

    #: The type of what it keeps across restarts of the exporter, if the settings have `state: DIR`; None
    #: if it keeps nothing.
    State: ClassVar[type[msgspec.Struct] | None] = None
    #: To be raised with every change of `State` or of its meaning: files of other versions are not used.
    state_version: ClassVar[int] = 1

    config: Any
    _stored_state: StoredState | None = None

    def __init__(self, config: Any) -> None:
        """Keep the settings; no I/O here."""
        self.config = config

    @classmethod
    def build(cls, config: Any) -> Sequence[Collector]:
        """Return the collectors that one block of settings asks for; no I/O here."""
        return [cls(config)]

    @classmethod
    def declared(cls) -> Iterator[Metric | Template]:
        """Yield every metric that this type can emit, each once."""
        seen: set[Metric | Template] = set()
        for owner in reversed(cls.__mro__):
            for value in vars(owner).values():
                for metric in _metrics_in(value):
                    if metric not in seen:
                        seen.add(metric)
                        yield metric

    @classmethod
    def declared_by(cls, config: Any) -> Iterator[Metric]:  # noqa: ARG003  # for those that override it
        """Yield the metrics that only a block of settings names, the same objects at each call."""
        yield from ()

    def matches(self, samples: Mapping[Metric, Mapping[Key, float]]) -> Iterable[Match]:  # noqa: ARG002  # as above
        """Return what each pattern of the settings matched; `samples` are those of a collection just ended."""
        return ()

    def start(self) -> None:
        """Begin what runs between scrapes, such as a subscription; a target that is down is not an error here."""

    def stop(self) -> None:
        """End what `start` began and close connections; called from another thread than `collect`."""

    def collect(self, scrape: Scrape) -> None:
        """Emit samples to `scrape`; anything raised fails this collection only."""
        raise NotImplementedError

    def save_state(self) -> tuple[str, msgspec.Struct] | None:
        """Return the identity of the target and a `State` to store; None to keep what is stored.

        No I/O here. It is called about once a minute and at the end, never at the same time as
        `collect`, and from another thread.
        """
        return None

    def restore(self, identity: str) -> Restored | None:
        """Return what was stored for the target `identity`; None if there is nothing that can be used.

        To be called in `collect` as soon as the identity is known, before the state is needed. Only
        the first call returns it.
        """
        stored, self._stored_state = self._stored_state, None
        return None if stored is None else stored.take(identity)

    def keep_for_restore(self, stored: StoredState) -> None:
        """Take what was stored; called by the engine before `start`."""
        self._stored_state = stored


def _metrics_in(value: object) -> Iterator[Metric | Template]:
    """Yield the metrics in a class attribute: one, or a table of them, nested as it may be."""
    if isinstance(value, Metric | Template):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _metrics_in(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _metrics_in(item)
