"""Alarms: thresholds with hysteresis, so that a value that wavers around one raises a single alarm."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from typing import Final

from bts.readings import Alarm, Reading

#: A station that sends nothing; its alarm carries parameter 1 and this value.
CONNECTION_LOSS: Final = 323
CONNECTION_PARAMETER: Final = 1
CONNECTION_VALUE: Final = 999999.0


@dataclass(frozen=True, slots=True)
class Rule:
    """An alarm starts beyond `threshold` and ends when the value is `hysteresis` back on the good side."""

    alarm_id: int
    parameter_id: int
    threshold: float
    hysteresis: float
    #: The alarm is for values below the threshold.
    below: bool = False

    def starts(self, value: float) -> bool:
        """Return whether `value` starts the alarm."""
        return value < self.threshold if self.below else value > self.threshold

    def ends(self, value: float) -> bool:
        """Return whether `value` ends the alarm."""
        if self.below:
            return value >= self.threshold + self.hysteresis
        return value <= self.threshold - self.hysteresis


RULES: Final = (
    Rule(308, 121, 240, 4),
    Rule(309, 121, 200, 4, below=True),
    Rule(310, 122, 30, 1),
    Rule(312, 143, 28, 0.3),
    Rule(304, 114, 40, 1),
    Rule(317, 152, 0, 0),
    Rule(319, 153, 0, 0),
)


class Alarms:
    """The alarms that last, by station and alarm."""

    def __init__(self) -> None:
        self._lasting: dict[tuple[int, int], Alarm] = {}
        self._rules: dict[int, list[Rule]] = {}
        for rule in RULES:
            self._rules.setdefault(rule.parameter_id, []).append(rule)

    def check(self, reading: Reading) -> list[Alarm]:
        """Return the alarms that a valid reading starts (`end_time` None) or ends."""
        changes = []
        for rule in self._rules.get(reading.parameter_id, ()):
            key = (reading.station_id, rule.alarm_id)
            if key not in self._lasting and rule.starts(reading.value):
                changes.append(self._start(rule, reading))
            elif key in self._lasting and rule.ends(reading.value):
                changes.append(replace(self._lasting.pop(key), end_time=reading.reading_time))
        return changes

    def silent(self, station: int, since: float) -> list[Alarm]:
        """Return the alarm of a station that has sent nothing since `since`; none if it lasts already."""
        key = (station, CONNECTION_LOSS)
        if key in self._lasting:
            return []
        alarm = Alarm(
            uuid.uuid4().hex,
            *key,
            CONNECTION_PARAMETER,
            since,
            None,
            CONNECTION_VALUE,
            CONNECTION_VALUE,
        )
        self._lasting[key] = alarm
        return [alarm]

    def heard(self, station: int, time: float) -> list[Alarm]:
        """Return the end of a station's silence, if it was silent."""
        alarm = self._lasting.pop((station, CONNECTION_LOSS), None)
        return [] if alarm is None else [replace(alarm, end_time=time)]

    def _start(self, rule: Rule, reading: Reading) -> Alarm:
        alarm = Alarm(
            uuid.uuid4().hex,
            reading.station_id,
            rule.alarm_id,
            rule.parameter_id,
            reading.reading_time,
            None,
            reading.value,
            rule.threshold,
        )
        self._lasting[reading.station_id, rule.alarm_id] = alarm
        return alarm
