"""How far behind a group is, by what the stream itself holds: no counter of the server is believed.

Clients can set entries-read and entries-added, and a trim past the group makes servers estimate them.
"""

from __future__ import annotations

from typing import NamedTuple

from bts_collectors.redis.streams.state import Group, Id, Stream

#: Entries that are counted for one group, from either end of the stream.
MOST_COUNTED = 1000

#: Milliseconds; an older id was set by hand and tells no time (2001-01-01).
_OLDEST_PLAUSIBLE = 978_307_200_000
#: Milliseconds by which an id may be ahead of the server's clock, which was read a moment before.
_AHEAD = 1000


class Verdict(NamedTuple):
    """What the state of stream and group says about the lag."""

    #: Messages; None where only counting can tell.
    lag: int | None
    #: Whether it is certain; if not, the entries must be counted.
    exact: bool
    #: The first entry not delivered yet, where the state says which; None also if there is none.
    head: Id | None = None


_NOTHING = Verdict(0, exact=True)


def judge(stream: Stream, group: Group) -> Verdict:
    """Return the lag of `group` as far as length, first and last entry of the stream prove it."""
    length, first, last = stream.length, stream.first, stream.last
    if length == 0:
        return _NOTHING
    if first is None or last is None:
        return Verdict(None, exact=False)
    if group.last_delivered >= last:
        return _NOTHING
    if group.last_delivered < first:
        return Verdict(length, exact=True, head=first)
    if group.last_delivered == first:
        return Verdict(length - 1, exact=True)
    return Verdict(figure(stream, group), exact=False)


def figure(stream: Stream, group: Group) -> int | None:
    """Return the server's own lag, None where it cannot be right: for a group amid the stream."""
    if group.lag is None or not 0 < group.lag < stream.length or stream.max_deleted is None:
        return None
    # An entry deleted ahead of the group is still counted.
    return group.lag if stream.max_deleted <= group.last_delivered else None


def age_seconds(entry: Id, now: int | None) -> float | None:
    """Return the age of `entry` by its id; None where the id does not tell one.

    An id in the future was made when the clock was wrong. `now` is the server's clock in milliseconds.
    """
    milliseconds = entry[0]
    if now is None or not _OLDEST_PLAUSIBLE <= milliseconds <= now + _AHEAD:
        return None
    return max(now - milliseconds, 0) / 1000
