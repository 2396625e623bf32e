"""The glob patterns of Redis, so that one walk through the keys serves many patterns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

_SPECIAL = re.compile(rb"[*?\[\\]")
_LITERAL_HEAD = re.compile(rb"[^*?\[\\]*")
#: The members of [...]: an escaped byte, a range (whose end may be any byte), or one byte.
_MEMBER = re.compile(rb"\\(.)|([^\]])-(.)|([^\]])", re.DOTALL)
#: The parts of a pattern; to Redis, an unclosed bracket ends with the pattern.
_PART = re.compile(rb"(\*+)|(\?)|\[(\^?)((?:\\.|[^\]]-.|[^\]])*)\]?|\\?(.)", re.DOTALL)


def is_glob(name: str) -> bool:
    """Return whether `name` is a pattern."""
    return bool(_SPECIAL.search(name.encode()))


def escaped(name: str) -> str:
    """Return the pattern that matches only `name`."""
    return re.sub(r"([*?\[\\])", r"\\\1", name)


def compiled(globs: Iterable[bytes]) -> re.Pattern[bytes]:
    """Return the regular expression (for fullmatch) of the names that any of `globs` matches."""
    return re.compile(b"|".join(b"".join(_expression(glob)) for glob in globs), re.DOTALL)


def covering(globs: Sequence[bytes]) -> bytes:
    """Return one glob that matches all names that any of `globs` matches, and few others.

    For several globs it has the possible bytes at each position of their common literal length.
    """
    if len(globs) == 1:
        return globs[0]
    heads = [_LITERAL_HEAD.match(glob)[0] for glob in globs]  # type: ignore[index]  # it matches anything
    places = (sorted(set(place)) for place in zip(*heads, strict=False))
    return b"".join(b"[%s]" % b"".join(b"\\%c" % byte for byte in place) for place in places) + b"*"


def _expression(glob: bytes) -> Iterator[bytes]:
    for any_, single, inverted, members, literal in _PART.findall(glob):
        if any_:
            yield b".*"
        elif single:
            yield b"."
        elif literal:
            yield re.escape(literal)
        else:
            yield _choice(members, inverted=bool(inverted))


def _choice(members: bytes, *, inverted: bool) -> bytes:
    allowed: set[int] = set()
    for escape, start, end, byte in _MEMBER.findall(members):
        if start:
            low, high = sorted((start[0], end[0]))
            allowed.update(range(low, high + 1))
        else:
            allowed.update(escape or byte)
    if inverted:
        allowed = set(range(256)) - allowed
    return b"[%s]" % b"".join(b"\\x%02x" % byte for byte in sorted(allowed)) if allowed else b"(?!)"
