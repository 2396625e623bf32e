"""Batches that wait: their order, their bounds, and the folder that keeps them."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from bts_exporter.errors import PushError, StateError
from bts_exporter.push.buffer import Buffer
from bts_exporter.push.totals import PushTotals


def buffer(folder: Path | None = None, max_bytes: int = 1000, max_age: float = 60) -> Buffer:
    """Return a buffer, and forget its counts."""
    return Buffer(PushTotals(), max_bytes=max_bytes, max_age=max_age, folder=folder)


def drained(found: Buffer) -> list[bytes]:
    """Return the bodies, each acknowledged."""
    bodies = []
    while (batch := found.first()) is not None:
        bodies.append(batch.body())
        found.remove(batch)
    return bodies


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder for batches, not yet created."""
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    return state / "push" / "receiver"


def test_another_process_continues_with_what_was_not_acknowledged(folder: Path) -> None:
    """Batches in a folder outlive the process in their order; an acknowledged one is never sent again."""
    before = buffer(folder)
    for body in (b"one", b"two", b"three"):
        before.add(body, time.time())
    first = before.first()
    assert first is not None
    before.remove(first)
    before.close()

    after = buffer(folder)
    after.add(b"four", time.time())

    assert drained(after) == [b"two", b"three", b"four"]
    assert sorted(path.name for path in folder.iterdir()) == [".lock"]
    after.close()


@pytest.mark.parametrize("on_disk", [False, True])
def test_oldest_are_dropped_without_room(folder: Path, *, on_disk: bool) -> None:
    """The bytes that wait are bounded, on disk too; what is dropped is counted."""
    totals = PushTotals()
    found = Buffer(totals, max_bytes=20, max_age=60, folder=folder if on_disk else None)

    for number in range(5):
        found.add(b"%08d" % number, time.time())

    assert (totals.buffered_batches, totals.buffered_bytes) == (2, 16)
    assert totals.dropped == {"full": 3}
    assert drained(found) == [b"00000003", b"00000004"]
    assert totals.buffered_bytes == 0
    found.close()


def test_batch_that_is_being_sent_is_not_dropped() -> None:
    """The receiver may be about to acknowledge it: then it would be counted as dropped although it arrived."""
    found = buffer(max_bytes=2)
    found.add(b"aa", time.time())
    sending = found.first()

    found.add(b"bb", time.time())
    found.add(b"cc", time.time())

    assert found.first() is sending


def test_old_batches_are_dropped(folder: Path) -> None:
    """A batch that waited too long is dropped, also one of an earlier process."""
    before = buffer(folder)
    before.add(b"old", time.time() - 100)
    before.close()

    after = buffer(folder, max_age=50)
    after.add(b"new", time.time())

    assert drained(after) == [b"new"]
    after.close()


def test_damaged_file_is_recognized(folder: Path) -> None:
    """A file that was changed is not sent."""
    found = buffer(folder)
    found.add(b"one", time.time())
    (path,) = folder.glob("*.batch")
    path.write_bytes(b"two" + path.read_bytes()[3:])

    batch = found.first()

    assert batch is not None
    with pytest.raises(StateError, match="damaged"):
        batch.body()
    found.close()


def test_full_disk_keeps_batches_in_memory(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A batch that cannot be stored is sent all the same, and one log line has the reason."""
    found = buffer(folder)
    folder.chmod(0o700)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()

    found.add(b"one", time.time())
    found.add(b"two", time.time())

    assert drained(found) == [b"one", b"two"]
    assert len([r for r in caplog.records if "kept in memory" in r.getMessage()]) == 1
    found.close()


def test_two_processes_do_not_share_a_folder(folder: Path) -> None:
    """A second process would send everything twice: it is refused, with the cure."""
    found = buffer(folder)
    code = (
        "import sys; from pathlib import Path; from bts_exporter.push.buffer import Buffer;"
        "from bts_exporter.push.totals import PushTotals;"
        "Buffer(PushTotals(), max_bytes=1, max_age=1, folder=Path(sys.argv[1]))"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False
    )

    assert "another process pushes from it" in done.stderr
    found.close()


def test_missing_state_folder_is_an_error(tmp_path: Path) -> None:
    """The error names the folder and what to do."""
    with pytest.raises(PushError, match="create the folder that `state` names"):
        buffer(tmp_path / "missing" / "push" / "receiver")
