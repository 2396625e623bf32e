"""Values of the last minutes in a bounded amount of memory: 4 bytes for each."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from itertools import chain, repeat
from typing import NamedTuple

from bts_exporter.metric import Key

#: Seconds that the ring covers.
HISTORY_SECONDS = 900.0
#: How much earlier than a step a scrape may come and still be kept, as a share of the step.
_TOLERANCE = 0.1
#: So many keys may be kept that have no value any more, besides as many as have one.
_SPARE = 16
_NAN = float("nan")


class _Column(NamedTuple):
    time: float
    #: When it was added: values of a collector with an interval are older.
    added: float
    fields: list[array[float]]


class Ring:
    """Columns of values: one for each step in time, with a value for each field of each key.

    An unknown value is NaN.
    """

    def __init__(self, step: float, *, counts: Sequence[int] = ()) -> None:
        """Keep a column for every `step` seconds; the fields in `counts` are kept as rates per second."""
        self._step = step
        self._rows: dict[Key, int] = {}
        self._keys: list[Key] = []  # of the rows
        self._columns: deque[_Column] = deque(maxlen=int(HISTORY_SECONDS / step))
        #: The last values of the fields that are counts.
        self._counts = {field: array("d") for field in counts}

    def is_due(self, now: float) -> bool:
        """Return whether a step has passed since the last column; `now` is of any clock in seconds."""
        return not self._columns or now - self._columns[-1].time >= self._step * (1 - _TOLERANCE)

    def add(self, time: float, fields: Sequence[Mapping[Key, float]], age: float = 0.0) -> None:
        """Add a column: the values of each field by key at `time`, which was `age` seconds ago."""
        if not all(map(self._has_keys_of, fields)):
            self._admit(fields)
            self._keys = list(self._rows)
        seconds = time - self._columns[-1].time if self._columns else 0.0
        column = []
        for field, series in enumerate(fields):
            values = self._values_of(series)
            if field in self._counts:
                before = self._counts[field]
                self._counts[field] = array("d", values)
                values = _rates(before, values, seconds)
            column.append(array("f", values))
        while self._columns and time - self._columns[0].time > HISTORY_SECONDS:
            self._columns.popleft()
        self._columns.append(_Column(time, time + age, column))

    def times(self, since: float = 0.0) -> list[float]:
        """Return the times of the columns that were added after `since`."""
        return [column.time for column in self._columns if column.added > since]

    @property
    def keys(self) -> Collection[Key]:
        """Return the keys."""
        return self._rows

    def values_of(self, key: Key, field: int) -> list[float]:
        """Return one field of one key, a value for each of `times()`."""
        row = self._rows[key]
        columns = (column.fields[field] for column in self._columns)
        return [column[row] if row < len(column) else _NAN for column in columns]

    def values(self, field: int, since: float = 0.0) -> dict[Key, list[float]]:
        """Return one field of every key, a value for each of `times(since)`."""
        columns = [column.fields[field] for column in self._columns if column.added > since]
        return {
            key: [column[row] if row < len(column) else _NAN for column in columns]
            for key, row in self._rows.items()
        }

    def _has_keys_of(self, series: Mapping[Key, float]) -> bool:
        """Return whether a field has exactly our keys, in this order, as from one scrape to the next."""
        # Comparing takes a third of the time of looking up each.
        return len(series) == len(self._keys) and list(series) == self._keys

    def _values_of(self, series: Mapping[Key, float]) -> list[float]:
        if self._has_keys_of(series):
            return list(series.values())
        return list(map(series.get, self._keys, repeat(_NAN)))

    def _admit(self, fields: Sequence[Mapping[Key, float]]) -> None:
        """Give new keys a row; drop those without a value if there are more of them than of others."""
        rows = self._rows
        for series in fields:
            if not series.keys() <= rows.keys():
                for key in series.keys() - rows.keys():
                    rows[key] = len(rows)
        if len(rows) > 2 * max(map(len, fields)) + _SPARE:
            self._forget_all_but(set().union(*fields))

    def _forget_all_but(self, alive: set[Key]) -> None:
        """Drop the keys without a value: names that are used once must not fill the memory."""
        kept = [(key, row) for key, row in self._rows.items() if key in alive]
        rows = [row for _, row in kept]
        self._rows = {key: row for row, (key, _) in enumerate(kept)}
        for column in self._columns:
            for field, values in enumerate(column.fields):
                column.fields[field] = _gathered(values, rows)
        self._counts = {field: _gathered(values, rows) for field, values in self._counts.items()}


def _gathered(values: array[float], rows: Sequence[int]) -> array[float]:
    """Return the values of these rows; a column from before a row was new has none of it."""
    known = len(values)
    return array(values.typecode, [values[row] if row < known else _NAN for row in rows])


def _rates(before: array[float], counts: Sequence[float], seconds: float) -> list[float]:
    """Return how fast each count has risen; NaN where that is not known, or the count began again."""
    if seconds <= 0:
        return [_NAN] * len(counts)
    return [
        (count - last) / seconds if count >= last else _NAN
        for count, last in zip(counts, chain(before, repeat(_NAN)), strict=False)
    ]
