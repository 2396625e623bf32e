"""How a collection ended, and the log line for each change of it."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from bts_exporter.errors import Reason

log = logging.getLogger("bts_exporter.collection.runner")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a collection ended."""

    success: bool = True
    supported: bool = True
    reason: Reason | None = None
    message: str = ""
    #: Whether there was nothing at all to read, which is not looked for again at each scrape.
    absent: bool = False


#: How most collections end.
SUCCESS = Outcome()


def log_change(identity: str, before: Outcome | None, now: Outcome) -> None:
    """Log that the state of a collector changed; nothing while it stays the same."""
    if before is not None and _state(before) == _state(now):
        return
    details = {"collector": identity}
    if not now.success:
        log.error("collection fails: %s", now.message, extra=details | {"reason": now.reason})
    elif not now.supported:
        level = logging.INFO if now.message.startswith("not there") else logging.DEBUG
        log.log(level, "nothing to read: %s", now.message, extra=details)
    elif before is not None:
        log.info("collection works again", extra=details)


def _state(outcome: Outcome) -> tuple[bool, bool, str | None]:
    # A collection that hangs is late once and in the way from then on: one state, one line.
    reason = "timeout" if outcome.reason == "busy" else outcome.reason
    return outcome.success, outcome.supported, reason
