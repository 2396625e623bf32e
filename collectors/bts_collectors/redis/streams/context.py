"""The state that all readers of streams share during one scrape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

from hiredis import ReplyError

from bts_collectors.redis.client.command_support import CommandSupport
from bts_collectors.redis.client.context import ScrapeContext, ServerClock
from bts_collectors.redis.client.errors import is_denied
from bts_collectors.redis.streams.history import Settings

#: Cost of the entries that may be counted in one scrape: 1 for an entry, and 1 more for every 512
#: bytes of it. It takes about 0.2 s of the server's time.
BUDGET = 100_000
#: Errors for a stream or group that was removed after its state was read.
_GONE = ("NOGROUP", "WRONGTYPE", "ERR no such key")


@dataclass(slots=True)
class StreamContext:
    """One scrape of the streams of one server."""

    scrape_context: ScrapeContext
    command_support: CommandSupport
    #: The part of BUDGET that is left.
    budget: int = BUDGET
    ticks: Callable[[], float] = monotonic
    clock: ServerClock = field(init=False)

    def __post_init__(self) -> None:
        self.clock = ServerClock(self.scrape_context, self.ticks)

    def settings(self) -> Settings:
        """Return how often clients have set counters of streams."""
        if self.scrape_context.clustered:
            # INFO covers one node only. In practice only programs that copy streams use XSETID.
            return Settings(added=-1)
        return Settings(*self.scrape_context.counters_set or ())

    def refused(self, command: str, reply: ReplyError) -> None:
        """Note that the server refused `command`, as ACLs spell it.

        A command that the server lacks or denies is not sent again for a while. Any other refusal is
        an error, unless the stream or group is gone.
        """
        if is_denied(reply):
            self.command_support.refused(command, reply)
        elif not str(reply).startswith(_GONE):
            self.scrape_context.refused(command.replace("|", " ").upper(), reply)
