from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from bts_exporter.collection import state_file
from bts_exporter.collection.state_file import FORMAT, StoredDocument, decode, encode
from bts_exporter.errors import StateError
from bts_exporter.stored_state import MAX_AGE_SECONDS, Clocks


def document(**changes: object) -> StoredDocument:
    """Return a document of the collector `redis`, saved now."""
    fresh = StoredDocument(FORMAT, "redis", 1, "server a", Clocks.now(), msgspec.Raw(b'{"n":1}'))
    return msgspec.structs.replace(fresh, **changes)


def aged(seconds: float) -> Clocks:
    """Return the clocks of `seconds` ago, before a reboot."""
    now = Clocks.now()
    return Clocks(now.wall - seconds, 5.0, 7.0, "another boot")


def test_written_document_is_read(tmp_path: Path) -> None:
    """A document comes back as it was written, from a file that only our user can read."""
    path, written = tmp_path / "redis.state", document()

    state_file.write(path, encode(written))

    content = state_file.read(path)
    assert content is not None
    assert decode(content, "redis", 1) == written
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_missing_file_is_not_an_error(tmp_path: Path) -> None:
    """The first start finds no file: there is no content, and no error."""
    assert state_file.read(tmp_path / "redis.state") is None


@pytest.mark.parametrize("cut", [0, 1, 30, -1, -9, -10])
def test_truncated_file_is_refused(cut: int) -> None:
    """A file that lacks its end, or everything, is damaged."""
    content = encode(document())

    with pytest.raises(StateError, match="damaged"):
        decode(content[:cut], "redis", 1)


def test_every_flipped_bit_is_noticed() -> None:
    """A file in which any one bit differs is refused: a wrong time would become a wrong lag."""
    content = encode(document())

    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1
        with pytest.raises(StateError):
            decode(bytes(changed), "redis", 1)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (lambda: document(format=FORMAT + 1), "another version: format 2, state 1"),
        (lambda: document(version=2), "another version: format 1, state 2"),
        (lambda: document(collector="rabbitmq"), "of the collector rabbitmq"),
        (lambda: document(saved=aged(MAX_AGE_SECONDS + 60)), "saved 24 h ago"),
        (lambda: document(saved=aged(-3600)), "s in the future"),
    ],
    ids=["format", "version", "collector", "old", "future"],
)
def test_document_of_another_history_is_refused(
    changed: Callable[[], StoredDocument], reason: str
) -> None:
    """A document of another version, collector or time is refused with the reason."""
    with pytest.raises(StateError, match=reason):
        decode(encode(changed()), "redis", 1)


def test_wall_clock_does_not_matter_within_one_boot() -> None:
    """A wall clock that was set back between save and restart does not make the file one of the future."""
    now = Clocks.now()
    saved = Clocks(now.wall + 7200, now.monotonic - 9, now.boottime - 9, now.boot_id)

    found = decode(encode(document(saved=saved)), "redis", 1)

    assert Clocks.now().since(found.saved) == pytest.approx(9, abs=5)


def make_link(path: Path) -> None:
    """Replace the file by a symbolic link to it."""
    path.replace(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def make_pipe(path: Path) -> None:
    """Replace the file by a named pipe, which would block a careless reader."""
    path.unlink()
    os.mkfifo(path)


def make_folder(path: Path) -> None:
    """Replace the file by a folder."""
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (make_link, "symbolic link"),
        (make_pipe, "not a regular file"),
        (make_folder, "not a regular file"),
        (lambda path: path.chmod(0o620), "writable by other users"),
        (lambda path: path.chmod(0o602), "writable by other users"),
        (lambda path: os.chown(path, 12345, -1), "belongs to user 12345"),
        (lambda path: os.truncate(path, state_file.MAX_BYTES + 1), "33554433|32 MiB"),
    ],
    ids=["link", "pipe", "folder", "group", "others", "owner", "size"],
)
def test_file_that_others_may_have_written_is_refused(
    tmp_path: Path, change: Callable[[Path], None], reason: str
) -> None:
    """A file that our user may not have written is refused with the reason, and without waiting."""
    path = tmp_path / "redis.state"
    state_file.write(path, encode(document()))
    if reason.startswith("belongs") and os.geteuid() != 0:
        pytest.skip("not everywhere: only root can give a file away")
    change(path)

    with pytest.raises(StateError, match=reason):
        state_file.read(path)


def test_state_beyond_the_limit_is_not_written() -> None:
    """A state that is larger than the limit is refused before it is written."""
    large = msgspec.Raw(b'"' + b"x" * state_file.MAX_BYTES + b'"')

    with pytest.raises(StateError, match="limit: 32 MiB"):
        encode(document(state=large))


@dataclass
class Disk:
    """A disk that is full after some bytes."""

    left: int

    def write(self, descriptor: int, data: memoryview) -> int:
        """Write what fits."""
        if self.left == 0:
            raise OSError(28, "No space left on device")
        part = bytes(data[: self.left])
        self.left -= len(part)
        return os.pwrite(descriptor, part, 0)


def test_full_disk_leaves_the_earlier_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails in the middle leaves the earlier file complete, and nothing else."""
    path = tmp_path / "redis.state"
    state_file.write(path, encode(document()))
    before = path.read_bytes()
    monkeypatch.setattr(state_file.os, "write", Disk(left=20).write)

    with pytest.raises(StateError, match="No space left"):
        state_file.write(path, encode(document(identity="server b")))

    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_rest_of_a_killed_process_is_replaced(tmp_path: Path) -> None:
    """The temporary file of a process that was killed, or a link in its place, does not prevent a write."""
    path, other = tmp_path / "redis.state", tmp_path / "other"
    (tmp_path / ".redis.state.tmp").symlink_to(other)

    state_file.write(path, encode(document()))

    assert state_file.read(path) is not None
    assert not other.exists()


def test_names_of_files_do_not_leave_the_folder() -> None:
    """A target's name of any characters and length becomes one name of a file, different for each."""
    targets = ["", "a", "../../etc/passwd", "a b", "ä" * 200, "ä" * 201]

    names = [state_file.file_name("redis", target) for target in targets]

    assert len(set(names)) == len(targets)
    assert all("/" not in name and len(name) < 200 for name in names)
    assert names[0] == "redis.state"
    assert names[1] == "redis@a.state"
