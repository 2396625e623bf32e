"""The answer of the live page to "is anything late?", in one or two sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

from bts_exporter.human_units import duration
from bts_exporter.printable import printable

#: How many failing collectors are named.
_MOST_NAMED = 3
#: First strong isolate and its end: a name in a sentence cannot change the direction of the others.
_ISOLATE, _END_OF_ISOLATE = "\u2068", "\u2069"


class Headline(msgspec.Struct):
    """The answer, and how bad it is."""

    state: Literal["bad", "warning", "good", "unknown"]
    text: str


class Row(Protocol):
    """What is needed of a destination."""

    @property
    def destination(self) -> str: ...  # noqa: D102
    @property
    def group(self) -> str: ...  # noqa: D102
    @property
    def lag_seconds(self) -> float | None: ...  # noqa: D102
    @property
    def state(self) -> str: ...  # noqa: D102


class Source(Protocol):
    """What is needed of a collector."""

    @property
    def id(self) -> str: ...  # noqa: D102
    @property
    def state(self) -> str: ...  # noqa: D102


def headline(
    destinations: Sequence[Row], collectors: Sequence[Source], *, collected: bool
) -> Headline:
    """Return the answer; `destinations` are sorted by their lag."""
    if not collected:
        return Headline("unknown", "Waiting for the first scrape.")
    failing = [it.id for it in collectors if it.state == "failing"]
    state, sentence = _of_rows(destinations)
    if not failing:
        return Headline(state, sentence)
    return Headline("bad", f"{sentence} {_fail(failing)}")


def _of_rows(
    destinations: Sequence[Row],
) -> tuple[Literal["bad", "warning", "good", "unknown"], str]:
    total = len(destinations)
    by_state: dict[str, list[Row]] = {}
    for row in destinations:
        by_state.setdefault(row.state, []).append(row)
    if late := by_state.get("late"):
        return "bad", (
            f"{len(late):,} of {total:,} {_noun(total)} {_be(len(late))} late."
            f" A message in {_name(late[0])} has waited for {duration(late[0].lag_seconds)}."
        )
    if lost := by_state.get("outdated"):
        return "bad", f"The numbers of {len(lost):,} of {total:,} {_noun(total)} are outdated."
    if idle := by_state.get("no_consumer"):
        return "warning", (
            f"Nothing is late, but {len(idle):,} of {total:,} {_noun(total)} {_have(len(idle))} messages"
            f" and no consumer: {_name(idle[0])}."
        )
    if behind := by_state.get("behind"):
        return "warning", (
            f"Nothing is late, but {_name(behind[0])} is {duration(behind[0].lag_seconds)} behind."
        )
    if unknown := by_state.get("lag_unknown"):
        return "warning", (
            f"Nothing is known to be late, but the lag of {len(unknown):,} of {total:,}"
            f" {_noun(total)} is not known yet."
        )
    if not total:
        return "unknown", "There are no destinations: no queue, stream or client is monitored here."
    return "good", f"Nothing is late: {total:,} {_noun(total)}."


def _fail(failing: Sequence[str]) -> str:
    named = ", ".join(f"{_ISOLATE}{printable(it)}{_END_OF_ISOLATE}" for it in failing[:_MOST_NAMED])
    more = f" and {len(failing) - _MOST_NAMED} more" if len(failing) > _MOST_NAMED else ""
    if len(failing) == 1:
        return f"A collector fails: {named}."
    return f"{len(failing)} collectors fail: {named}{more}."


def _name(row: Row) -> str:
    name = printable(row.destination or row.group or "the broker")
    group = f" ({printable(row.group)})" if row.group and row.destination else ""
    return f"{_ISOLATE}{name}{group}{_END_OF_ISOLATE}"


def _noun(count: int) -> str:
    return "destination" if count == 1 else "destinations"


def _be(count: int) -> str:
    return "is" if count == 1 else "are"


def _have(count: int) -> str:
    return "has" if count == 1 else "have"
