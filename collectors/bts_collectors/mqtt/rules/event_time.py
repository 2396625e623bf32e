"""How late messages are: the time that a payload says against the time at which it came.

Payload to Unix time is pure; what is counted of it is written by the network thread alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from typing import Any, Literal

from bts_collectors.mqtt.rules.payloads import Path, PayloadError, number
from bts_exporter import CollectorConfig, HistogramAccumulator, Metric, Scrape, counter, histogram

#: Seconds.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
#: Seconds; more is a clock that was never set, and would spoil the sum for good.
_LONGEST_LAG = 10 * 365 * 86400.0
#: Seconds; no two clocks are the same.
_CLOCK_SKEW = 5.0
_UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}

LAG = histogram(
    "mqtt_message_lag_seconds",
    "Time from the event that a message tells of, as its payload says (event_time), to its arrival"
    " here; without retained messages.",
    "rule",
)
SKEWED = counter(
    "mqtt_message_clock_skew_total",
    "Messages whose event_time is more than 5 s in the future, or longer ago than ten years.",
    "rule",
)
METRICS: tuple[Metric, ...] = (LAG, SKEWED)

ToUnix = Callable[[Any], float]


class EventTime(CollectorConfig, frozen=True):
    """Where a payload says when it happened, and how."""

    path: Path
    unit: Literal["s", "ms", "us", "ns", "iso8601"] = "s"
    #: As strptime has it, instead of a unit.
    format: str = ""
    #: Of times that do not say their own.
    tz: str = "UTC"

    def __post_init__(self) -> None:
        """Check what the types cannot; ValueError with what is wrong."""
        if self.format and self.unit != "s":
            msg = "format: say either this or unit"
            raise ValueError(msg)
        if self.format:
            try:
                datetime.strptime(datetime.now(UTC).strftime(self.format), self.format)  # noqa: DTZ007
            except ValueError as error:
                msg = f"format: {self.format!r} is none of strptime: {error}"
                raise ValueError(msg) from error
        zone(self.tz)


class EventLag:
    """How late the messages of one rule were."""

    def __init__(
        self, config: EventTime, path: Path, clock: Callable[[], float] = time.time
    ) -> None:
        """Give where to look in decoded payloads."""
        self._find = path.find
        self._to_unix = converter(config)
        self._clock = clock
        self._lags = HistogramAccumulator(BUCKETS)
        self._skewed = 0

    def note(self, data: Any) -> None:
        """Count how late a message is; PayloadError when it does not say its time."""
        lag = self._clock() - self._to_unix(self._find(data))
        if -_CLOCK_SKEW <= lag < _LONGEST_LAG:
            self._lags.observe(max(lag, 0.0))
        else:
            self._skewed += 1

    def emit(self, scrape: Scrape, rule: str) -> None:
        """Emit what was counted."""
        self._lags.emit(scrape, LAG, rule)
        scrape.emit(SKEWED, self._skewed, rule)


def zone(name: str) -> tzinfo:
    """Return the time zone `name`; ValueError when there is none."""
    if name == "UTC":
        return UTC
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # noqa: PLC0415  # few need it

    try:
        return ZoneInfo(name)
    except (OSError, ValueError, ZoneInfoNotFoundError) as error:
        msg = f"tz: no time zone {name!r}, such as UTC or Europe/Prague"
        raise ValueError(msg) from error


def converter(config: EventTime) -> ToUnix:
    """Return what makes Unix time of what a payload says; it raises PayloadError."""
    if config.unit in _UNITS and not config.format:
        scale = _UNITS[config.unit]
        return lambda raw: _number(raw) / scale
    tz = zone(config.tz)

    def convert(raw: Any) -> float:
        try:
            found = (
                datetime.strptime(raw, config.format)  # noqa: DTZ007  # the zone comes below
                if config.format
                else datetime.fromisoformat(raw)
            )
            return (found if found.tzinfo else found.replace(tzinfo=tz)).timestamp()
        except (OverflowError, TypeError, ValueError):
            why = f"no time as {config.format or config.unit} has it"
            raise PayloadError(reason="event_time", why=why, raw=raw) from None

    return convert


def _number(raw: Any) -> float:
    try:
        return number(raw)
    except PayloadError:
        raise PayloadError(reason="event_time", why="no time", raw=raw) from None
