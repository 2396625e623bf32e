"""When the elements of a list came in, found by comparing successive looks from the consumers' end.

Elements are counted in the order in which they leave the list: the position of an element is the number of
elements before it. A look that finds an element again knows how many have left since. The length then gives
how many came in, which is a timeline as of a broker that counts published messages.

Only digests are kept: of the first elements, and of others at growing distances (marks), so that the work to
find one of them again is a small part of the number of elements that left.
"""

from __future__ import annotations

from itertools import islice, pairwise
from typing import NamedTuple

import msgspec

from bts_collectors.redis.lists.identity import Identity, IdentityState
from bts_collectors.redis.lists.look import WINDOW, Look, split
from bts_exporter import backlog

#: Distance between two marks: at most this part of the distance from the end.
_PART = 8
#: Marks of a list, and marks that one look adds.
_MOST_MARKS = 128
_MOST_ADDED = 24
#: The windows that are tried one after another to find an element again.
_WINDOWS = (WINDOW, 96, 320, 2048)
#: Elements after one that must be the same, too, before it counts as found again.
_COMPARED = 3
#: How many times faster than before elements leave at most, if nothing says so.
_FASTER = 2
#: With a longer gap between two looks, the time of arrival between them is unknown, as for RabbitMQ.
_MAX_GAP_SECONDS = 90.0
#: Seconds: the least age of an element that waits.
_LEAST = 0.001


class Change(NamedTuple):
    """What happened at the consumers' end since the previous look."""

    #: Elements that left.
    removed: int
    #: Elements that were put in front of those that waited.
    inserted: int


class ClockState(msgspec.Struct, frozen=True):
    """The positions and times of a list as they are stored."""

    length: int
    first: int
    ahead: int
    ahead_since: float
    assumed: bool
    window: bytes
    #: Positions and digests.
    marks: list[int]
    digests: bytes
    gap: int
    redelivered: int
    timeline: backlog.TimelineState
    identity: IdentityState


class ListClock:
    """The positions and times of the elements of one list, seen from one of its ends."""

    __slots__ = (
        "_ahead",
        "_ahead_since",
        "_assumed",
        "_first",
        "_gap",
        "_length",
        "_marks",
        "_ranks",
        "_redelivered",
        "_removed",
        "_saved",
        "_timeline",
        "_window",
        "identity",
    )

    def __init__(self, *, unique: bool) -> None:
        """Begin without a look; `unique` says that no payload is used twice."""
        self.identity = Identity(unique=unique)
        self._length: int | None = None
        #: Before a restart of the exporter: when the list was seen last. Later looks follow after a gap.
        self._saved: float | None = None
        #: Elements that left before the previous look; None if that is unknown.
        self._removed: int | None = None
        self._begin()

    def _begin(self) -> None:
        """Forget the elements, about which nothing is known."""
        self._timeline = backlog.Timeline()
        #: Position of the first element whose order is known.
        self._first = 0
        #: Elements in front of it, which were put there.
        self._ahead = 0
        self._ahead_since = 0.0
        self._window: list[bytes] = []
        #: Digests of other elements by position.
        self._marks: dict[int, bytes] = {}
        #: The longest distance between neighbours of which a digest is known.
        self._gap = 0
        self._ranks: tuple[int, ...] = ()
        #: The last position of a message that is older than the one before it.
        self._redelivered = -1
        #: Whether elements were taken to be the same because of their payload.
        self._assumed = False

    def save(self) -> ClockState | None:
        """Return what `restore` needs; None without a look."""
        if self._length is None:
            return None
        return ClockState(
            self._length,
            self._first,
            self._ahead,
            self._ahead_since,
            self._assumed,
            b"".join(self._window),
            list(self._marks),
            b"".join(self._marks.values()),
            self._gap,
            self._redelivered,
            self._timeline.save(),
            self.identity.save(),
        )

    def restore(self, state: ClockState, shift: float) -> None:
        """Take what was saved before a restart; `shift` is added to its times."""
        self._length, self._first, self._ahead = state.length, state.first, state.ahead
        self._ahead_since = state.ahead_since + shift
        self._assumed = state.assumed
        self._window = split(state.window)
        self._marks = dict(zip(state.marks, split(state.digests), strict=True))
        self._gap = state.gap
        self._redelivered = state.redelivered
        self._timeline = backlog.Timeline.restored(state.timeline, shift)
        self._saved = self._timeline.last_time
        self.identity.restore(state.identity)

    @property
    def length(self) -> int | None:
        """Return the number of elements at the previous look; None without one."""
        return self._length

    @property
    def ranks(self) -> tuple[int, ...]:
        """Return the elements whose digests the next look should include."""
        return self._ranks

    @property
    def is_trusted(self) -> bool:
        """Return whether payloads, if elements were identified by them, are sure not to repeat."""
        return not self._assumed or self.identity.is_trusted

    def empty(self, now: float) -> None:
        """Note that the list is empty at `now` (monotonic seconds)."""
        self.identity.remove(self._window)
        self._first += (self._length or 0) - self._ahead
        self._length = self._ahead = 0
        self._window, self._marks, self._ranks = [], {}, ()
        self._assumed = False
        self._timeline.observe(now, self._first)

    def find(self, look: Look, *, quiet: bool) -> tuple[int, int] | None:
        """Return the number of the first element that was there before, now and then; None without one.

        `quiet` says that no element was removed since the previous look.
        """
        self.identity.compare(look)
        if not self._length:
            return None
        window = look.window
        if quiet and window[: len(self._window)] == self._window:
            return 0, 0  # whether elements can be identified or not
        return self._find(window) if self.identity.is_plausible else None

    def wider(self, look: Look, *, quiet: bool, sure: bool) -> int:
        """Return how many first elements to read to find one again; 0 if `look` is enough.

        `sure` says that elements in front of the others can only be a few.
        """
        if look.is_whole or self.find(look, quiet=quiet):
            return 0
        if sure and self._may_have_left() and self.is_gone(look):
            return 0
        if not self._length or not self.identity.is_plausible or not self._known():
            return 0
        wider = (size for size in _WINDOWS if len(look.window) < size)
        return next(wider, 0) if len(look.window) >= WINDOW else 0

    def _may_have_left(self) -> bool:
        """Return whether all elements can have left since the previous look, at the rate of before.

        Otherwise they are searched behind many new ones: urgent messages, or those of a consumer that stopped.
        """
        return self._removed is None or (self._length or 0) <= _FASTER * self._removed + WINDOW

    def is_gone(self, look: Look) -> bool:
        """Return whether all elements of the previous look have left."""
        if not self._length:
            return self._length == 0
        position = self._first + self._length - self._ahead - 1
        last = self._window[-1] if self._length == len(self._window) else self._marks.get(position)
        known = self._known()
        if last not in known or not known.keys().isdisjoint(look.window):
            return False
        return look.is_whole or (
            self.identity.is_plausible
            and len(look.window) > self._gap
            and last not in look.marks.values()
        )

    def take(
        self, look: Look, now: float, found: tuple[int, int] | None, *, gone: bool, quiet: bool
    ) -> Change | None:
        """Take a look at `now`; return what changed at this end, None if that is unknown.

        `found` is the result of `find`, and `gone` says that all elements of the previous look have left.
        """
        before = self._ahead
        change = None
        if found is not None and found[1] >= before:
            before = 0  # what was in front of the others has left
        if found is not None:
            self._assumed = self._assumed or not quiet
            change = self._shift(look, *found)
        elif gone:
            self._replace(look)
        else:
            self.identity.add(set(look.window).difference(self._window))
            self._begin()
        self._length = look.length
        self._removed = change.removed if change else None
        self._window = look.window[:WINDOW]
        if self._ahead and not before:
            self._ahead_since = now
        self._observe(now)
        if look.redelivered >= 0:
            position = self._first - self._ahead + look.redelivered
            self._redelivered = max(self._redelivered, position)
        self._choose_marks(look, change.removed if change else 0)
        return change

    def age(self, now: float) -> backlog.Age | None:
        """Return the age of the oldest element at `now`; None if nothing is known about it."""
        if not self.is_trusted:
            return None
        if self._ahead or self._is_in_gap() or self._first <= self._redelivered:
            bound = self.bound(now)
            return backlog.Age(bound, "lower_bound") if bound else None
        age = self._timeline.age(self._first, now)
        return age and backlog.Age(max(age.seconds, _LEAST), age.method)

    def bound(self, now: float) -> float:
        """Return the seconds that the oldest element has waited at least."""
        if not self.is_trusted:
            return 0.0
        return max(self._seen(now), now - self._ahead_since if self._ahead else 0.0)

    def _is_in_gap(self) -> bool:
        """Return whether the first element came in while the exporter did not run, or stood still."""
        arrival = self._timeline.arrival(self._first)
        if arrival is None:
            return False
        is_before = self._saved is not None and arrival.earliest <= self._saved < arrival.latest
        return is_before or arrival.gap > _MAX_GAP_SECONDS

    def _seen(self, now: float) -> float:
        """Return how long ago the first element whose order is known was seen first."""
        arrival = self._timeline.arrival(self._first)
        if arrival is not None:
            return max(now - arrival.latest, 0.0)
        age = self._timeline.age(self._first, now)
        return age.seconds if age and age.method == "lower_bound" else 0.0

    def _numbers(self) -> dict[int, bytes]:
        """Return the elements of the previous look by the numbers that they had."""
        offset = self._first - self._ahead
        numbers = {position - offset: digest for position, digest in self._marks.items()}
        numbers.update(enumerate(self._window))
        return numbers

    def _known(self) -> dict[bytes, int]:
        """Return the numbers that the elements of the previous look had, if they can be identified."""
        known = {digest: number for number, digest in self._numbers().items()}
        for digest in self.identity.repeated:
            known.pop(digest, None)
        return known

    def _find(self, window: list[bytes]) -> tuple[int, int] | None:
        known = self._known()
        for number, digest in enumerate(window):
            then = known.get(digest)
            if then is not None and self._agrees(window, number, then):
                while number and then and window[number - 1] == self._at(then - 1):
                    number, then = number - 1, then - 1  # noqa: PLW2901  # payloads that repeat
                return number, then
        return None

    def _agrees(self, window: list[bytes], number: int, then: int) -> bool:
        """Return whether the elements after this one are the same as before.

        They are not if it left and was put back, or if it is another one with the same payload.
        """
        numbers = self._numbers()
        end = then + len(window) - number
        candidates = (other for other in sorted(numbers) if then < other < end)
        following = list(islice(candidates, _COMPARED))
        if number and then < len(self._window) and not (following or self.identity.is_unique):
            return False  # something is in front of it, which is rare
        return all(numbers[other] == window[number + other - then] for other in following)

    def _at(self, number: int) -> bytes | None:
        return self._window[number] if number < len(self._window) else None

    def _shift(self, look: Look, number: int, then: int) -> Change:
        """Take a look in which element `number` had the number `then` before."""
        known = len(self._window) - self._ahead  # from the first one on
        after = then - self._ahead
        in_window = after < known or number == 0
        kept = 0
        self.identity.remove(self._window[:then])
        self.identity.add(look.window[number + max(len(self._window) - then, 0) :])
        if in_window:
            inserted = number
            for digest in look.window[:number]:  # removed ones may have been put back
                self.identity.exclude(digest)
            self._ahead = number + max(-after, 0)
            self._first += max(after, 0)
        else:  # the elements before a mark are not known
            between = after - max(known, 0)
            inserted = max(number - between, 0)
            kept = min(self._ahead, inserted)  # of those that were put in front before
            # If some were put in front of a mark that was behind them, all may have been: the others have left.
            self._ahead = number if inserted and after >= 0 else inserted
            self._first += after - (number - self._ahead)
        if self._ahead >= look.length:
            self._begin()  # those whose order is known were removed from the other end
        return Change(max(then - (number - inserted) - kept, 0), inserted)

    def _replace(self, look: Look) -> None:
        """Take a look at a list whose elements all came in since the previous one.

        It is not known how many came in and left in between. As many as there are now are assumed, so that the
        first element is in the middle of this time.
        """
        self.identity.remove(self._window)
        self.identity.add(look.window)
        self._first += (self._length or 0) - self._ahead + look.length
        self._ahead = 0
        self._marks = {}
        self._assumed = False

    def _observe(self, now: float) -> None:
        end = self._first + (self._length or 0) - self._ahead
        self._timeline.lower(end)  # elements that were removed from the other end
        self._timeline.observe(now, end)

    def _choose_marks(self, look: Look, removed: int) -> None:
        """Keep the marks that are needed, and choose further elements for the next look.

        If as many elements leave as since the previous look, those at this distance are needed first.
        """
        offset = self._first - self._ahead
        known = {position - offset: digest for position, digest in self._marks.items()}
        known.update(look.marks)
        known.update(enumerate(look.window[WINDOW:], WINDOW))
        start, end = len(self._window) - 1, look.length - 1
        ranks = sorted(rank for rank in known if start < rank <= end)
        kept = _spread(ranks, start)
        kept += [end] if end in known and end not in kept else []
        missing = _missing([start, *kept])
        self._ranks = tuple(sorted(missing, key=lambda rank: abs(rank - removed))[:_MOST_ADDED])
        self._marks = {offset + rank: known[rank] for rank in kept}
        self._gap = max((b - a for a, b in pairwise((start, *kept))), default=0)


def _step(rank: int) -> int:
    """Return the distance from an element to the next mark."""
    return max(WINDOW, rank // _PART)


def _spread(ranks: list[int], start: int) -> list[int]:
    """Return those of `ranks` that are not too close together."""
    kept: list[int] = []
    at = start
    for rank in ranks:
        if rank - at > _step(at) * 3 // 4 and len(kept) < _MOST_MARKS:
            kept.append(rank)
            at = rank
    return kept


def _missing(ranks: list[int]) -> list[int]:
    """Return the numbers between `ranks` at which there should be marks."""
    missing: list[int] = []
    for at, following in pairwise(ranks):
        rank = at + _step(at)
        while rank < following and len(missing) < _MOST_MARKS:
            missing.append(rank)
            rank += _step(rank)
    return missing
