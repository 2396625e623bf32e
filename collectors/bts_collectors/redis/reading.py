"""One collection of streams: the server, what it is known to refuse, and what may still be asked of it."""

from __future__ import annotations

from dataclasses import dataclass

from hiredis import ReplyError

from bts_collectors.redis.failures import is_denied
from bts_collectors.redis.refusals import Refusals
from bts_collectors.redis.visit import Visit

#: What counting entries may cost in one collection, 1 for an entry and 1 more for every 512 bytes
#: of it: some 0.2 s of the server's time.
BUDGET = 100_000
#: How a server says that a stream or group is not there any more, a moment after it told its state.
_GONE = ("NOGROUP", "WRONGTYPE", "ERR no such key")


@dataclass(slots=True)
class Reading:
    """One collection of streams from one server."""

    visit: Visit
    refusals: Refusals
    #: Left of what counting entries may cost.
    budget: int = BUDGET

    def refused(self, command: str, reply: ReplyError) -> None:
        """Note that the server refused `command` (as ACLs spell it): a loss, or known from now on."""
        if is_denied(reply):
            self.refusals.refused(command, reply)
        elif not str(reply).startswith(_GONE):
            self.visit.refused(command.replace("|", " ").upper(), reply)
