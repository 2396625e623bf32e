"""What the `queues` block may say: for each library which of its queues, and where it keeps them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from bts_exporter import CollectorConfig


@dataclass(frozen=True, slots=True)
class Wanted:
    """The queues of one library: `true`, a list of names, or a block of `names` and `prefix`."""

    on: bool = True
    #: Names or glob patterns; None for the library's default.
    names: tuple[str, ...] | None = None
    #: As the library's own setting spells it; None for its default.
    prefix: str | None = None

    _KEYS: ClassVar[tuple[str, ...]] = ("names", "prefix")

    @classmethod
    def from_setting(cls, raw: object) -> Self:
        """Return what `raw` asks for; ValueError when it asks for nothing we know."""
        match raw:
            case None:  # a key with nothing behind it
                return cls()
            case bool():
                return cls(on=raw)
            case list():
                return cls(names=_names(raw))
            case dict():
                return cls._from_block(raw)
            case _:
                keys = " and ".join(cls._KEYS)
                msg = f"expected true, a list of names, or a block of {keys}, got {raw!r}"
                raise ValueError(msg)

    @classmethod
    def _from_block(cls, raw: dict[str, object]) -> Self:
        for key in raw.keys() - set(cls._KEYS):
            msg = f"unknown key {key!r}; known: {', '.join(cls._KEYS)}"
            raise ValueError(msg)
        prefix = raw.get("prefix")
        if prefix is not None and not isinstance(prefix, str):
            msg = f"prefix: expected a string, got {prefix!r} (put it in quotes)"
            raise ValueError(msg)
        names = raw.get("names")
        return cls(names=None if names is None else _names(names), prefix=prefix)


class WantedNames(Wanted):
    """The queues of a library whose keys begin with the same words everywhere."""

    __slots__ = ()
    _KEYS = ("names",)


OFF = Wanted(on=False)
_OFF_NAMES = WantedNames(on=False)


class QueueSettings(CollectorConfig, frozen=True):
    """Queues that libraries keep in Redis, and plain keys that are queues."""

    celery: Wanted = OFF
    rq: Wanted = OFF
    sidekiq: Wanted = OFF
    bullmq: Wanted = OFF
    dramatiq: Wanted = OFF
    arq: WantedNames = _OFF_NAMES
    huey: WantedNames = _OFF_NAMES
    #: Keys by name or glob pattern, each a queue of its own.
    lists: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()
    zsets: tuple[str, ...] = ()


def _names(raw: object) -> tuple[str, ...]:
    if not isinstance(raw, list):
        msg = f"names: expected a list, got {raw!r}"
        raise ValueError(msg)  # noqa: TRY004  # the contract of from_setting
    for name in raw:
        if not isinstance(name, str):
            msg = f"names: expected strings, got {name!r} (put it in quotes)"
            raise ValueError(msg)  # noqa: TRY004  # as above
    return tuple(raw)
