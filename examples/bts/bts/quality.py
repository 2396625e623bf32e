"""What is wrong with a reading, if anything."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Literal

from bts.readings import PARAMETERS, SENTINELS, Reading

Quality = Literal[
    "valid", "missing", "sentinel", "out_of_range", "late", "duplicate", "malformed", "clock_skew"
]
#: A reading from further ahead has a wrong clock.
MAX_AHEAD_SECONDS: Final = 60.0
#: A reading older than this is of no use for a prediction.
MAX_AGE_SECONDS: Final = 3600.0
REMEMBERED_IDS: Final = 20_000
#: The sentinel of a sensor that is not connected; the other reports an error.
NOT_CONNECTED: Final = 999991.0


class QualityCheck:
    """Judges readings one after the other; remembers their ids to find duplicates."""

    def __init__(self) -> None:
        self._ids: OrderedDict[str, None] = OrderedDict()

    def judge(self, reading: Reading, now: float) -> Quality:
        """Return the quality of a reading that arrived at `now` (Unix seconds)."""
        if not self.remember(reading.id):
            return "duplicate"
        if reading.value in SENTINELS:
            return "missing" if reading.value == NOT_CONNECTED else "sentinel"
        parameter = PARAMETERS.get(reading.parameter_id)
        if parameter is None or not parameter.low <= reading.value <= parameter.high:
            return "out_of_range"
        if reading.reading_time > now + MAX_AHEAD_SECONDS:
            return "clock_skew"
        return "late" if reading.reading_time < now - MAX_AGE_SECONDS else "valid"

    def remember(self, reading_id: str) -> bool:
        """Return whether the id is new; the oldest of 20,000 ids is forgotten."""
        if reading_id in self._ids:
            return False
        self._ids[reading_id] = None
        if len(self._ids) > REMEMBERED_IDS:
            self._ids.popitem(last=False)
        return True
