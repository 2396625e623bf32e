"""Passwords of requests, compared with bcrypt hashes at a bounded cost."""

from __future__ import annotations

import binascii
import os
import threading
from collections.abc import Mapping
from enum import Enum, auto
from typing import NamedTuple

#: bcrypt uses no more bytes of a password.
MAX_BYTES = 72
#: Different passwords that wait for their comparison; others are refused at once.
_MAX_WAITING = 16
#: Seconds that a request waits for its comparison.
_WAIT_SECONDS = 5.0
#: Successful comparisons that are remembered.
_MAX_REMEMBERED = 256


class Verdict(Enum):
    """What became of a request's password."""

    RIGHT = auto()
    WRONG = auto()  # or missing
    BUSY = auto()  # not compared, because too many others wait


class _Credentials(NamedTuple):
    user: bytes
    password: bytes


class _Comparison:
    """A comparison under way, which all requests with the same password wait for."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.verdict = Verdict.BUSY


class Passwords:
    """Compares passwords one at a time, and remembers those that were right.

    A comparison takes 50 ms and more. Requests with a remembered password do not wait for any, and only a few
    different ones wait at a time, so that wrong passwords cannot occupy the threads of all connections.
    """

    def __init__(self) -> None:
        # Digests with a random key are remembered, never passwords.
        self._key = os.urandom(32)
        self._right: dict[bytes, None] = {}
        self._under_way: dict[bytes, _Comparison] = {}
        self._lock = threading.Lock()
        self._one = threading.RLock()

    def check(self, users: Mapping[bytes, bytes], field: str | None) -> Verdict:
        """Compare the field Authorization with `users`, a bcrypt hash for each name."""
        given = _parse(field)
        if given is None:
            return Verdict.WRONG
        hashed = users.get(given.user)
        known = hashed is not None
        if hashed is None:
            # Any of the hashes: the time must not show that there is no such user.
            choice = int.from_bytes(self._digest(given.user)[:8], "big") % len(users)
            hashed = list(users.values())[choice]
        digest = self._digest(given.user, hashed, given.password, b"known" if known else b"")
        with self._lock:
            if digest in self._right:
                return Verdict.RIGHT
            comparison = self._under_way.get(digest)
            ours = comparison is None
            if comparison is None:
                if len(self._under_way) >= _MAX_WAITING:
                    return Verdict.BUSY
                comparison = self._under_way[digest] = _Comparison()
        if ours:
            self._compare(comparison, digest, given.password, hashed, known=known)
        else:
            comparison.done.wait(_WAIT_SECONDS)
        return comparison.verdict

    def _compare(
        self, comparison: _Comparison, digest: bytes, password: bytes, hashed: bytes, *, known: bool
    ) -> None:
        try:
            equal = self._equal(password, hashed)
            if equal is not None:
                comparison.verdict = Verdict.RIGHT if equal and known else Verdict.WRONG
        finally:
            with self._lock:
                del self._under_way[digest]
                if comparison.verdict is Verdict.RIGHT:
                    self._remember(digest)
            comparison.done.set()

    def _equal(self, password: bytes, hashed: bytes) -> bool | None:
        """Return whether a password is the one of a hash; None if it had no turn."""
        import bcrypt  # noqa: PLC0415  # only if there are passwords

        # Until the result is known: an exception from another thread may be raised right after the call.
        held = True
        try:
            held = self._one.acquire(timeout=_WAIT_SECONDS)
            # Longer ones are an error for this package, and cut off by all others.
            return bcrypt.checkpw(password[:MAX_BYTES], hashed) if held else None
        finally:
            if held:
                self._one.release()

    def _remember(self, digest: bytes) -> None:
        while len(self._right) >= _MAX_REMEMBERED:
            del self._right[next(iter(self._right))]
        self._right[digest] = None

    def _digest(self, *parts: bytes) -> bytes:
        import hashlib  # noqa: PLC0415  # brings OpenSSL: only if there are passwords

        made = hashlib.blake2b(key=self._key, digest_size=32)
        for part in parts:
            made.update(len(part).to_bytes(8, "big") + part)
        return made.digest()


def _parse(field: str | None) -> _Credentials | None:
    """Return user and password of a field Authorization; None if it has none of the scheme Basic."""
    scheme, _, encoded = (field or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        decoded = binascii.a2b_base64(encoded.strip(), strict_mode=True)
    except ValueError:  # binascii.Error, and text that is not ASCII
        return None
    user, colon, password = decoded.partition(b":")
    return _Credentials(user, password) if colon else None
