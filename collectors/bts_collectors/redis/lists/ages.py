"""The ages of many lists in one scrape, within limits of the server's time."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple

from bts_collectors.redis.client.connection import Command, Reply
from bts_collectors.redis.client.context import ScrapeContext
from bts_collectors.redis.lists.list_age import ListAge
from bts_collectors.redis.lists.look import End, Look, Request
from bts_collectors.redis.lists.reader import ListReader
from bts_exporter import Scrape, backlog

#: Elements of lists that are read in one scrape in addition to the first look: about 0.4 s of the server's time.
_BUDGET = 400_000


#: The age of the oldest message of an empty list.
NO_AGE = backlog.Age(0, "message_time")


class WaitingList(NamedTuple):
    """A list of messages without a time."""

    key: bytes
    history: ListAge
    #: Its length when the queue was read.
    length: int


#: Yields the commands of its next round trip, and returns the age of each list; None if it is unknown.
AgeReader = Generator[Sequence[Command], list[Reply], list[backlog.Age | None]]


class ListAges:
    """Reads the ages of lists."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Take a monotonic clock in seconds."""
        self._clock = clock
        self._reader = ListReader(clock)
        #: The process of the server, and its number of removals, in this scrape and in the previous one.
        self._now: tuple[str, int] | None = None
        self._removals: tuple[str, int] | None = None
        self._quiet = False
        self._budget = _BUDGET

    def begin(self, context: ScrapeContext) -> None:
        """Begin a scrape, whose INFO says whether an element can have been removed since the previous one."""
        removals = None
        if context.removals is not None and not context.clustered:
            removals = context.run_id, context.removals
        self._quiet = removals is not None and removals == self._removals
        self._now, self._removals = removals, None  # until all lists have been looked at
        self._budget = _BUDGET

    def end(self) -> None:
        """End a scrape in which all lists were looked at."""
        self._removals = self._now

    @property
    def removals(self) -> tuple[str, int] | None:
        """Return how often elements were removed until the previous scrape; None if unknown."""
        return self._removals

    def restore(self, removals: tuple[str, int] | None) -> None:
        """Take the number of removals from before a restart of the exporter."""
        self._removals = removals

    def emit_command_support(self, scrape: Scrape) -> None:
        """Emit which commands the server answers."""
        self._reader.support.emit(scrape)

    def read(self, context: ScrapeContext, lists: Sequence[WaitingList]) -> AgeReader:
        """Look at the lists that are not empty."""
        found = yield from self._look(
            context,
            [
                (request, history)
                for key, history, length in lists
                for request in (history.requests(key) if length else ())
            ],
        )
        ages: list[backlog.Age | None] = []
        for _, history, length in lists:
            looks = found.get(history)
            if length == 0 or (looks and not all(look.length for look in looks.values())):
                history.empty(self._clock())
                ages.append(NO_AGE)
            elif looks and history.is_postponed:
                history.is_postponed = False
                ages.append(None)
            elif looks:
                ages.append(history.take(looks, self._clock(), quiet=self._quiet))
            else:
                history.miss()
                ages.append(None)
        return ages

    def _look(
        self, context: ScrapeContext, wanted: Sequence[tuple[Request, ListAge]]
    ) -> Generator[Sequence[Command], list[Reply], dict[ListAge, dict[End, Look]]]:
        """Look at lists, and again at more elements where none was found again."""
        found: dict[ListAge, dict[End, Look]] = {}
        while wanted:
            looks = yield from self._reader.read(context, [request for request, _ in wanted])
            wider: list[tuple[Request, ListAge]] = []
            for (request, history), look in zip(wanted, looks, strict=True):
                if look is None:
                    continue
                found.setdefault(history, {})[request.end] = look
                window = history.wider(request, look, quiet=self._quiet) if look.length else 0
                if window > self._budget:
                    history.postpone()
                elif window:
                    self._budget -= window
                    wider.append((request._replace(window=window), history))
            wanted = wider
        return found


def oldest(ages: Sequence[backlog.Age | None]) -> backlog.Age | None:
    """Return the age of the oldest message in several lists; a lower bound if that of one is unknown."""
    known = [age for age in ages if age is not None]
    greatest = max(known, default=None)
    if greatest is None or greatest.seconds == 0:
        return greatest if len(known) == len(ages) else None
    if len(known) == len(ages) and all(age.method != "lower_bound" for age in known):
        return greatest
    return greatest._replace(method="lower_bound")
