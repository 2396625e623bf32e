"""The age of the oldest element of a list, of which it may not be known at which end that is."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from bts_collectors.redis.lists.clock import Change, ClockState, ListClock
from bts_collectors.redis.lists.look import End, Look, Request
from bts_exporter import backlog

#: Evidence for an end: elements left there, or came in at the other one. The second happens at both ends if
#: elements are returned to the queue.
_LEFT, _CAME = 2, 1
_ENOUGH = 2
#: Looks with elements that only came in at the consumers' end, after which the other end may be theirs.
_DOUBTFUL = 3


class ListState(msgspec.Struct, frozen=True):
    """What is known about a list, as it is stored."""

    evidence: int
    clocks: dict[End, ClockState]


class ListAge:
    """Looks at one list from its consumers' end, and from both ends as long as that is not known."""

    __slots__ = (
        "_clocks",
        "_doubts",
        "_end",
        "_evidence",
        "_missed",
        "_searched",
        "_unique",
        "is_postponed",
        "removed",
    )

    def __init__(self, end: End | None = None, *, unique: bool = False, searched: int = 0) -> None:
        """Take the end from which consumers take elements, and whether no payload is used twice.

        `searched` is how many of the newest elements to search for redelivered messages of Celery.
        """
        self._end = end
        self._searched = searched
        self._unique = unique
        #: How much speaks for each end.
        self._evidence = 0
        self._doubts = 0
        #: Whether this scrape has no time left for the list, and whether there was such a scrape since the last look.
        self.is_postponed = self._missed = False
        ends: tuple[End, ...] = ("left", "right") if end is None else (end,)
        self._clocks: dict[End, ListClock] = {each: ListClock(unique=unique) for each in ends}
        #: Elements that waited at the previous look and have left since; None if their number is unknown.
        self.removed: int | None = None

    @property
    def length(self) -> int:
        """Return the number of elements at the previous look."""
        return max(clock.length or 0 for clock in self._clocks.values())

    def save(self) -> ListState | None:
        """Return what `restore` needs; None without a look."""
        found = {end: clock.save() for end, clock in self._clocks.items()}
        clocks = {end: state for end, state in found.items() if state is not None}
        return ListState(self._evidence, clocks) if len(clocks) == len(found) else None

    def restore(self, state: ListState, shift: float) -> None:
        """Take what was saved before a restart, unless the settings name the other end now."""
        if self._end is not None and self._end not in state.clocks:
            return
        self._evidence = state.evidence
        ends = list(state.clocks) if self._end is None else [self._end]
        self._clocks = {end: ListClock(unique=self._unique) for end in ends}
        for end, clock in self._clocks.items():
            clock.restore(state.clocks[end], shift)

    def requests(self, key: bytes) -> list[Request]:
        """Return what to look at."""
        return [
            Request(key, end, ranks=clock.ranks, searched=self._searched)
            for end, clock in self._clocks.items()
        ]

    def wider(self, request: Request, look: Look, *, quiet: bool) -> int:
        """Return how many first elements to read after `look`; 0 if it is enough."""
        quiet = quiet and not self._missed
        sure = self._end is not None or len(self._clocks) > 1
        return self._clocks[request.end].wider(look, quiet=quiet, sure=sure)

    def postpone(self) -> None:
        """Leave the list to the next scrape: there are too many elements to read."""
        self.is_postponed = True
        self.miss()

    def empty(self, now: float) -> None:
        """Note that the list is empty at `now` (monotonic seconds)."""
        self.removed = None if self._missed else self.length
        self._missed = False
        for clock in self._clocks.values():
            clock.empty(now)

    def miss(self) -> None:
        """Note that the list could not be read in this scrape."""
        self._missed = True
        self.removed = None

    def take(self, looks: Mapping[End, Look], now: float, *, quiet: bool) -> backlog.Age | None:
        """Take looks at the list at `now`, and return the age of its oldest element; None if unknown.

        `quiet` says that no element was removed from any list since the previous looks.
        """
        missed, self._missed = self._missed, False
        quiet = quiet and not missed
        found = {end: self._clocks[end].find(look, quiet=quiet) for end, look in looks.items()}
        is_new = not any(found.values())
        alone = self._end is None and len(self._clocks) == 1
        removed: list[int | None] = []
        for end, look in looks.items():
            clock = self._clocks[end]
            gone = is_new and clock.is_gone(look)
            if gone and alone and clock.length and not look.is_whole:
                gone = (
                    False  # or the other end is the consumers', and more came in here than was read
                )
                self._doubts = _DOUBTFUL
            # Of an empty list it is not known what came and left meanwhile.
            waited = (clock.length or None) if gone else None
            change = clock.take(look, now, found[end], gone=gone, quiet=quiet)
            removed.append((change.removed if change else waited) if clock.is_trusted else None)
            self._weigh(end, change, is_new=is_new)
        known = [count for count in removed if count is not None]
        is_known = len(known) == len(self._clocks) and not missed
        self.removed = max(known) if is_known else None
        self._decide()
        if len(self._clocks) == 1:
            (clock,) = self._clocks.values()
            return clock.age(now)
        return self._age_of_either_end(now)

    def _weigh(self, end: End, change: Change | None, *, is_new: bool) -> None:
        if self._end is not None or is_new:
            return
        came = change is None or change.inserted  # more than was read, if nothing was found again
        left = change is not None and change.removed
        if len(self._clocks) > 1:
            sign = 1 if end == "right" else -1
            self._evidence += sign * (_LEFT * bool(left) - _CAME * bool(came))
        elif left:
            self._doubts = 0
        elif came:
            self._doubts += 1

    def _decide(self) -> None:
        """Drop the end that is not the consumers', or take it back."""
        if len(self._clocks) > 1 and abs(self._evidence) >= _ENOUGH:
            del self._clocks["left" if self._evidence > 0 else "right"]
            self._doubts = 0
        elif len(self._clocks) == 1 and self._doubts >= _DOUBTFUL:
            other: End = "left" if "right" in self._clocks else "right"
            self._clocks[other] = ListClock(unique=self._unique)
            self._evidence = self._doubts = 0

    def _age_of_either_end(self, now: float) -> backlog.Age | None:
        """Return the age if both ends agree, else how old an element at either end is at least."""
        ages = [clock.age(now) for clock in self._clocks.values()]
        known = [age for age in ages if age is not None]
        if len(known) == len(ages) and all(age.method == "interpolation" for age in known):
            return min(known)
        bound = max(clock.bound(now) for clock in self._clocks.values())
        return backlog.Age(bound, "lower_bound") if bound > 0 else None
