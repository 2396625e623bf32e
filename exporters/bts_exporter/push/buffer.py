"""Batches that wait for the receiver: in order, bounded, in memory or in a folder."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import threading
import time
import zlib
from collections import deque
from pathlib import Path

from bts_exporter.collection import state_file
from bts_exporter.errors import PushError, StateError
from bts_exporter.push.totals import DropReason, PushTotals

log = logging.getLogger("bts_exporter.push.buffer")

#: Number and creation time in milliseconds.
_NAME = re.compile(r"(\d{12})-(\d{1,15})\.batch")
_LOCK_NAME = ".lock"


class Batch:
    """The content of one request, and when it was collected."""

    def __init__(self, created: float, size: int, body: bytes | None, path: Path | None) -> None:
        """Take the body, or the file that has it."""
        self.created = created
        self.size = size
        self._body = body
        self.path = path

    def body(self) -> bytes:
        """Return the content; StateError if its file is damaged."""
        if self._body is not None:
            return self._body
        content = state_file.read(self.path) if self.path is not None else None
        if content is None:
            message = "it was deleted"
            raise StateError(message)
        body, checksum = content[:-4], content[-4:]
        if zlib.crc32(body).to_bytes(4) != checksum:
            message = "it is damaged: the checksum is wrong"
            raise StateError(message)
        return body

    def forget(self) -> None:
        """Delete its file."""
        if self.path is not None:
            try:
                self.path.unlink(missing_ok=True)
            except OSError as error:
                log.warning("%s is not deleted: %s", self.path, error.strerror)


class Buffer:
    """Batches from the oldest to the newest, each until it is acknowledged or dropped; for any thread."""

    def __init__(
        self,
        totals: PushTotals,
        *,
        max_bytes: int,
        max_age: float,
        folder: Path | None = None,
        only_latest: bool = False,
    ) -> None:
        """Begin with the batches in `folder`; without one they are kept in memory.

        PushError if the folder cannot be used. With `only_latest` a batch replaces those that wait.
        """
        self._totals = totals
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._folder = folder
        self._only_latest = only_latest
        self._waiting: deque[Batch] = deque()
        self._in_flight: Batch | None = None
        self._next = 0
        self._lock = threading.Lock()
        self._problem = ""
        self._dropping = False
        self._lock_file: int | None = None
        if folder is not None:
            self._lock_file = _locked(folder)
            self._find(folder)
            self._count()

    def add(self, body: bytes, created: float) -> None:
        """Append a batch; the oldest are dropped if they do not fit."""
        batch = self._stored(body, created)
        with self._lock:
            if self._only_latest:
                self._waiting = deque(b for b in self._waiting if b is self._in_flight)
            self._waiting.append(batch)
            dropped = self._drop_old() + self._drop_most()
            self._dropping = self._dropping and bool(self._waiting)
            self._count()
        for old in dropped:
            old.forget()

    def first(self) -> Batch | None:
        """Return the oldest batch, to be sent; None if there is none."""
        with self._lock:
            dropped = self._drop_old()
            self._in_flight = self._waiting[0] if self._waiting else None
            self._count()
            found = self._in_flight
        for old in dropped:
            old.forget()
        return found

    def release(self) -> None:
        """Note that the batch of `first` was not acknowledged."""
        with self._lock:
            self._in_flight = None

    def remove(self, batch: Batch, dropped: DropReason | None = None) -> None:
        """Remove a batch that was acknowledged, or that is dropped for a reason."""
        # First the file: after a crash an acknowledged batch must not be there.
        batch.forget()
        with self._lock:
            self._in_flight = None
            if batch in self._waiting:
                self._waiting.remove(batch)
            if dropped:
                self._totals.dropped[dropped] += 1
            if not self._waiting:
                self._dropping = False
            self._count()

    def close(self) -> None:
        """Let another process use the folder."""
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    def __len__(self) -> int:
        return len(self._waiting)

    def _stored(self, body: bytes, created: float) -> Batch:
        """Return a batch whose body is in a file if possible."""
        size = len(body)
        if self._folder is None or self._only_latest:
            return Batch(created, size, body, None)
        path = self._folder / f"{self._next:012d}-{int(created * 1000)}.batch"
        self._next += 1
        try:
            state_file.write(path, body + zlib.crc32(body).to_bytes(4))
        except StateError as error:
            self._report(f"batches are kept in memory, and a restart would lose them: {error}")
            return Batch(created, size, body, None)
        self._report("")
        return Batch(created, size, None, path)

    def _report(self, problem: str) -> None:
        """Log that the folder cannot be used, or that it can be used again."""
        if problem != self._problem:
            self._problem = problem
            log.warning("%s: %s", self._folder, problem or "batches are stored again")

    def _find(self, folder: Path) -> None:
        for path in sorted(folder.iterdir()):
            if found := _NAME.fullmatch(path.name):
                size = max(path.stat().st_size - 4, 0)
                self._waiting.append(Batch(int(found[2]) / 1000, size, None, path))
                self._next = int(found[1]) + 1
        if self._waiting:
            log.info("batches of an earlier process wait", extra={"batches": len(self._waiting)})

    def _drop_old(self) -> list[Batch]:
        """Remove the batches that are too old; return them."""
        limit = time.time() - self._max_age
        old = [b for b in self._waiting if b.created < limit and b is not self._in_flight]
        return self._drop(old, "old")

    def _drop_most(self) -> list[Batch]:
        """Remove the oldest batches that have no room; return them."""
        excess = sum(batch.size for batch in self._waiting) - self._max_bytes
        found = []
        for batch in self._waiting:
            if excess <= 0:
                break
            if batch is not self._in_flight:
                found.append(batch)
                excess -= batch.size
        return self._drop(found, "full")

    def _drop(self, batches: list[Batch], reason: DropReason) -> list[Batch]:
        if batches:
            self._waiting = deque(b for b in self._waiting if b not in batches)
            self._totals.dropped[reason] += len(batches)
            if not self._dropping:
                self._dropping = True
                log.warning(
                    "the receiver is down for too long: the oldest batches are dropped",
                    extra={"reason": reason, "waiting": len(self._waiting)},
                )
        return batches

    def _count(self) -> None:
        self._totals.buffered_batches = len(self._waiting)
        self._totals.buffered_bytes = sum(batch.size for batch in self._waiting)


def _locked(folder: Path) -> int:
    """Create the folder if it is missing, and lock it for this process; PushError if that is impossible."""
    try:
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(folder / _LOCK_NAME, flags, 0o600)
    except OSError as error:
        msg = f"{folder}: {error.strerror}: create the folder that `state` names for the user that pushes, mode 0700"
        raise PushError(msg) from error
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        msg = (
            f"{folder}: another process pushes from it: end it, or give each its own `state` folder"
        )
        raise PushError(msg) from error
    return descriptor
