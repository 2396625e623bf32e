"""The lag of a group, as far as the stream itself proves it: the server's counters are not trusted.

Clients can set entries-read and entries-added. After a trim past a group, servers estimate them.
"""

from __future__ import annotations

from typing import NamedTuple

from bts_collectors.redis.streams.state import Group, Id, Stream

#: Entries counted for one group, from either end of the stream.
MOST_COUNTED = 1000

#: Milliseconds since 1970 (2001-01-01). An older id was set by hand and is not a time.
_OLDEST_PLAUSIBLE = 978_307_200_000
#: Milliseconds by which an id may be later than the server's clock, which was read a moment before.
_AHEAD = 1000


class Verdict(NamedTuple):
    """What the state of a stream and a group says about the lag."""

    #: Messages; None if the entries must be counted.
    lag: int | None
    #: Whether the lag is certain. If not, the entries must be counted.
    exact: bool
    #: The first undelivered entry; None if there are no such entries or the state does not say.
    head: Id | None = None


_NO_LAG = Verdict(0, exact=True)


def judge(stream: Stream, group: Group) -> Verdict:
    """Return the lag of `group` as far as the stream's length and its first and last entry prove it."""
    length, first, last = stream.length, stream.first, stream.last
    if length == 0:
        return _NO_LAG
    if first is None or last is None:
        return Verdict(None, exact=False)
    if group.last_delivered >= last:
        return _NO_LAG
    if group.last_delivered < first:
        return Verdict(length, exact=True, head=first)
    if group.last_delivered == first:
        return Verdict(length - 1, exact=True)
    return Verdict(_reported_lag(stream, group), exact=False)


def _reported_lag(stream: Stream, group: Group) -> int | None:
    """Return the server's own lag of a group inside the stream; None if it is impossible."""
    if group.lag is None or not 0 < group.lag < stream.length or stream.max_deleted is None:
        return None
    # The server still counts an entry that was deleted ahead of the group.
    return group.lag if stream.max_deleted <= group.last_delivered else None


def age_seconds(entry: Id, now: int | None) -> float | None:
    """Return the age of `entry` in seconds by its id; None if the id is not a plausible time.

    `now` is the server's clock in milliseconds since 1970. An id in the future comes from a wrong clock.
    """
    milliseconds = entry[0]
    if now is None or not _OLDEST_PLAUSIBLE <= milliseconds <= now + _AHEAD:
        return None
    return max(now - milliseconds, 0) / 1000
