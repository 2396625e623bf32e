"""One collection of streams: the server, what it is known to refuse, and what may still be asked of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

from hiredis import ReplyError

from bts_collectors.redis.client.command_support import CommandSupport
from bts_collectors.redis.client.context import ScrapeContext, ServerClock
from bts_collectors.redis.client.errors import is_denied
from bts_collectors.redis.streams.history import Settings

#: What counting entries may cost in one collection, 1 for an entry and 1 more for every 512 bytes
#: of it: some 0.2 s of the server's time.
BUDGET = 100_000
#: How a server says that a stream or group is not there any more, a moment after it told its state.
_GONE = ("NOGROUP", "WRONGTYPE", "ERR no such key")


@dataclass(slots=True)
class StreamContext:
    """One collection of streams from one server."""

    scrape_context: ScrapeContext
    command_support: CommandSupport
    #: Left of what counting entries may cost.
    budget: int = BUDGET
    ticks: Callable[[], float] = monotonic
    clock: ServerClock = field(init=False)

    def __post_init__(self) -> None:
        self.clock = ServerClock(self.scrape_context, self.ticks)

    def settings(self) -> Settings:
        """Return how often clients have set counters of streams."""
        if self.scrape_context.clustered:
            # What clients do at other nodes is not known: XSETID is for servers that copy streams.
            return Settings(added=-1)
        return Settings(*self.scrape_context.counters_set or (None, None))

    def refused(self, command: str, reply: ReplyError) -> None:
        """Note that the server refused `command` (as ACLs spell it): a loss, or known from now on."""
        if is_denied(reply):
            self.command_support.refused(command, reply)
        elif not str(reply).startswith(_GONE):
            self.scrape_context.refused(command.replace("|", " ").upper(), reply)
