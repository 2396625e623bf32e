"""The settings in `queues`: for each library its queues, and the prefix of their keys."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from bts_exporter import CollectorConfig

#: kombu's separator between a queue's name and a priority.
_SEPARATOR = "\x06\x16"


@dataclass(frozen=True, slots=True)
class LibrarySettings:
    """The queues of one library: `true`, a list of names, or a block of `names` and `prefix`."""

    on: bool = True
    #: Names or glob patterns; None for the library's default.
    names: tuple[str, ...] | None = None
    #: The prefix as in the library's own setting; None for its default.
    prefix: str | None = None

    _KEYS: ClassVar[tuple[str, ...]] = ("names", "prefix")

    def as_setting(self) -> str:
        """Return a default as it is written in the settings."""
        return "true" if self.on else "false"

    @classmethod
    def setting_schema(cls) -> dict[str, Any]:
        """Return the JSON Schema of what `from_setting` accepts."""
        names = {"type": "array", "items": {"type": "string"}}
        properties = {key: cls._schema_of(key) for key in cls._KEYS if key != "names"}
        block = {
            "type": "object",
            "properties": {"names": {**names, "type": ["array", "null"]}, **properties},
            "additionalProperties": False,
        }
        return {"anyOf": [{"type": ["boolean", "null"]}, names, block]}

    @classmethod
    def _schema_of(cls, key: str) -> dict[str, Any]:  # noqa: ARG003  # for the class below
        return {"type": ["string", "null"]}

    @classmethod
    def from_setting(cls, raw: object) -> Self:
        """Return the queues that `raw` names; ValueError if it is not valid."""
        match raw:
            case None:  # a key without a value
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
        names = raw.get("names")
        prefix = _string(raw, "prefix")
        return cls(names=None if names is None else _names(names), prefix=prefix)


@dataclass(frozen=True, slots=True)
class CelerySettings(LibrarySettings):
    """The queues of Celery, with the transport options of kombu that name their keys."""

    sep: str = _SEPARATOR
    #: kombu's option; None for all steps that may be in use.
    priority_steps: tuple[int, ...] | None = None
    unacked_key: str = "unacked"
    unacked_index_key: str = "unacked_index"

    _OPTIONS: ClassVar[tuple[str, ...]] = ("sep", "unacked_key", "unacked_index_key")
    _KEYS: ClassVar[tuple[str, ...]] = (
        *("names", "prefix", "global_keyprefix", "priority_steps"),
        *_OPTIONS,
    )

    @classmethod
    def _schema_of(cls, key: str) -> dict[str, Any]:
        if key == "priority_steps":
            step = {"type": "integer", "minimum": 0, "exclusiveMaximum": _MOST_PRIORITIES}
            steps = {"type": ["array", "null"], "items": step}
            return {**steps, "minItems": 1, "uniqueItems": True}
        least = {"minLength": 1} if key in cls._OPTIONS else {}
        return {"type": ["string", "null"], **least}

    @classmethod
    def _from_block(cls, raw: dict[str, object]) -> Self:
        if raw.get("prefix") is not None and raw.get("global_keyprefix") is not None:
            msg = "prefix and global_keyprefix are the same: leave one out"
            raise ValueError(msg)
        common = super(CelerySettings, cls)._from_block(raw)
        prefix = _string(raw, "global_keyprefix")
        steps = raw.get("priority_steps")
        options = {key: _string(raw, key) for key in cls._OPTIONS}
        if empty := [key for key, text in options.items() if text == ""]:
            msg = f"{empty[0]}: must not be empty"
            raise ValueError(msg)
        return replace(
            common,
            prefix=common.prefix if prefix is None else prefix,
            priority_steps=None if steps is None else _steps(steps),
            sep=options["sep"] or _SEPARATOR,
            unacked_key=options["unacked_key"] or "unacked",
            unacked_index_key=options["unacked_index_key"] or "unacked_index",
        )


@dataclass(frozen=True, slots=True)
class ListSettings(LibrarySettings):
    """Plain lists, with patterns of those about which something is known."""

    popped_left: tuple[str, ...] = ()
    popped_right: tuple[str, ...] = ()
    unique_payloads: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SortedSetSettings(LibrarySettings):
    """Plain sorted sets, with patterns of those whose score is a time."""

    time_scores: tuple[str, ...] = ()


class WantedNames(LibrarySettings):
    """The queues of a library without a prefix setting."""

    __slots__ = ()
    _KEYS = ("names",)


#: Priorities are smaller than this.
_MOST_PRIORITIES = 256
OFF = LibrarySettings(on=False)
_OFF_CELERY = CelerySettings(on=False)
_OFF_NAMES = WantedNames(on=False)


class QueueSettings(CollectorConfig, frozen=True):
    """Queues of job libraries, and plain keys that are queues."""

    #: Queues of Celery.
    celery: CelerySettings = _OFF_CELERY
    #: Queues of RQ.
    rq: LibrarySettings = OFF
    #: Queues of Sidekiq.
    sidekiq: LibrarySettings = OFF
    #: Queues of BullMQ.
    bullmq: LibrarySettings = OFF
    #: Queues of Dramatiq.
    dramatiq: LibrarySettings = OFF
    #: Queues of arq.
    arq: WantedNames = _OFF_NAMES
    #: Queues of huey.
    huey: WantedNames = _OFF_NAMES
    #: Keys by name or glob pattern, each of which is a queue.
    lists: tuple[str, ...] = ()
    #: As `lists`, of type set.
    sets: tuple[str, ...] = ()
    #: As `lists`, of type sorted set.
    zsets: tuple[str, ...] = ()
    #: Those of `lists` whose consumers use LPOP; for others it is found out.
    popped_left: tuple[str, ...] = ()
    #: Those of `lists` whose consumers use RPOP.
    popped_right: tuple[str, ...] = ()
    #: Those of `lists` in which no payload is used twice; for others it is found out.
    unique_payloads: tuple[str, ...] = ()
    #: Those of `zsets` whose score is the Unix time since when, or from when on, a member waits.
    time_scores: tuple[str, ...] = ()

    def plain(self) -> dict[str, LibrarySettings]:
        """Return the settings of plain keys by their name."""
        lists = ListSettings(
            names=self.lists,
            popped_left=self.popped_left,
            popped_right=self.popped_right,
            unique_payloads=self.unique_payloads,
        )
        sorted_sets = SortedSetSettings(names=self.zsets, time_scores=self.time_scores)
        return {"lists": lists, "sets": LibrarySettings(names=self.sets), "zsets": sorted_sets}


def _names(raw: object) -> tuple[str, ...]:
    if not isinstance(raw, list):
        msg = f"names: expected a list, got {raw!r}"
        raise ValueError(msg)  # noqa: TRY004  # the contract of from_setting
    for name in raw:
        if not isinstance(name, str):
            msg = f"names: expected strings, got {name!r} (put it in quotes)"
            raise ValueError(msg)  # noqa: TRY004  # as above
    return tuple(raw)


def _string(raw: dict[str, object], key: str) -> str | None:
    text = raw.get(key)
    if text is not None and not isinstance(text, str):
        msg = f"{key}: expected a string, got {text!r} (put it in quotes)"
        raise ValueError(msg)
    return text


def _steps(raw: object) -> tuple[int, ...]:
    """Return kombu's priority_steps, which must be ascending, because kombu uses bisection."""
    steps = raw if isinstance(raw, list) else []
    steps = [int(s) if isinstance(s, float) and s.is_integer() else s for s in steps]
    numbers = [step for step in steps if type(step) is int and 0 <= step < _MOST_PRIORITIES]
    if not numbers or numbers != steps or sorted(set(numbers)) != numbers:
        msg = f"priority_steps: expected ascending numbers such as [0, 3, 6, 9], got {raw!r}"
        raise ValueError(msg)
    return tuple(numbers)
