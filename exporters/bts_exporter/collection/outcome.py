"""How a collection ended, and the log lines about changes of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bts_exporter.errors import Reason, one_line

log = logging.getLogger("bts_exporter.collection.runner")

#: How many lines about one subject may be logged at once, and how long it takes until one more may be.
_BURST = 10
_SECONDS_PER_LINE = 60.0


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


class LineLimit:
    """Limits the log lines about one subject: `_BURST` at once, then one in `_SECONDS_PER_LINE`."""

    def __init__(self) -> None:
        self._left = float(_BURST)
        self._updated = time.monotonic()

    def allows(self) -> bool:
        """Return whether another line may be logged now, and count it if so."""
        now = time.monotonic()
        self._left = min(self._left + (now - self._updated) / _SECONDS_PER_LINE, _BURST)
        self._updated = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class ChangeLog:
    """Logs changes of a collector's state; how many lines that can be is limited.

    While a collection fails, each further reason is logged once. A state that changes more often than
    lines may be logged is logged later, if it still differs from the state logged last.
    """

    def __init__(self, identity: str) -> None:
        self._identity = identity
        self._before: Outcome | None = None
        self._logged: tuple[bool, bool] | None = None
        self._reasons: set[str] = set()
        self._limit = LineLimit()
        self._skipped = 0

    def note(self, now: Outcome) -> None:
        """Log how a collection ended, if that is news; called after each collection."""
        if now.reason == "unusable":
            return  # logged when it was built
        before, self._before = self._before, now
        if now is before and not self._skipped:
            return
        state, reasons = (now.success, now.supported), _reasons(now)
        if state == self._logged and reasons <= self._reasons:
            return
        if self._logged is None and state == (True, True):
            self._logged = state
            return
        if not self._limit.allows():
            self._skipped += before is None or (before.success, before.supported) != state
            return
        self._reasons = self._reasons | reasons if not now.success else set()
        self._logged = state
        _log(self._identity, now, self._skipped)
        self._skipped = 0


def _log(identity: str, now: Outcome, skipped: int) -> None:
    details: dict[str, object] = {"collector": identity}
    if skipped:
        details["changes_not_logged"] = skipped
    if not now.success:
        log.error("collection fails: %s", now.message, extra=details | {"reason": now.reason})
    elif not now.supported:
        level = logging.INFO if now.message.startswith("not there") else logging.DEBUG
        log.log(level, "nothing to read: %s", now.message, extra=details)
    else:
        log.info("collection works again", extra=details)


def _reasons(outcome: Outcome) -> set[str]:
    # A collection that hangs is late once and in the way from then on: one state, one line.
    return {"timeout" if it == "busy" else it for it in outcome.reasons}
