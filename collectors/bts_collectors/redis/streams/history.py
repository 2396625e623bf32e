"""What a group was delivered, and what it lost, from one collection to the next.

The lengths and ids of the stream prove it. The server's counters are only believed in between two
collections in which no client can have set them, and where no trim made the server estimate them.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, NamedTuple

from bts_collectors.redis.streams.state import Group, Stream
from bts_collectors.redis.waiting import Waiting
from bts_exporter import backlog

if TYPE_CHECKING:
    from bts_collectors.redis.streams.groups import GroupState

#: Seconds after which entries that were too many are counted again.
RECOUNT = 60.0

_START = (0, 0)


class Settings(NamedTuple):
    """How often clients have set counters of streams since the server started; None is not known."""

    #: entries-added of streams.
    added: int | None = None
    #: entries-added of streams, or entries-read of groups.
    any: int | None = None

    def trusts_added(self, before: Settings) -> bool:
        """Return whether no client has set entries-added since `before`."""
        return self.added is not None and self.added == before.added

    def trusts_read(self, before: Settings) -> bool:
        """Return whether no client has set any of the counters since `before`."""
        return self.any is not None and self.any == before.any


class Flow(NamedTuple):
    """What is known of a group's deliveries; None is not known."""

    consumed: int | None = None
    lost: int | None = None
    drain: float | None = None


class History:
    """What was seen of one group."""

    __slots__ = ("_before", "_consumed", "_lost", "_moved", "_rate", "_uncounted", "waiting")

    def __init__(self) -> None:
        """Begin with nothing seen."""
        self.waiting = Waiting()
        #: When the entries ahead were too many to be counted.
        self._uncounted: float | None = None
        self._before: GroupState | None = None
        self._consumed: int | None = None
        self._lost: int | None = None
        #: Entries delivered since the rate is observed.
        self._moved = 0
        self._rate: backlog.Rate | None = None

    def recall(self, state: GroupState) -> None:
        """Take the lag from the collection before, if nothing has happened to stream and group.

        Asked only for a group amid the stream, which no trim has overtaken.
        """
        before = self._before
        if before is not None and before.exact and _is_same(before, state):
            state.lag, state.exact, state.head = before.lag, True, before.head
            state.is_same = True

    def conclude(self, state: GroupState) -> None:
        """Take the lag from the one before and from what came and went, if counting did not tell."""
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

    def is_uncounted(self, now: float) -> bool:
        """Return whether there were too many entries to be counted a moment before."""
        return self._uncounted is not None and now - self._uncounted < RECOUNT

    def note_count(self, now: float, *, counted: bool) -> None:
        """Note whether the entries ahead could be counted at `now`."""
        self._uncounted = None if counted else now

    def take(self, state: GroupState, now: float) -> Flow:
        """Take in how a group stands at `now`, in seconds of a clock that never goes back."""
        before, self._before = self._before, state
        if before is None:
            self._consumed, self._lost = _consumed_at_first(state), _lost_at_first(state)
            return Flow(self._consumed, self._lost, self._drain(state, now, None))
        if state.is_same:
            self._lost = 0
            return Flow(self._consumed, 0, self._drain(state, now, 0))
        delivered = _delivered(before, state)
        self._lost = _lost(before, self._lost, state, delivered)
        moved = delivered
        if moved is None and not (before.exact and state.exact):
            moved = _counted(before, state)  # as uncertain as the lag that it is for
        if delivered is None:
            self._consumed = None
        elif self._consumed is not None or delivered:
            # Where the total is not known, it counts from here.
            self._consumed = (self._consumed or 0) + delivered
        return Flow(self._consumed, self._lost, self._drain(state, now, moved))

    def _drain(self, state: GroupState, now: float, moved: int | None) -> float | None:
        """Return in how many seconds what waits will have been delivered at the recent rate."""
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
    """Return whether the entries ahead of a group are the same as before."""
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
    """Return what was delivered to a group so far, if nothing has ever gone from the stream."""
    read, stream = _read(state.group), state.stream
    if state.group.last_delivered == _START:
        return 0
    if not _is_whole(state) or not state.exact or state.lag is None or read is None:
        return None
    return read if read + state.lag == stream.length else None


def _lost_at_first(state: GroupState) -> int | None:
    """Return 0 if nothing has ever gone from the stream that the group might have been delivered."""
    goes_on = state.group.last_delivered == _START or not _is_behind(state)
    return 0 if goes_on and _is_whole(state) else None


def _is_whole(state: GroupState) -> bool:
    """Return whether nothing has ever gone from the stream."""
    return state.settings.added == 0 and state.stream.entries_added == state.stream.length


def _delivered(before: GroupState, state: GroupState) -> int | None:
    """Return how many entries a group was delivered since `before`, if none was lost meanwhile."""
    added = _added(before.stream, state.stream)
    if state.group.last_delivered == before.group.last_delivered:
        return 0 if added is None or added >= 0 else None
    is_exact = before.exact and state.exact
    if is_exact and added is not None and state.settings.trusts_added(before.settings):
        return _by_lags(before, state, added)
    return _by_counter(before, state) if state.settings.trusts_read(before.settings) else None


def _by_lags(before: GroupState, state: GroupState, added: int) -> int | None:
    """Return how many entries were delivered: those that waited or came, and do not wait now."""
    read, since = _read(before.group), _read(state.group)
    if before.lag is None or state.lag is None or read is None or since is None:
        return None
    if not _is_forward(before, state) or not _is_kept(before, state):
        return None
    # After a trim past the group the server estimates the counter, from where the group is.
    delivered = before.lag + added - state.lag
    agrees = since - read == delivered or since + state.lag == state.stream.entries_added
    return delivered if agrees and delivered > 0 else None


def _by_counter(before: GroupState, state: GroupState) -> int | None:
    """Return how many entries were delivered by the server's counter, if it was right before.

    Where it told the group's place in the stream, an estimate in between has not changed it.
    """
    read = _read(before.group)
    if not before.exact or before.lag is None or read is None or not _is_kept(before, state):
        return None
    return _counted(before, state) if read + before.lag == before.stream.entries_added else None


def _counted(before: GroupState, state: GroupState) -> int | None:
    """Return by how much the server's counter rose; None if it did not rise as the group went on."""
    read, since = _read(before.group), _read(state.group)
    if read is None or since is None:
        return None
    if state.group.last_delivered == before.group.last_delivered:
        return 0 if read == since else None
    return since - read if _is_forward(before, state) and since > read else None


def _lost(
    before: GroupState, lost: int | None, state: GroupState, delivered: int | None
) -> int | None:
    """Return how many entries went before a group was delivered them, since its last delivery."""
    if not _is_behind(state):
        return None if delivered is None else 0
    added = _added(before.stream, state.stream)
    if delivered != 0 or added is None or not (before.exact and state.exact):
        return None
    if not state.settings.trusts_added(before.settings):
        return None
    first, deleted = state.stream.first, state.stream.max_deleted
    # Entries deleted further on cannot be told from those at the start.
    if deleted is None or (first is not None and deleted >= first) or not _is_untouched(before):
        return None
    known = lost if _is_behind(before) else 0
    if known is None or before.lag is None or state.lag is None:
        return None
    gone = before.lag + added - state.lag
    return known + gone if gone >= 0 else None


def _is_behind(state: GroupState) -> bool:
    """Return whether the entries that follow the last one delivered may have gone."""
    end = state.stream.first or state.stream.last_generated
    return end is None or state.group.last_delivered < end


def _is_untouched(state: GroupState) -> bool:
    """Return whether no entry was ever deleted ahead of a group."""
    deleted = state.stream.max_deleted
    return deleted is not None and deleted <= state.group.last_delivered


def _is_forward(before: GroupState, state: GroupState) -> bool:
    """Return whether a group has moved on."""
    return state.group.last_delivered > before.group.last_delivered


def _is_kept(before: GroupState, state: GroupState) -> bool:
    """Return whether nothing that a group had ahead of it, or that came since, was trimmed or deleted."""
    first, deleted = state.stream.first, state.stream.max_deleted
    last, added = before.group.last_delivered, _added(before.stream, state.stream)
    if deleted is None or deleted > last:
        return False
    if first is not None and first <= last:
        return True
    # Trims begin with the oldest: if so many are left, they took nothing of these.
    if not before.exact or before.lag is None or added is None:
        return False
    return state.stream.length >= before.lag + added


def _added(old: Stream, new: Stream) -> int | None:
    """Return how many entries were added since; negative if it is not the same stream."""
    if old.entries_added is None or new.entries_added is None:
        return None
    return new.entries_added - old.entries_added


def _read(group: Group) -> int | None:
    """Return the server's counter of entries read; of a group at the very start it is 0."""
    if group.entries_read is None and group.last_delivered == _START:
        return 0
    return group.entries_read
