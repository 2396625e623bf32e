"""How far behind a group is, exactly or not at all: the server's own figure is wrong too often.

It is nil after XDEL, SETID or a group made at an id, and wrong after XTRIM past the group.
"""

from __future__ import annotations

from typing import NamedTuple

from bts_collectors.redis.streamstate import Group, Id, Stream

#: Entries that are counted for one group, from either end of the stream.
MOST_COUNTED = 1000

#: Milliseconds; an older id was set by hand and tells no time (2001-01-01).
_OLDEST_PLAUSIBLE = 978_307_200_000
_DAY = 86_400_000

#: Redis has counted right since these, where trimming overtook a group or XDEL was ahead of it.
_COUNTS_RIGHT = ((7, 2, 7), (7, 4, 2))
_FIRST_7_4 = (7, 4)


class Verdict(NamedTuple):
    """What the state of stream and group says about the lag."""

    #: Messages; None where only counting can tell.
    lag: int | None
    #: Whether it is certain; if not, counting tells, or tells better.
    exact: bool
    #: The first entry not delivered yet, where the state says which; None also if there is none.
    head: Id | None = None


def counts_right(version: tuple[int, ...]) -> bool:
    """Return whether a server of `version` keeps entries-read right whatever is trimmed or deleted.

    Valkey says that it is Redis 7.2.4 in all its versions, and so is not believed.
    """
    return version >= _COUNTS_RIGHT[version >= _FIRST_7_4]


def judge(stream: Stream, group: Group, version: tuple[int, ...]) -> Verdict:
    """Return the lag of `group` as far as the state tells it; `version` is the server's."""
    if not stream.length or stream.first is None or stream.last is None:
        return Verdict(0, exact=True)
    if group.last_delivered >= stream.last:
        return Verdict(0, exact=True)
    if group.last_delivered < stream.first:
        return Verdict(stream.length, exact=True, head=stream.first)
    if group.lag is None or not 0 < group.lag <= stream.length or stream.max_deleted is None:
        return Verdict(None, exact=False)
    if counts_right(version) or stream.entries_added == stream.length:
        # An entry deleted ahead of the group is still counted.
        right = stream.max_deleted <= group.last_delivered
        return Verdict(group.lag if right else None, exact=right)
    return Verdict(group.lag if stream.max_deleted == (0, 0) else None, exact=False)


def lost(stream: Stream, group: Group) -> int | None:
    """Return how many entries went from the start of the stream before `group` was delivered them.

    None where the server does not know, or cannot tell them from those deleted further on. Before
    the versions that count right it may include such as went before the group was delivered
    anything else.
    """
    end = stream.first or stream.last_generated
    if end is None or stream.entries_added is None:
        return None
    if group.last_delivered >= end:
        return 0
    deleted_further_on = stream.first is not None and (stream.max_deleted or (0, 0)) >= stream.first
    if group.entries_read is None or deleted_further_on:
        return None
    gone = stream.entries_added - group.entries_read - stream.length
    return gone if gone >= 0 else None


def consumed(stream: Stream, group: Group, lag: int) -> int | None:
    """Return how many entries were added up to where `group` is; `lag` is exact.

    None where the server's count and the lag do not add up: entries went without being delivered.
    """
    if group.entries_read is None or stream.entries_added is None:
        return None
    return group.entries_read if group.entries_read + lag == stream.entries_added else None


def age_seconds(entry: Id, now: int | None) -> float | None:
    """Return the age of `entry` by its id; None where the id is not made from a clock.

    `now` is the server's clock in milliseconds.
    """
    milliseconds = entry[0]
    if now is None or not _OLDEST_PLAUSIBLE <= milliseconds <= now + _DAY:
        return None
    # A moment's difference between clocks is no message from the future.
    return max(now - milliseconds, 0) / 1000
