"""Which digests identify an element of a list, because its payload is not used again."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from bts_collectors.redis.lists.look import DIGEST, Look, split

#: Digests of repeated payloads, and of removed elements, that are remembered.
_MOST_REPEATED = 64
_MOST_REMOVED = 256 * DIGEST
#: Different payloads that must have been seen before payloads are taken to be unique.
_ENOUGH = 4
#: A payload may repeat, such as that of a periodic job, and one more for so many different ones.
_SHARE = 100
#: Different payloads that a program with unique ones gets in advance.
_CREDIT = 1000


class IdentityState(msgspec.Struct, frozen=True):
    """What was seen of payloads, as it is stored."""

    different: int
    repeats: int
    repeated: bytes
    removed: bytes


class Identity:
    """What was seen of the payloads of one list: how many different ones, and which ones repeat."""

    __slots__ = ("_different", "_removed", "_repeats", "is_unique", "repeated")

    def __init__(self, *, unique: bool) -> None:
        """Begin without elements; `unique` says that the list's programs give every element an id."""
        self.is_unique = unique
        self._different = _CREDIT if unique else 0
        self._repeats = 0
        self._removed = b""
        #: Payloads that were used again. They identify no element.
        self.repeated: dict[bytes, None] = {}

    def save(self) -> IdentityState:
        """Return what `restore` needs."""
        repeated = b"".join(self.repeated)
        return IdentityState(self._different, self._repeats, repeated, self._removed)

    def restore(self, state: IdentityState) -> None:
        """Take a stored state."""
        self._different, self._repeats = state.different, state.repeats
        self._removed = state.removed
        self.repeated = dict.fromkeys(split(state.repeated))

    @property
    def is_plausible(self) -> bool:
        """Return whether nothing says that an element with an earlier one's payload is another element."""
        return (self._repeats - 1) * _SHARE <= self._different

    @property
    def is_trusted(self) -> bool:
        """Return whether enough was seen to be sure of that."""
        return self._different >= _ENOUGH and self.is_plausible

    def compare(self, look: Look) -> None:
        """Note payloads that are in a list more than once."""
        digests = list(look.window)
        digests += [digest for rank, digest in look.marks.items() if rank >= len(look.window)]
        if len(set(digests)) < len(digests):
            known: set[bytes] = set()
            for digest in digests:
                if digest in known:
                    self._repeat(digest)
                known.add(digest)

    def add(self, digests: Iterable[bytes]) -> None:
        """Note elements that were not seen before."""
        for digest in digests:
            if digest in self._removed:
                self._repeat(digest)
            elif digest not in self.repeated:
                self._different += 1

    def remove(self, digests: Iterable[bytes]) -> None:
        """Note elements that have left the list."""
        self._removed = (self._removed + b"".join(digests))[-_MOST_REMOVED:]

    def exclude(self, digest: bytes) -> None:
        """Do not identify elements by this digest any more."""
        self.repeated.pop(digest, None)
        self.repeated[digest] = None
        if len(self.repeated) > _MOST_REPEATED:
            del self.repeated[next(iter(self.repeated))]

    def _repeat(self, digest: bytes) -> None:
        if digest not in self.repeated:
            self._repeats += 1
        self.exclude(digest)
