"""The bytes of a connection that have come and are not used yet."""

from __future__ import annotations

import re

#: Bound of a request's line and header fields, in bytes.
MAX_HEAD_BYTES = 32 * 1024

_BLANK_LINES = re.compile(rb"(?:\r?\n)*")
_END = re.compile(rb"\n\r?\n")
#: Bytes of the longest end of a head, less one: so much of it may have come before.
_OVERLAP = 2


class Incoming:
    """What a client has sent; takes requests' heads and bodies off its front."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        #: Bytes of blank lines dropped before the head, and bytes known to hold no end of it.
        self._blank = 0
        self._searched = 0
        self._end: re.Match[bytes] | None = None

    def __len__(self) -> int:
        return len(self._bytes)

    def add(self, data: bytes) -> None:
        """Append what has just come."""
        self._bytes += data

    def has_head(self) -> bool:
        """Return whether a request's head is complete, or longer than it may be."""
        if self._end is not None:
            return True
        # Blank lines before a request are ignored, as RFC 9112 has it.
        blank = _BLANK_LINES.match(self._bytes)
        if blank is not None and blank.end():
            self._blank += self.skip(blank.end())
        self._end = _END.search(self._bytes, max(self._searched - _OVERLAP, 0))
        self._searched = len(self._bytes)
        return self._end is not None or self._blank + len(self._bytes) > MAX_HEAD_BYTES

    def take_head(self) -> bytes | None:
        """Return the request line and header fields; None if they are too long."""
        end = self._end
        if end is None or self._blank + end.end() > MAX_HEAD_BYTES:
            return None
        head = bytes(self._bytes[: end.start() + 1])
        self.skip(end.end())
        self._blank = 0
        return head

    def has_line(self) -> bool:
        """Return whether the first line is complete, and no longer than a head may be."""
        return self._bytes.find(b"\n", 0, MAX_HEAD_BYTES) >= 0

    def skip(self, count: int) -> int:
        """Drop up to `count` bytes; return how many there were."""
        count = min(count, len(self._bytes))
        del self._bytes[:count]
        self._searched = 0
        self._end = None
        return count
