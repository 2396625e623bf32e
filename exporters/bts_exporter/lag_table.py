"""The lag of all destinations as text for a terminal."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Sequence

from bts_exporter.lag_report import CollectorState, Destination, LagReport
from bts_exporter.printable import printable

_GAP = "  "
_CUT = ".."
#: Columns are left out before names have less room than this.
_LEAST_WIDTH = 16
_NOT_APPLICABLE = "-"
_UNKNOWN = "?"
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
#: Shorter durations have a decimal.
_SHORT_SECONDS = 10
_SHORTEST_SECONDS = 0.1
#: The middle of longer names is left out, since each row is as wide as the longest name. No queue has one.
_LONGEST_NAME = 256
#: A longer duration is a mistake of its source, such as milliseconds for seconds.
_MOST_DAYS = 1_000_000
#: Numbers up to here are shown as they are.
_MANY = 10_000


def name_of(row: Destination) -> str:
    """Return a destination in one line, for messages."""
    parts = (_broker(row), row.destination, row.group)
    return " ".join(printable(part) for part in parts if part)


def collector_name(state: CollectorState) -> str:
    """Return a collector as log lines name it."""
    return printable(f"{state.collector}[{state.target}]" if state.target else state.collector)


def table(report: LagReport, *, width: int | None = None) -> list[str]:
    """Return the lines of a table, the latest destination first.

    None is wider than `width`: columns are left out, and names lose their middle. Numbers are never cut.
    """
    if not report.destinations:
        return ["no destinations"]
    columns = [
        _Column(head, is_number, [head, *map(show, report.destinations)])
        for head, is_number, show in _COLUMNS
    ]
    if width is not None:
        columns = _fitted(columns, width)
    return [_GAP.join(cells).rstrip() for cells in zip(*map(_aligned, columns), strict=True)]


def duration(seconds: float) -> str:
    """Return a duration in the two largest of its units: `4.2s`, `42s`, `2m 05s`, `3h 12m`, `2d 04h`."""
    whole = round(seconds)
    if 0 < seconds < _SHORTEST_SECONDS:
        return f"<{_SHORTEST_SECONDS}s"  # 0 means that nothing waits
    if seconds < _SHORT_SECONDS:
        return f"{seconds:.1f}".removesuffix(".0") + "s"
    if whole < _MINUTE:
        return f"{whole}s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}m {whole % _MINUTE:02}s"
    if whole < _DAY:
        return f"{whole // _HOUR}h {whole % _HOUR // _MINUTE:02}m"
    if whole // _DAY > _MOST_DAYS:
        return f">{_MOST_DAYS}d"
    return f"{whole // _DAY}d {whole % _DAY // _HOUR:02}h"


def lag(row: Destination) -> str:
    """Return the lag; `>` in front of one that is only known to be longer."""
    if row.lag_seconds is None:
        return _UNKNOWN if row.lag_is_unknown else _NOT_APPLICABLE
    sign = ">" if row.lag_method == "lower_bound" and row.lag_seconds else ""
    return sign + duration(row.lag_seconds)


def _broker(row: Destination) -> str:
    return f"{row.system}/{row.target}" if row.target else row.system


def _name(text: str) -> str:
    return _cut(printable(text), _LONGEST_NAME) or _NOT_APPLICABLE


def _drain(row: Destination) -> str:
    if row.drain_seconds is not None:
        return duration(row.drain_seconds)
    return "never" if row.drains is False else _NOT_APPLICABLE


def _number(value: float | None) -> str:
    """Return a number in three digits or more: `0.25`, `8.3`, `120`, `12.3k`, `4.56M`."""
    if value is None:
        return _NOT_APPLICABLE
    if value < _MANY:
        return f"{value:.3g}" if value < 100 else f"{value:.0f}"  # noqa: PLR2004  # three digits
    scaled = value
    for unit in ("k", "M", "G", "T"):
        scaled /= 1000
        if scaled < 999.5:  # noqa: PLR2004  # the next unit
            return f"{scaled:.3g}{unit}"
    return f"{value:.0e}"


#: Heading, whether it is a number, and the text of a destination's cell.
_COLUMNS: Sequence[tuple[str, bool, Callable[[Destination], str]]] = (
    ("DESTINATION", False, lambda row: _name(row.destination)),
    ("GROUP", False, lambda row: _name(row.group)),
    ("BROKER", False, lambda row: printable(_broker(row))),
    ("WAITING", True, lambda row: _number(row.backlog_messages)),
    ("LAG", True, lag),
    ("METHOD", False, lambda row: printable(row.lag_method or _NOT_APPLICABLE)),
    ("IN/S", True, lambda row: _number(row.published_per_second)),
    ("OUT/S", True, lambda row: _number(row.consumed_per_second)),
    ("DRAINED IN", True, _drain),
)
#: What a narrow terminal leaves out, in this order.
_LEFT_OUT = ("METHOD", "BROKER", "IN/S", "OUT/S", "DRAINED IN", "WAITING", "GROUP")


class _Column:
    """A column of a table: its heading, and the cells with the heading as the first."""

    def __init__(self, head: str, is_number: bool, cells: list[str]) -> None:  # noqa: FBT001  # as in _COLUMNS
        self.head = head
        self.is_number = is_number
        self.cells = cells
        self.width = max(map(_width, cells))

    @property
    def least(self) -> int:
        """Return the width to which it may be narrowed before another column is left out."""
        return self.width if self.is_number else min(self.width, _LEAST_WIDTH)


def _fitted(columns: list[_Column], width: int) -> list[_Column]:
    """Return the columns that fit, narrowed where they are names."""
    for head in _LEFT_OUT:
        if sum(column.least for column in columns) + len(_GAP) * (len(columns) - 1) <= width:
            break
        columns = [column for column in columns if column.head != head]
    excess = sum(column.width for column in columns) + len(_GAP) * (len(columns) - 1) - width
    names = [column for column in columns if not column.is_number]
    while excess > 0 and any(column.width > 1 for column in names):
        max(names, key=lambda column: column.width).width -= 1
        excess -= 1
    return columns


def _aligned(column: _Column) -> Iterator[str]:
    """Yield the cells of a column, all of its width."""
    for text in column.cells:
        shown = text if column.is_number else _cut(text, column.width)
        padding = " " * (column.width - _width(shown))
        yield padding + shown if column.is_number else shown + padding


def _cut(text: str, room: int) -> str:
    """Return `text` with its middle left out where it is wider than `room`: both ends tell names apart."""
    if _width(text) <= room:
        return text
    if room <= len(_CUT):
        return _CUT[:room]
    left = (room - len(_CUT) + 1) // 2
    return _head(text, left) + _CUT + _head(text[::-1], room - len(_CUT) - left)[::-1]


def _head(text: str, room: int) -> str:
    """Return as many of the first characters as fit into `room`."""
    for end, character in enumerate(text):
        room -= _width(character)
        if room < 0:
            return text[:end]
    return text


def _width(text: str) -> int:
    """Return how many columns of a terminal `text` takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(it) else 1 + (unicodedata.east_asian_width(it) in "WF")
        for it in text
    )
