"""How a collection ended, and the log line for each change of it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from bts_exporter.errors import Reason, one_line

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
    #: The reasons of its other losses.
    more_reasons: tuple[Reason, ...] = ()

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """The reasons of all of its losses, each once."""
        return () if self.reason is None else (self.reason, *self.more_reasons)


#: How most collections end.
SUCCESS = Outcome()


def failure_of(losses: Sequence[tuple[Reason, str]], unlisted: int = 0) -> Outcome:
    """Return the outcome of a collection with these losses, `(reason, message)`; at least one."""
    reason, *others = dict.fromkeys(reason for reason, _ in losses)
    messages = list(dict.fromkeys(message for _, message in losses))
    if unlisted:
        messages.append(f"and {unlisted} more")
    message = one_line("; ".join(messages))
    return Outcome(success=False, reason=reason, message=message, more_reasons=tuple(others))


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


def _state(outcome: Outcome) -> tuple[bool, bool, frozenset[str]]:
    # A collection that hangs is late once and in the way from then on: one state, one line.
    reasons = frozenset("timeout" if it == "busy" else it for it in outcome.reasons)
    return outcome.success, outcome.supported, reasons
