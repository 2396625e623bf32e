"""Message lag: the time of arrival minus the event time in the payload."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from typing import Any, Literal

from bts_collectors.mqtt.rules.payloads import Path, PayloadError, number
from bts_exporter import (
    CollectorConfig,
    HistogramAccumulator,
    Metric,
    Scrape,
    backlog,
    counter,
    histogram,
)

#: Seconds.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
#: Seconds; a larger lag means a clock that was never set, and would distort the sum.
_LONGEST_LAG = 10 * 365 * 86400.0
#: Seconds; tolerated difference of clocks.
_CLOCK_SKEW = 5.0
#: Seconds for which the largest lag is kept at least, and half of what it is kept at most.
RECENT_SECONDS = 30.0
_UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}

LAG = histogram(
    "mqtt_message_lag_seconds",
    "Time from the event (event_time in the payload) to the arrival of the message; without retained"
    " messages.",
    "rule",
)
SKEWED = counter(
    "mqtt_message_clock_skew_total",
    "Messages whose event_time is more than 5 s in the future or more than ten years ago.",
    "rule",
)
METRICS: tuple[Metric, ...] = (LAG, SKEWED, backlog.LAG_SECONDS, backlog.LAG_METHOD)

ToUnix = Callable[[Any], float]


class EventTime(CollectorConfig, frozen=True):
    """Settings of the event time: path and format."""

    #: Path of the time in the payload.
    path: Path
    #: Unit of a number, or ISO 8601.
    unit: Literal["s", "ms", "us", "ns", "iso8601"] = "s"
    #: Format of strptime, instead of a unit.
    format: str = ""
    #: Time zone of times without an offset.
    tz: str = "UTC"

    def __post_init__(self) -> None:
        """Check values and their combinations; ValueError explains the problem."""
        if self.format and self.unit != "s":
            msg = "format: set either format or unit"
            raise ValueError(msg)
        if self.format:
            try:
                datetime.strptime(datetime.now(UTC).strftime(self.format), self.format)  # noqa: DTZ007
            except ValueError as error:
                msg = f"format: {self.format!r} is not a valid format of strptime: {error}"
                raise ValueError(msg) from error
        zone(self.tz)


class EventLag:
    """The lag of a rule's messages."""

    def __init__(
        self,
        config: EventTime,
        path: Path,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the path in decoded payloads; `clock` is Unix time, `ticks` is monotonic."""
        self._find = path.find
        self._to_unix = converter(config)
        self._clock = clock
        self._lags = HistogramAccumulator(BUCKETS)
        self._skewed = 0
        self._ticks = ticks
        #: The largest lags of the current period of RECENT_SECONDS and of the one before; None without messages.
        self._largest: float | None = None
        self._largest_before: float | None = None
        self._period = 0.0

    def note(self, data: Any) -> None:
        """Count the lag of a message; PayloadError if it has no event time."""
        lag = self._clock() - self._to_unix(self._find(data))
        if -_CLOCK_SKEW <= lag < _LONGEST_LAG:
            lag = max(lag, 0.0)
            self._lags.observe(lag)
            self._note_recent(lag)
        else:
            self._skewed += 1

    def emit(self, scrape: Scrape, rule: str) -> None:
        """Emit the lag."""
        self._lags.emit(scrape, LAG, rule)
        scrape.emit(SKEWED, self._skewed, rule)

    def emit_recent(self, scrape: Scrape, rule: str) -> None:
        """Emit the largest lag of the last half minute to minute in the metrics of all brokers, if there is one."""
        periods = self._ticks() // RECENT_SECONDS - self._period
        kept = (self._largest, self._largest_before) if not periods else (self._largest,)
        lags = [lag for lag in kept if lag is not None]
        if lags and periods <= 1:
            scrape.emit(backlog.LAG_SECONDS, max(lags), "mqtt", rule, "")
            scrape.emit(backlog.LAG_METHOD, 1, "mqtt", rule, "", "event_time")

    def _note_recent(self, lag: float) -> None:
        """Keep the largest lag of this period, and that of the previous one."""
        period = self._ticks() // RECENT_SECONDS
        if period == self._period and self._largest is not None:
            self._largest = max(self._largest, lag)
            return
        self._largest_before = self._largest if period == self._period + 1 else None
        self._largest, self._period = lag, period


def zone(name: str) -> tzinfo:
    """Return the time zone `name`; ValueError if it is unknown."""
    if name == "UTC":
        return UTC
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # noqa: PLC0415  # few need it

    try:
        return ZoneInfo(name)
    except (OSError, ValueError, ZoneInfoNotFoundError) as error:
        msg = f"tz: {name!r} is not a known time zone (expected e.g. UTC or Europe/Prague)"
        raise ValueError(msg) from error


def converter(config: EventTime) -> ToUnix:
    """Return a function that converts a value to Unix time, or raises PayloadError."""
    if config.unit in _UNITS and not config.format:
        scale = _UNITS[config.unit]
        return lambda raw: _number(raw) / scale
    tz = zone(config.tz)

    def convert(raw: Any) -> float:
        try:
            parsed = (
                datetime.strptime(raw, config.format)  # noqa: DTZ007  # the zone is added below
                if config.format
                else datetime.fromisoformat(raw)
            )
            return (parsed if parsed.tzinfo else parsed.replace(tzinfo=tz)).timestamp()
        except (OverflowError, TypeError, ValueError):
            why = f"not a time in format {config.format or config.unit}"
            raise PayloadError(reason="event_time", why=why, raw=raw) from None

    return convert


def _number(raw: Any) -> float:
    try:
        return number(raw)
    except PayloadError:
        raise PayloadError(reason="event_time", why="not a time", raw=raw) from None
