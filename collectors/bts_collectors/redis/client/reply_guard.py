"""Checks received bytes before the parser reads them, which allocates whatever a server announces.

hiredis allocates an array as soon as it has read the header with its length: fourteen bytes can cost
seconds and gigabytes. The guard is independent of sockets and parsers: it is given bytes.
"""

from __future__ import annotations

import re

#: Announced elements of arrays, maps, sets, pushes and attributes that were not received yet.
MOST_ELEMENTS = 1_000_000
#: Bytes of one string, such as CLIENT LIST of 90,000 clients.
LONGEST_STRING = 32 * 1024 * 1024
#: Bytes of a simple string, an error or a number: the parser starts such a line again with every part of it.
LONGEST_LINE = 64 * 1024
#: Levels of nested replies.
DEEPEST = 64
#: Bytes received in one collection, from all servers together.
MOST_RECEIVED = 64 * 1024 * 1024
#: Estimated bytes of memory for the replies to one round trip.
MOST_MEMORY = 64 * 1024 * 1024

#: Estimated memory of one line of a reply in addition to its bytes: an object and a list entry.
_LINE_COST = 48
#: Bytes kept for an exact check; a longer reply is checked exactly at once.
_MOST_KEPT = 4 * 1024 * 1024
#: A header is shorter: a type, a sign, 20 digits and the end of the line.
_LONGEST_HEADER = 32

_ARRAYS = re.compile(rb"\n\*(\d{1,20})\r")
#: A string of 10 MB or more, a type that RESP2 does not have, or an unknown length.
_UNUSUAL = re.compile(rb"\n(?:[$*=!;](?:\d{8}|\?)|[%~>|])")

_ARRAY, _MAP, _SET, _PUSH, _ATTRIBUTE = b"*%~>|"
_STRINGS = frozenset(b"$=!")
_CONTAINERS = frozenset((_ARRAY, _MAP, _SET, _PUSH, _ATTRIBUTE))
_IN_PAIRS = frozenset((_MAP, _ATTRIBUTE))


class OversizedReply(Exception):  # noqa: N818  # a reply, which is not an error of ours
    """Raised for a reply that is larger, or is announced to be larger, than a valid one."""

    def __init__(self, message: str, sound: int = 0) -> None:
        """Take the number of received bytes in front of the part that must not be parsed."""
        super().__init__(message)
        self.sound = sound


class ReceiveBudget:
    """Limits the bytes received in one collection and in one round trip, over several connections."""

    def __init__(self) -> None:
        self._received = MOST_RECEIVED
        self._memory = MOST_MEMORY

    def begin_collection(self) -> None:
        """Reset the limit of a collection."""
        self._received = MOST_RECEIVED
        self.begin_round()

    def begin_round(self) -> None:
        """Reset the limit of a round trip: the previous replies were freed."""
        self._memory = MOST_MEMORY

    def take(self, received: bytes) -> None:
        """Subtract what was received; OversizedReply when it is too much."""
        self._received -= len(received)
        self._memory -= len(received) + _LINE_COST * received.count(b"\n")
        if self._received < 0:
            msg = f"more than {MOST_RECEIVED >> 20} MB in one collection"
            raise OversizedReply(msg)
        if self._memory < 0:
            msg = f"replies that take more than {MOST_MEMORY >> 20} MB of memory"
            raise OversizedReply(msg)


class ReplyGuard:
    """Checks the replies of one connection; `check` is called with every part that was received.

    A quick check adds up everything that looks like the header of an array, also inside of strings:
    it costs a fiftieth of an exact one. Only if the sum is suspicious are replies checked exactly,
    from the beginning of the first incomplete one.
    """

    def __init__(self, budget: ReceiveBudget) -> None:
        """Take the limits that all connections of a collection share."""
        self._budget = budget
        self.at_boundary()

    def at_boundary(self) -> None:
        """Note that everything received was parsed: the next byte begins a reply."""
        self._kept: list[bytes] = []
        self._size = 0
        self._announced = 0
        self._line = 0
        #: An incomplete line that can still become a header.
        self._tail = b"\n"
        self._structure: _Structure | None = None

    def check(self, received: bytes) -> None:
        """Raise OversizedReply if `received` must not be parsed."""
        self._budget.take(received)
        if self._structure is None:
            self._kept.append(received)
            self._size += len(received)
            if not self._is_suspicious(received):
                return
            self._structure = _Structure()
            for earlier in self._kept[:-1]:
                self._structure.follow(earlier)
            self._kept = []
        self._structure.follow(received)

    def _is_suspicious(self, received: bytes) -> bool:
        text = self._tail + received
        self._announced += sum(map(int, _ARRAYS.findall(text)))
        end = text.rfind(b"\n")
        self._line = len(text) - end if end >= 0 else self._line + len(received)
        self._tail = text[end:] if end >= 0 and self._line < _LONGEST_HEADER else b""
        return (
            self._announced > MOST_ELEMENTS
            or self._line > LONGEST_LINE
            or self._size > _MOST_KEPT
            or _UNUSUAL.search(text) is not None
        )


class _Structure:
    """The exact position in a reply at which the received bytes end."""

    def __init__(self) -> None:
        self._skip = 0  # missing bytes of a string
        self._line = b""  # the beginning of a line
        self._left = 0  # missing elements of the innermost container
        self._outer: list[int] = []  # missing elements of the containers around it
        self._open = 0  # missing elements of all containers

    def follow(self, received: bytes) -> None:
        """Advance to the end of `received`; OversizedReply if it announces too much."""
        before = len(self._line)
        position = self._skip
        if before:
            received = self._line + received
            self._line = b""
        size = len(received)
        while position < size:
            try:
                end = received.find(b"\r\n", position)
                if end < 0:
                    self._line = received[position:]
                    self._check_line(size - position)
                    position = size
                else:
                    self._check_line(end - position)
                    position = self._step(received, position, end)
            except OversizedReply as error:
                error.sound = max(position - before, 0)
                raise
        self._skip = position - size

    def _step(self, received: bytes, start: int, end: int) -> int:
        """Read the line from `start` to `end`, and return the start of the next one."""
        kind = received[start]
        if kind in _CONTAINERS:
            self._enter(kind, _length(received[start + 1 : end]))
            return end + 2
        if self._left:
            self._left -= 1
            self._open -= 1
            self._leave()
        if kind in _STRINGS:
            length = _length(received[start + 1 : end])
            if length > LONGEST_STRING:
                msg = f"a string of {length} bytes"
                raise OversizedReply(msg)
            if length >= 0:  # -1 is a null
                return end + 2 + length + 2
        return end + 2

    def _enter(self, kind: int, length: int) -> None:
        elements = max(length, 0) * (2 if kind in _IN_PAIRS else 1)
        if self._left and kind != _ATTRIBUTE:  # which precedes an element and does not count as one
            self._left -= 1
            self._open -= 1
        if elements:
            self._outer.append(self._left)
            self._left = elements
            self._open += elements
        if self._open > MOST_ELEMENTS:
            msg = f"an array of {length} elements"
            raise OversizedReply(msg)
        if len(self._outer) > DEEPEST:
            msg = f"arrays nested more than {DEEPEST} deep"
            raise OversizedReply(msg)
        self._leave()

    def _leave(self) -> None:
        while not self._left and self._outer:
            self._left = self._outer.pop()

    @staticmethod
    def _check_line(length: int) -> None:
        if length > LONGEST_LINE:
            msg = f"a line of more than {LONGEST_LINE >> 10} KB"
            raise OversizedReply(msg)


def _length(digits: bytes) -> int:
    """Return the length in a header; OversizedReply if it is not a number: the reply has no limit then."""
    try:
        return int(digits)
    except ValueError:
        msg = f"a length that is not a number: {digits[:20]!r}"
        raise OversizedReply(msg) from None
