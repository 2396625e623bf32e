"""The slow log: its length and its latest entry, without the command, which may hold user data."""

from __future__ import annotations

from collections.abc import Iterable

from bts_collectors.redis.client.connection import Reply
from bts_exporter import Metric, Scrape, gauge

LENGTH = gauge("redis_slowlog_length", "Entries in the slow log (SLOWLOG LEN).")
LAST_ID = gauge("redis_slowlog_last_id", "Id of the latest entry of SLOWLOG GET.")
LAST_DURATION = gauge(
    "redis_last_slow_execution_duration_seconds", "Duration of the latest entry of SLOWLOG GET."
)
#: Kind of COMMANDLOG LEN -> its metric (Valkey 8.1).
COMMANDLOGS = {
    kind: gauge(
        f"redis_commandlog_{kind.replace('-', '_')}_length",
        f"Entries of COMMANDLOG LEN {kind} (Valkey).",
    )
    for kind in ("slow", "large-request", "large-reply")
}
METRICS: tuple[Metric, ...] = (LENGTH, LAST_ID, LAST_DURATION, *COMMANDLOGS.values())


def emit_length(scrape: Scrape, reply: Reply) -> None:
    """Emit the reply of SLOWLOG LEN."""
    if isinstance(reply, int):
        scrape.emit(LENGTH, reply)


def emit_latest(scrape: Scrape, reply: Reply) -> None:
    """Emit the reply of SLOWLOG GET 1; an empty log has no entry."""
    match reply:
        case [[int(number), _, int(microseconds), *_], *_]:
            scrape.emit(LAST_ID, number)
            scrape.emit(LAST_DURATION, microseconds / 1e6)


def emit_commandlogs(scrape: Scrape, replies: Iterable[Reply]) -> None:
    """Emit the replies of COMMANDLOG LEN of all kinds."""
    for metric, reply in zip(COMMANDLOGS.values(), replies, strict=True):
        if isinstance(reply, int):
            scrape.emit(metric, reply)
