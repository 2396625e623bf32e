"""Numbers as people read them. `static/units.js` does the same in the browser."""

from __future__ import annotations

import time

#: What a value that is not known looks like.
UNKNOWN = "–"  # noqa: RUF001  # a dash, not a minus
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
#: A longer duration is a mistake of its source, such as milliseconds for seconds; its digits would fill a page.
_MOST_DAYS = 1_000_000
_TEN, _THOUSAND = 10, 1000
#: Larger numbers are shown with three digits and a prefix.
_LARGEST_COUNT = 100_000
_SMALLEST_RATE, _SHORTEST = 0.01, 0.1
#: What is rounded to three digits below a thousand.
_BELOW_THOUSAND = 999.5


def count(value: float | None) -> str:
    """Return a number of messages: 950, 12,345, 1.23 M."""
    if value is None:
        return UNKNOWN
    if abs(value) < _LARGEST_COUNT:
        return f"{value:,.0f}"
    return _scaled(value)


def rate(value: float | None) -> str:
    """Return events per second: 0.25/s, 12.3/s, 1,234/s."""
    if value is None:
        return UNKNOWN
    if value == 0:
        return "0/s"
    if value < _SMALLEST_RATE:
        return f"<{_SMALLEST_RATE}/s"
    if value < _THOUSAND:
        return f"{value:.2f}/s" if value < _TEN else f"{value:.1f}/s"
    return f"{count(value)}/s"


def duration(seconds: float | None) -> str:
    """Return a duration with its two largest units: 4.2 s, 3 min 20 s, 2 h 5 min, 3 d 4 h."""
    if seconds is None:
        return UNKNOWN
    if 0 < seconds < _SHORTEST:
        return f"<{_SHORTEST} s"  # 0 means that nothing waits
    if seconds < _TEN:
        return f"{seconds:.1f} s" if seconds else "0 s"
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
    if whole // _DAY > _MOST_DAYS:
        return f">{_MOST_DAYS:,} d"
    return f"{whole // _DAY:,} d {whole % _DAY // _HOUR} h"


def share(value: float | None) -> str:
    """Return a share in percent."""
    return UNKNOWN if value is None else f"{value * 100:.1f} %"


def bytes_per_second(value: float | None) -> str:
    """Return bytes per second: 0 B/s, 1.23 MB/s."""
    return UNKNOWN if value is None else f"{_scaled(value)}B/s"


def moment(unix: float, now: float) -> str:
    """Return a time in UTC; with its date, unless it was within the last 20 hours."""
    if unix < 0:  # far enough back there is no calendar for it
        return "before 1970"
    form = "%H:%M:%S UTC" if now - unix < 20 * _HOUR else "%Y-%m-%d %H:%M UTC"
    return time.strftime(form, time.gmtime(unix))


def _scaled(value: float) -> str:
    """Return three digits and the prefix of the unit."""
    for prefix in (" ", " k", " M", " G"):
        if abs(value) < _BELOW_THOUSAND:
            return f"{value:.3g}{prefix}"
        value /= _THOUSAND
    return f"{value:,.3g} T"
