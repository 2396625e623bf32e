"""Log lines to a pipe, file or terminal, without waiting for the reader."""

from __future__ import annotations

import errno
import logging
import os
import select
import threading
from collections import deque

#: Bytes of lines that are kept while the reader does not read; what comes then is dropped.
MAX_PENDING_BYTES = 256 * 1024
#: A pipe that is ready for writing takes so many bytes at once (Linux: one page).
_CHUNK_BYTES = 4096
#: Errors of a file whose disk has no room.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
#: Seconds that lines may take at the end of the process to reach a reader that is slow.
_FLUSH_SECONDS = 0.2


class LineWriter(logging.Handler):
    """Writes log lines to a file descriptor; those that it cannot take yet are kept for a thread."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        # Of the thread, which is there only while the reader does not keep up.
        # A garbage collection in here may log an error, too.
        self._guard = threading.RLock()
        self._pending: deque[bytes] = deque()
        self._pending_bytes = 0
        self._dropped = 0
        self._idle = threading.Event()
        self._idle.set()

    def createLock(self) -> None:  # noqa: N802  # the name in `logging`
        """Use no lock but `_guard`: a plug-in may interrupt the thread that logs.

        `Handler.handle` takes its lock before its `try`. A thread that is interrupted in between keeps
        the lock, and no other thread could log any more. A `with` statement has no such gap.
        """
        self.lock = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line or keep it for later; with too many kept, drop and count it."""
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001  # the text of an argument that is a plug-in's object
            line = self._warning("a log record has no text", logger=record.name)
        data = f"{line}\n".encode("utf-8", "backslashreplace")
        with self._guard:
            if self._idle.is_set():
                data = self._write_what_fits(self._with_number_of_dropped(data))
            if data:
                self._keep(data)

    def _with_number_of_dropped(self, data: bytes) -> bytes:
        """Return `data` behind a warning, if lines were dropped and the disk has room again."""
        if not self._dropped or not self._poll.poll(0):
            return data
        missing, self._dropped = self._dropped, 0
        rest = self._write(self._warning_of(missing))
        if self._dropped:  # still full
            self._dropped = missing
        return rest + data

    def flush(self) -> None:
        """Give the lines that are kept a moment to be written."""
        self._idle.wait(_FLUSH_SECONDS)

    def _write_what_fits(self, data: bytes) -> bytes:
        """Write as much of `data` as can be written without waiting; return the rest."""
        while data and self._poll.poll(0):
            rest = self._write(data)
            if rest == data:
                break
            data = rest
        return data

    def _write(self, data: bytes) -> bytes:
        """Write the beginning of `data`; return the rest, of which nothing is left if it is dropped."""
        try:
            return data[os.write(self._descriptor, data[:_CHUNK_BYTES]) :]
        except BlockingIOError:  # the parent process made it non-blocking
            return data
        except OSError as error:
            self._dropped += error.errno in _FULL
            return b""  # the reader is gone, or the disk is full

    def _keep(self, data: bytes) -> None:
        if self._pending_bytes + len(data) > MAX_PENDING_BYTES:
            self._dropped += 1
            return
        self._pending.append(data)
        self._pending_bytes += len(data)
        if self._idle.is_set() and self._start_thread():
            self._idle.clear()

    def _start_thread(self) -> bool:
        """Start the thread that waits for the reader; False where the system has none left."""
        thread = threading.Thread(target=self._write_pending, name="log-writer", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            self._pending.clear()
            self._pending_bytes = 0
            self._dropped += 1
            return False
        return True

    def _write_pending(self) -> None:
        while data := self._next():
            while data:
                self._poll.poll()
                data = self._write(data)

    def _next(self) -> bytes:
        """Return the next line; empty when all is written."""
        with self._guard:
            if self._pending:
                data = self._pending.popleft()
                self._pending_bytes -= len(data)
                return data
            if self._dropped:
                data = self._warning_of(self._dropped)
                self._dropped = 0
                return data
            self._idle.set()
            return b""

    def _warning_of(self, dropped: int) -> bytes:
        text = "log lines were dropped: standard error was not read, or the disk was full"
        return f"{self._warning(text, dropped=dropped)}\n".encode()

    def _warning(self, message: str, **details: object) -> str:
        level = {"levelno": logging.WARNING, "levelname": "WARNING"}
        return self.format(logging.makeLogRecord({"msg": message, **level, **details}))
