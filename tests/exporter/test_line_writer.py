from __future__ import annotations

import fcntl
import logging
import os
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from bts_exporter.line_writer import MAX_PENDING_BYTES, LineWriter
from interruptions import interruptions
from servers import wait_until


class Pipe:
    """A pipe that is read only on request."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        fcntl.fcntl(self.writing, fcntl.F_SETPIPE_SZ, 4096)

    def read(self, end: bytes) -> bytes:
        """Return the bytes until `end`."""
        data = b""
        while end not in data:
            data += os.read(self.reading, 65536)
        return data

    def close(self) -> None:
        """Close both ends."""
        for descriptor in {self.reading, self.writing} - {-1}:
            os.close(descriptor)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """Return a pipe that takes 4096 bytes."""
    made = Pipe()
    yield made
    made.close()


def record(text: str) -> logging.LogRecord:
    """Return a record whose line is `text`."""
    return logging.makeLogRecord({"msg": text, "levelname": "INFO"})


def writers() -> list[str]:
    """Return the names of the threads that wait for a reader."""
    return [thread.name for thread in threading.enumerate() if thread.name == "log-writer"]


def test_lines_are_written_at_once(pipe: Pipe) -> None:
    """If the reader keeps up, a line is written before `emit` returns, without a thread."""
    LineWriter(pipe.writing).handle(record("hello"))

    assert os.read(pipe.reading, 100) == b"hello\n"
    assert writers() == []


def test_interrupted_thread_leaves_no_lock() -> None:
    """A thread that is interrupted while it logs, at any point, does not keep others from logging."""
    with Path(os.devnull).open("wb") as sink:
        writer = LineWriter(sink.fileno())
        for point in interruptions(partial(writer.handle, record("a"))):
            other = threading.Thread(target=writer.handle, args=(record("b"),), daemon=True)
            other.start()
            other.join(60)
            assert not other.is_alive(), f"interrupted after {point} calls and returns"

    assert point > 10


@pytest.mark.parametrize("blocking", [True, False])
def test_full_pipe_is_not_waited_for(blocking: bool, pipe: Pipe) -> None:
    """Lines that the pipe cannot take are written, in order, when it is read."""
    os.set_blocking(pipe.writing, blocking)
    writer = LineWriter(pipe.writing)
    lines = [f"{i}".rjust(1000, "-") for i in range(20)]
    for line in lines:
        writer.handle(record(line))
    writer.handle(record("end"))

    assert pipe.read(b"end\n").decode().splitlines() == [*lines, "end"]
    wait_until(lambda: not writers(), "the thread ends")


def test_dropped_lines_are_counted(pipe: Pipe) -> None:
    """Beyond a limit lines are dropped, and a line has their number."""
    writer = LineWriter(pipe.writing)
    writer.setFormatter(Shown())
    count = 2 * MAX_PENDING_BYTES // 1001
    for i in range(count):
        writer.handle(record(f"{i}".rjust(1000, "-")))

    lines = pipe.read(b"dropped=").decode().splitlines()
    dropped = int(lines[-1].rpartition("=")[2])

    assert lines[-1].startswith("log lines were dropped")
    assert len(lines) - 1 + dropped == count
    assert dropped > count // 3


class Shown(logging.Formatter):
    """Shows the number of dropped lines."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the message and the number."""
        dropped = vars(record).get("dropped")
        return record.getMessage() + (f" dropped={dropped}" if dropped else "")


def test_reader_that_goes_away_is_no_error(pipe: Pipe, capfd: pytest.CaptureFixture[str]) -> None:
    """Without a reader lines are lost, and nothing is raised or printed."""
    writer = LineWriter(pipe.writing)
    os.close(pipe.reading)
    pipe.reading = -1
    for _ in range(100):
        writer.handle(record("x" * 1000))

    assert capfd.readouterr().err == ""


def test_record_that_cannot_be_formatted(pipe: Pipe) -> None:
    """An exception while a line is formatted loses only that line."""

    class Mute:
        def __str__(self) -> str:
            raise RuntimeError

    broken = record("%s")
    broken.args = (Mute(),)
    LineWriter(pipe.writing).handle(broken)

    assert os.read(pipe.reading, 100) == b"a log record has no text\n"
