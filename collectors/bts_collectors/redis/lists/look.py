"""What a scrape sees of a list from one of its ends."""

from __future__ import annotations

from hashlib import sha1
from typing import Literal, NamedTuple

#: The end of a list from which its consumers take elements.
End = Literal["left", "right"]

#: Characters of a digest, and bytes of an element's beginning and end in it: those of look.lua.
DIGEST = 12
_PART = 1024
#: The digest of an element that was not read.
UNREAD = b"-" * DIGEST

#: First elements that every look includes.
WINDOW = 32


class Request(NamedTuple):
    """An end of a list to look at."""

    key: bytes
    end: End
    #: How many first elements.
    window: int = WINDOW
    #: Distances of single elements from the end.
    ranks: tuple[int, ...] = ()
    #: How many of the newest elements to search for redelivered messages of Celery.
    searched: int = 0


class Look(NamedTuple):
    """A list at one moment; elements are numbered from the end, beginning with 0."""

    length: int
    #: Digests of the first elements.
    window: list[bytes]
    #: Digests of other elements by number. The last element is among them if it could be read.
    marks: dict[int, bytes]
    #: The number of the newest element that is a redelivered message of Celery; -1 without one.
    redelivered: int = -1

    @property
    def is_whole(self) -> bool:
        """Return whether the window has every element."""
        return len(self.window) == self.length


def digest(element: bytes) -> bytes:
    """Return the digest of an element, as look.lua computes it."""
    if len(element) > 2 * _PART:
        element = b"%d:%s%s" % (len(element), element[:_PART], element[-_PART:])
    return sha1(element, usedforsecurity=False).hexdigest()[:DIGEST].encode()


def split(digests: bytes) -> list[bytes]:
    """Return the digests in a text of digests."""
    return [digests[start : start + DIGEST] for start in range(0, len(digests), DIGEST)]
