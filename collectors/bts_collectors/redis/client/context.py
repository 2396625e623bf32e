"""The state that all readers of one scrape share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import TypeVar

from hiredis import ReplyError
from redis.crc import key_slot

from bts_collectors.redis.client.errors import (
    ReplyShapeError,
    command_error,
    is_unsupported,
    unexpected,
)
from bts_exporter import Scrape, TargetError, Url, gauge

UP = gauge("redis_up", "1 if the server answered INFO, else 0.")

_T = TypeVar("_T")


@dataclass(slots=True)
class ScrapeContext:
    """One scrape of one server."""

    url: Url
    scrape: Scrape
    #: Value of the label `db`, such as db0.
    db: str = "db0"
    #: Version of the server, such as (7, 0, 15); empty if it is not known.
    version: tuple[int, ...] = ()
    #: The server's clock in milliseconds since 1970; None if it is not known.
    now: int | None = None
    #: How often clients have set entries-added of streams, any counter of streams and groups, and the
    #: position of a group; None if it is not known.
    counters_set: tuple[int, int, int] | None = None
    #: How often elements of any list may have been removed, or keys replaced; None if it is not known.
    removals: int | None = None
    #: Identifies the process of the server; empty if it is not known.
    run_id: str = ""
    #: Whether the server itself answered INFO, not only other nodes of its cluster.
    up: bool = False
    #: Whether keys are spread over the nodes of a cluster.
    clustered: bool = False
    #: Reason of the first error that cost some metrics; empty if there was no error.
    reason: str = ""
    #: Commands that the server does not have, as ACLs spell them. Their metrics are missing, but the
    #: scrape does not fail.
    unsupported: set[str] = field(default_factory=set)

    def set_up(self, *, up: bool) -> None:
        """Emit `redis_up`, or change it.

        It is emitted as 0 first, so that a page that does not wait for this scrape has it, too.
        """
        self.up = up
        self.scrape.replace(UP, int(up))

    def batches(
        self, items: Sequence[_T], size: int, key: Callable[[_T], bytes]
    ) -> list[Sequence[_T]]:
        """Return `items` in batches of at most `size` whose keys may be part of one command.

        `key` returns the key of an item. In a cluster all keys of a command must share a slot.
        """
        groups: dict[int, list[_T]] = {}
        for item in items:
            groups.setdefault(key_slot(key(item)) if self.clustered else 0, []).append(item)
        return [
            group[start : start + size]
            for group in groups.values()
            for start in range(0, len(group), size)
        ]

    def report(self, error: TargetError) -> None:
        """Note an error that costs some metrics, while the others are collected."""
        self.reason = self.reason or error.reason
        self.scrape.report(error)

    def refused(self, command: str, reply: ReplyError, key: bytes = b"") -> None:
        """Note that the server refused `command` on `key`: an error, unless the server lacks the command."""
        if is_unsupported(reply):
            self.unsupported.add(command.lower().replace(" ", "|"))
        else:
            self.report(command_error(self.url, command, reply, key))

    def unexpected_reply(self, subject: str, error: ReplyShapeError) -> None:
        """Note that a reply about `subject` does not have the shape that Redis documents."""
        self.unexpected(f"sent an unexpected reply about {subject}: {error}")

    def unexpected(self, what: str) -> None:
        """Note an error that the server causes; `what` continues the sentence `Redis at URL ...`."""
        self.report(unexpected(self.url, what))


class ServerClock:
    """The server's clock, which goes on while its contents are read."""

    def __init__(self, context: ScrapeContext, ticks: Callable[[], float] = monotonic) -> None:
        """Take the context, and a monotonic clock in seconds."""
        self.ticks = ticks
        self._context = context
        self._first_ticks: float | None = None

    def now(self) -> int | None:
        """Return the server's clock in milliseconds since 1970; None if it is not known."""
        server_time = self._context.now
        if server_time is None:
            return None
        if self._first_ticks is None:
            self._first_ticks = self.ticks()
        return server_time + int((self.ticks() - self._first_ticks) * 1000)
