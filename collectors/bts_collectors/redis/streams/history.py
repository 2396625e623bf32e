"""The deliveries and losses of a group from one scrape to the next.

The lengths and ids of the stream prove them. The server's counters are only trusted between two scrapes
if no client can have set them and no trim made the server estimate them.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, NamedTuple

from bts_collectors.redis.streams.held import Held
from bts_collectors.redis.streams.state import Group, Stream
from bts_collectors.redis.waiting import Waiting
from bts_exporter import backlog

if TYPE_CHECKING:
    from bts_collectors.redis.streams.groups import GroupState

#: Seconds until the entries of a group are counted again after there were too many.
RECOUNT_SECONDS = 60.0

_START = (0, 0)


class Settings(NamedTuple):
    """How often clients have set counters of streams since the server started; None if unknown."""

    #: entries-added of streams.
    added: int | None = None
    #: entries-added of streams, or entries-read of groups.
    any: int | None = None
    #: Positions of groups.
    moved: int | None = None

    def trusts_added(self, before: Settings) -> bool:
        """Return whether no client has set entries-added since `before`."""
        return self.added is not None and self.added == before.added

    def trusts_read(self, before: Settings) -> bool:
        """Return whether no client has set any of the counters since `before`."""
        return self.any is not None and self.any == before.any


class Flow(NamedTuple):
    """The deliveries of a group; None if unknown."""

    #: Entries delivered so far.
    consumed: int | None = None
    #: Entries lost since the latest delivery.
    lost: int | None = None
    #: Seconds until all entries are delivered, at the recent rate.
    drain: float | None = None
    #: Entries lost since the first scrape, at least.
    lost_in_total: int | None = None


class History:
    """The previous scrape of one group, and the totals since the first one."""

    __slots__ = (
        "_before",
        "_consumed",
        "_lost",
        "_lost_in_total",
        "_moved",
        "_rate",
        "_uncounted",
        "held",
        "waiting",
    )

    def __init__(self) -> None:
        """Begin without a previous scrape."""
        self.waiting = Waiting()
        self.held: Held | None = None
        #: When there were too many entries to count; None if they could be counted.
        self._uncounted: float | None = None
        self._before: GroupState | None = None
        self._consumed: int | None = None
        self._lost: int | None = None
        self._lost_in_total = 0
        #: Entries delivered while the rate is observed.
        self._moved = 0
        self._rate: backlog.Rate | None = None

    def recall(self, state: GroupState) -> None:
        """Take the lag from the previous scrape if stream and group have not changed.

        Only for a group inside the stream, which no trim has overtaken.
        """
        before = self._before
        if before is not None and before.exact and _is_same(before, state):
            state.lag, state.exact, state.head = before.lag, True, before.head
            state.is_same = True

    def conclude(self, state: GroupState) -> None:
        """Compute the lag from the previous one, the added and the delivered entries, if not counted."""
        before = self._before
        if state.exact or before is None or not before.exact:
            return
        if not state.settings.trusts_read(before.settings):
            return
        delivered = _by_counter(before, state)
        added = _added(before.stream, state.stream)
        if delivered is not None and added is not None and before.lag is not None:
            lag = before.lag + added - delivered
            if 0 < lag < state.stream.length:
                state.lag, state.exact = lag, True

    def moves_when_idle(self) -> int | None:
        """Return how often clients had moved groups when no entry was pending; 0 if that was not seen."""
        before = self._before
        return 0 if before is None or before.group.pending else before.settings.moved

    def is_uncounted(self, now: float) -> bool:
        """Return whether there were too many entries to count less than RECOUNT_SECONDS ago."""
        return self._uncounted is not None and now - self._uncounted < RECOUNT_SECONDS

    def note_count(self, now: float, *, counted: bool) -> None:
        """Note whether the undelivered entries could be counted at `now`."""
        self._uncounted = None if counted else now

    def take(self, state: GroupState, now: float) -> Flow:
        """Take the group's state at `now` (monotonic seconds), and return its deliveries."""
        before, self._before = self._before, state
        moved: int | None = None
        if before is None:
            self._consumed, self._lost = _consumed_at_first(state), _lost_at_first(state)
        elif state.is_same:
            self._lost, moved = 0, 0
        else:
            moved = self._compare(before, state)
        in_total = None if state.stream.entries_added is None else self._lost_in_total
        return Flow(self._consumed, self._lost, self._drain(state, now, moved), in_total)

    def _compare(self, before: GroupState, state: GroupState) -> int | None:
        """Take what changed since `before`, and return the deliveries for the rate; None if unknown."""
        delivered = _delivered(before, state)
        self._lost = _lost(before, self._lost, state, delivered)
        self._lost_in_total += _newly_lost(before, state)
        if delivered is None:
            self._consumed = None
        elif self._consumed is not None or delivered:
            # An unknown total starts here.
            self._consumed = (self._consumed or 0) + delivered
        if delivered is None and not (before.exact and state.exact):
            return _counted(before, state)  # as uncertain as the lag
        return delivered

    def _drain(self, state: GroupState, now: float, moved: int | None) -> float | None:
        """Return the seconds until all entries are delivered at the recent rate; None if unknown."""
        if state.lag == 0 and self._rate is None:
            return 0
        if self._rate is None or moved is None:
            self._rate = backlog.Rate()
        self._moved += moved or 0
        rate = self._rate.observe(now, self._moved)
        if not state.lag:
            return state.lag
        return None if rate is None else state.lag / rate if rate else inf


def _is_same(before: GroupState, state: GroupState) -> bool:
    """Return whether the undelivered entries are the same as before."""
    old, new = before.stream, state.stream
    return (
        before.group.last_delivered == state.group.last_delivered
        and old.length == new.length
        and old.first == new.first
        and old.last == new.last
        and old.last_generated == new.last_generated
        and old.entries_added == new.entries_added
    )


def _consumed_at_first(state: GroupState) -> int | None:
    """Return the entries delivered so far if the stream never lost an entry; None if unknown."""
    read, stream = _read(state.group), state.stream
    if state.group.last_delivered == _START:
        return 0
    if not _is_whole(state) or not state.exact or state.lag is None or read is None:
        return None
    return read if read + state.lag == stream.length else None


def _lost_at_first(state: GroupState) -> int | None:
    """Return 0 if the group can have lost nothing at the first scrape; None if unknown."""
    reads_on = state.group.last_delivered == _START or not _is_behind(state)
    return 0 if reads_on and _is_whole(state) else None


def _is_whole(state: GroupState) -> bool:
    """Return whether no entry was ever removed from the stream."""
    return state.settings.added == 0 and state.stream.entries_added == state.stream.length


def _delivered(before: GroupState, state: GroupState) -> int | None:
    """Return the entries delivered since `before`; None if unknown or if entries were lost."""
    added = _added(before.stream, state.stream)
    if state.group.last_delivered == before.group.last_delivered:
        return 0 if added is None or added >= 0 else None
    is_exact = before.exact and state.exact
    if is_exact and added is not None and state.settings.trusts_added(before.settings):
        return _by_lags(before, state, added)
    return _by_counter(before, state) if state.settings.trusts_read(before.settings) else None


def _by_lags(before: GroupState, state: GroupState, added: int) -> int | None:
    """Return the delivered entries: the previous lag and the added entries, less the lag now."""
    read, since = _read(before.group), _read(state.group)
    if before.lag is None or state.lag is None or read is None or since is None:
        return None
    if not _is_forward(before, state) or not _is_kept(before, state):
        return None
    # After a trim past the group, the server estimates the counter from the group's position.
    delivered = before.lag + added - state.lag
    agrees = since - read == delivered or since + state.lag == state.stream.entries_added
    return delivered if agrees and delivered > 0 else None


def _by_counter(before: GroupState, state: GroupState) -> int | None:
    """Return the delivered entries by the server's counter, if it was right before.

    If the counter was the group's position in the stream, an estimate in between did not change it.
    """
    read = _read(before.group)
    if not before.exact or before.lag is None or read is None or not _is_kept(before, state):
        return None
    return _counted(before, state) if read + before.lag == before.stream.entries_added else None


def _counted(before: GroupState, state: GroupState) -> int | None:
    """Return the increase of the server's counter; None if it contradicts the group's position."""
    read, since = _read(before.group), _read(state.group)
    if read is None or since is None:
        return None
    if state.group.last_delivered == before.group.last_delivered:
        return 0 if read == since else None
    return since - read if _is_forward(before, state) and since > read else None


def _lost(
    before: GroupState, lost: int | None, state: GroupState, delivered: int | None
) -> int | None:
    """Return the entries removed undelivered since the latest delivery; None if unknown."""
    if not _is_behind(state):
        return None if delivered is None else 0
    added = _added(before.stream, state.stream)
    if delivered != 0 or added is None or not (before.exact and state.exact):
        return None
    if not state.settings.trusts_added(before.settings):
        return None
    first, deleted = state.stream.first, state.stream.max_deleted
    # Entries that were deleted inside the stream look like entries trimmed from its start.
    if deleted is None or (first is not None and deleted >= first) or not _is_untouched(before):
        return None
    known = lost if _is_behind(before) else 0
    if known is None or before.lag is None or state.lag is None:
        return None
    gone = before.lag + added - state.lag
    return known + gone if gone >= 0 else None


def _newly_lost(before: GroupState, state: GroupState) -> int:
    """Return how many entries were trimmed undelivered since `before`, at least.

    Without deliveries, the lags show it. With deliveries, the server's counter may: entries were added
    that are neither delivered nor waiting.
    """
    added = _added(before.stream, state.stream)
    if added is None or added < 0 or not (before.exact and state.exact):
        return 0
    # Deleted entries look like trimmed ones.
    if not _is_untouched(before) or before.stream.max_deleted != state.stream.max_deleted:
        return 0
    if before.lag is None or state.lag is None:
        return 0
    delivered = _trusted_deliveries(before, state)
    return 0 if delivered is None else max(before.lag + added - delivered - state.lag, 0)


def _trusted_deliveries(before: GroupState, state: GroupState) -> int | None:
    """Return the entries delivered since `before` by the server's counter; None if it cannot be trusted.

    It can be if it was the group's position in the stream. It may include entries that were lost.
    """
    if not state.settings.trusts_added(before.settings):
        return None
    if state.settings.any != before.settings.any:
        return None  # the group may have been elsewhere in between
    if before.group.last_delivered == state.group.last_delivered:
        return 0
    read = _read(before.group)
    if before.lag is None or read is None or not state.settings.trusts_read(before.settings):
        return None
    return _counted(before, state) if read + before.lag == before.stream.entries_added else None


def _is_behind(state: GroupState) -> bool:
    """Return whether entries after the last delivered one may have been removed."""
    end = state.stream.first or state.stream.last_generated
    return end is None or state.group.last_delivered < end


def _is_untouched(state: GroupState) -> bool:
    """Return whether no undelivered entry was ever deleted."""
    deleted = state.stream.max_deleted
    return deleted is not None and deleted <= state.group.last_delivered


def _is_forward(before: GroupState, state: GroupState) -> bool:
    """Return whether the group's position moved forward."""
    return state.group.last_delivered > before.group.last_delivered


def _is_kept(before: GroupState, state: GroupState) -> bool:
    """Return whether no undelivered entry, old or new, was trimmed or deleted since `before`."""
    first, deleted = state.stream.first, state.stream.max_deleted
    last, added = before.group.last_delivered, _added(before.stream, state.stream)
    if deleted is None or deleted > last:
        return False
    if first is not None and first <= last:
        return True
    # Trims remove the oldest entries first: if so many are left, none of these was removed.
    if not before.exact or before.lag is None or added is None:
        return False
    return state.stream.length >= before.lag + added


def _added(old: Stream, new: Stream) -> int | None:
    """Return how many entries were added; negative if it is another stream; None if unknown."""
    if old.entries_added is None or new.entries_added is None:
        return None
    return new.entries_added - old.entries_added


def _read(group: Group) -> int | None:
    """Return the server's counter entries-read; 0 for a group before the first entry."""
    if group.entries_read is None and group.last_delivered == _START:
        return 0
    return group.entries_read
