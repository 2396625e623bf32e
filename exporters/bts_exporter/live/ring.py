"""Values of the last minutes in a bounded amount of memory: 4 bytes for each."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Mapping, Sequence

from bts_exporter.metric import Key

#: Seconds that the ring covers.
HISTORY_SECONDS = 900.0
#: How much earlier than a step a scrape may come and still be kept, as a share of the step.
_TOLERANCE = 0.1
#: So many keys may be kept that have no value any more, besides as many as have one.
_SPARE = 16
_NAN = float("nan")


class Ring:
    """Columns of values: one for each step in time, with a value for each field of each key.

    An unknown value is NaN.
    """

    def __init__(self, step: float, fields: int) -> None:
        """Keep a column for every `step` seconds, with so many fields of each key."""
        self._step = step
        self._fields = fields
        self._rows: dict[Key, int] = {}
        self._columns: deque[tuple[float, list[array[float]]]] = deque(
            maxlen=int(HISTORY_SECONDS / step)
        )

    def is_due(self, now: float) -> bool:
        """Return whether a step has passed since the last column; `now` is of any clock in seconds."""
        return not self._columns or now - self._columns[-1][0] >= self._step * (1 - _TOLERANCE)

    def add(self, now: float, fields: Sequence[Mapping[Key, float]]) -> None:
        """Add a column: the values of each field by key."""
        rows = self._rows
        alive = set().union(*fields)
        for key in alive - rows.keys():
            rows[key] = len(rows)
        if len(rows) > 2 * len(alive) + _SPARE:
            self._forget_all_but(alive)
        column = [array("f", [values.get(key, _NAN) for key in self._rows]) for values in fields]
        while self._columns and now - self._columns[0][0] > HISTORY_SECONDS:
            self._columns.popleft()
        self._columns.append((now, column))

    def times(self, since: float = 0.0) -> list[float]:
        """Return the times of the columns after `since`."""
        return [time for time, _ in self._columns if time > since]

    def values(self, field: int, since: float = 0.0) -> dict[Key, list[float]]:
        """Return one field of every key, a value for each of `times(since)`."""
        columns = [column[field] for time, column in self._columns if time > since]
        return {
            key: [column[row] if row < len(column) else _NAN for column in columns]
            for key, row in self._rows.items()
        }

    def _forget_all_but(self, alive: set[Key]) -> None:
        """Drop the keys without a value: names that are used once must not fill the memory."""
        kept = [(key, row) for key, row in self._rows.items() if key in alive]
        self._rows = {key: row for row, (key, _) in enumerate(kept)}
        for _, column in self._columns:
            for field, values in enumerate(column):
                column[field] = array(
                    "f", [values[row] if row < len(values) else _NAN for _, row in kept]
                )
