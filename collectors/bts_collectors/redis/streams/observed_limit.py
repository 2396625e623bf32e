"""The length to which producers trim a stream, as observed: MAXLEN is an argument of XADD that no command returns.

A stream whose length stays the same while entries are added and removed is trimmed to this length. A limit
is known after three scrapes with removed entries, and until the length differs by more than a node.
"""

from __future__ import annotations

from bts_collectors.redis.streams.state import Stream

#: Entries of a node (stream-node-max-entries, 100 by default): with `~` whole nodes are removed.
NODE = 100
#: Scrapes with removed entries, and removed entries for each entry by which the length varied.
MIN_TRIMS, MIN_SHARE = 3, 10


class ObservedLimit:
    """The lengths of one stream while it is trimmed."""

    __slots__ = ("_added", "_highest", "_length", "_lowest", "_removed", "_trims")

    def __init__(self) -> None:
        """Begin without observations."""
        self._added: int | None = None
        self._length = 0
        #: Since the lengths are compared: their range, the removed entries, and scrapes that saw some.
        self._lowest = self._highest = 0
        self._removed = self._trims = 0

    def observe(self, stream: Stream) -> int | None:
        """Add an observation; return the length to which the stream is trimmed, at most NODE too high; None if unknown."""
        before, length = self._added, self._length
        self._added, self._length = stream.entries_added, stream.length
        if before is None or stream.entries_added is None:
            self._begin(stream.length)
            return None
        removed = length + stream.entries_added - before - stream.length
        is_changed = stream.entries_added != before
        if removed < 0 or (removed and not is_changed):
            self._begin(stream.length)  # another stream, or trimmed by hand
        elif is_changed:
            self._lowest = min(self._lowest, stream.length)
            self._highest = max(self._highest, stream.length)
            self._removed += removed
            self._trims += removed > 0
            if self._highest - self._lowest > NODE:
                self._begin(stream.length)
        varied = self._highest - self._lowest
        is_known = self._trims >= MIN_TRIMS and self._removed >= MIN_SHARE * varied
        return self._lowest if is_known else None

    def _begin(self, length: int) -> None:
        self._lowest = self._highest = length
        self._removed = self._trims = 0
