"""What sensors send and what the service reports: readings, alarms, and the parameters they refer to."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

#: The parameter that the model predicts: the load of the power grid, in ampere.
GRID_LOAD: Final = 122
#: Values by which sensors report that they have no measurement.
SENTINELS: Final = frozenset({999999.0, 999991.0})


@dataclass(frozen=True, slots=True)
class Parameter:
    """A measured quantity: its name, and the range outside which a value is an error of the sensor."""

    name: str
    low: float
    high: float


PARAMETERS: Final = {
    111: Parameter("room temperature (C)", -40, 80),
    112: Parameter("room temperature, second sensor (C)", -40, 80),
    113: Parameter("cabinet temperature (C)", -40, 80),
    114: Parameter("outdoor temperature (C)", -60, 70),
    115: Parameter("humidity (%)", 0, 100),
    116: Parameter("battery temperature (C)", -40, 90),
    121: Parameter("grid voltage (V)", 0, 500),
    122: Parameter("grid load (A)", 0, 60),
    123: Parameter("grid frequency (Hz)", 0, 70),
    124: Parameter("generator voltage (V)", 0, 500),
    125: Parameter("generator load (A)", 0, 60),
    126: Parameter("generator frequency (Hz)", 0, 70),
    141: Parameter("battery charge (%)", 0, 100),
    142: Parameter("battery current (A)", -200, 200),
    143: Parameter("battery voltage (V)", 0, 80),
    144: Parameter("battery voltage, second string (V)", 0, 80),
    145: Parameter("battery current, second string (A)", -200, 200),
    151: Parameter("smoke", 0, 1),
    152: Parameter("door", 0, 1),
    153: Parameter("motion", 0, 1),
    154: Parameter("leak", 0, 1),
    155: Parameter("heat", 0, 1),
    161: Parameter("fuel level (%)", 0, 100),
    162: Parameter("fuel temperature (C)", -40, 90),
    163: Parameter("oil pressure (bar)", 0, 20),
    164: Parameter("coolant temperature (C)", -40, 150),
    165: Parameter("engine running", 0, 1),
}


class MalformedReadingError(ValueError):
    """A payload is not a reading; the message says why."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One measurement; `reading_time` is in Unix seconds."""

    id: str
    value: float
    station_id: int
    parameter_id: int
    reading_time: float

    @property
    def key(self) -> str:
        """Return the AMQP routing key."""
        return f"reading.{self.station_id}.{self.parameter_id}"

    @property
    def topic(self) -> str:
        """Return the MQTT topic."""
        return f"bts/{self.station_id}/{self.parameter_id}"


@dataclass(frozen=True, slots=True)
class Alarm:
    """A threshold crossed; `end_time` is None while the alarm lasts. Times are in Unix seconds."""

    id: str
    station_id: int
    alarm_id: int
    parameter_id: int
    start_time: float
    end_time: float | None
    value: float
    threshold: float

    @property
    def key(self) -> str:
        """Return the AMQP routing key."""
        return f"alarm.{self.station_id}.{self.alarm_id}"


def encode(item: Reading | Alarm) -> bytes:
    """Return the JSON of a reading or an alarm."""
    return json.dumps(asdict(item), separators=(",", ":")).encode()


def decode_reading(payload: bytes) -> Reading:
    """Return the reading that `payload` (JSON) holds.

    MalformedReadingError for anything that is not an object with exactly the fields of a reading, with a
    finite value and time.
    """
    try:
        data: Any = json.loads(payload)
    except (ValueError, RecursionError) as error:
        msg = f"not JSON: {error}"
        raise MalformedReadingError(msg) from error
    names = {field.name for field in fields(Reading)}
    if not isinstance(data, dict) or set(data) != names:
        msg = f"not an object with the keys {', '.join(sorted(names))}"
        raise MalformedReadingError(msg)
    return Reading(
        id=_text(data, "id"),
        value=_number(data, "value"),
        station_id=_integer(data, "station_id"),
        parameter_id=_integer(data, "parameter_id"),
        reading_time=_number(data, "reading_time"),
    )


def _text(data: dict[str, Any], key: str) -> str:
    if not isinstance(data[key], str) or not data[key]:
        msg = f"{key} is not a text: {data[key]!r}"
        raise MalformedReadingError(msg)
    return str(data[key])


def _integer(data: dict[str, Any], key: str) -> int:
    if type(data[key]) is not int or data[key] < 0:
        msg = f"{key} is not a positive integer: {data[key]!r}"
        raise MalformedReadingError(msg)
    return int(data[key])


def _number(data: dict[str, Any], key: str) -> float:
    value = data[key]
    try:
        number = math.nan if isinstance(value, bool | str) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        msg = f"{key} is not a finite number: {value!r}"
        raise MalformedReadingError(msg)
    return number
