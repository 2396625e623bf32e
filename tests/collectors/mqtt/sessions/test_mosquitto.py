import os
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bts_collectors.mqtt.sessions import mosquitto, mosquitto_db
from bts_collectors.mqtt.sessions.mosquitto import PersistenceConfig, SavedSessions
from bts_exporter import Duration, Scrape, TargetError, backlog

HEAD = b"\x00\xb5\x00mosquitto db" + bytes(4) + struct.pack(">I", 6)
MESSAGE = struct.pack(">8xHHBBBB", 1, 8, 1, 11, 0, 1) + b"consumer"
CHUNK = struct.pack(">II", 3, len(MESSAGE)) + MESSAGE

Write = Callable[[int], Path]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return the name of the file."""
    return tmp_path / "mosquitto.db"


@pytest.fixture
def write(file: Path) -> Write:
    """Return a function that saves messages as mosquitto does: into a new file, which is renamed."""

    def save(count: int) -> Path:
        new = file.with_suffix(".new")
        new.write_bytes(HEAD + CHUNK * count)
        return new.rename(file)

    return save


def look(sessions: SavedSessions) -> Scrape:
    """Return a scrape with the emitted samples; errors are passed on."""
    scrape = Scrape(time.monotonic() + 30)
    sessions.emit(scrape)
    return scrape


def refusal(sessions: SavedSessions) -> tuple[str, str]:
    """Return reason and message of an error, without the path."""
    scrape = Scrape(time.monotonic() + 30)
    with pytest.raises(TargetError) as failure:
        sessions.emit(scrape)
    return failure.value.reason, str(failure.value).partition(": ")[2]


def queued(scrape: Scrape) -> dict[tuple[str, ...], float]:
    """Return the queues that a scrape shows."""
    return scrape.samples[mosquitto.QUEUED]


def test_queues_and_when_they_were_saved_are_shown(file: Path, write: Write) -> None:
    """The file's modification time is the age of the queues."""
    write(3)
    os.utime(file, (time.time(), time.time() - 60))
    scrape = look(SavedSessions(PersistenceConfig(file=str(file))))

    assert queued(scrape) == {("consumer",): 3}
    assert scrape.samples[mosquitto.SAVED] == {(): file.stat().st_mtime}


def test_unchanged_file_is_read_once(
    file: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scrape does not read the file until the broker saves again."""
    write(3)
    sessions = SavedSessions(PersistenceConfig(file=str(file)))
    look(sessions)
    monkeypatch.setattr(mosquitto_db, "read", None)

    assert queued(look(sessions)) == {("consumer",): 3}


def test_changed_file_is_read_again(file: Path, write: Write) -> None:
    """The broker replaces the file."""
    write(3)
    sessions = SavedSessions(PersistenceConfig(file=str(file)))
    look(sessions)
    write(5)

    assert queued(look(sessions)) == {("consumer",): 5}


def test_damaged_file_is_reported_until_it_is_complete(file: Path, write: Write) -> None:
    """Earlier queues are not emitted for it; a valid file restores them."""
    write(3)
    sessions = SavedSessions(PersistenceConfig(file=str(file)))
    look(sessions)
    file.write_bytes(HEAD + CHUNK[:-2])
    damaged = [refusal(sessions), refusal(sessions)]
    write(4)

    assert (
        damaged == [("protocol", "truncated at byte 31; is it mosquitto's persistence_file?")] * 2
    )
    assert queued(look(sessions)) == {("consumer",): 4}


def test_old_file_is_not_shown(file: Path, write: Write) -> None:
    """A broker that no longer saves has no frozen queues; the time of the last save remains."""
    write(3)
    os.utime(file, (time.time(), time.time() - 90))
    sessions = SavedSessions(PersistenceConfig(file=str(file), stale_after=Duration(60)))
    scrape = Scrape(time.monotonic() + 30)
    with pytest.raises(TargetError) as failure:
        sessions.emit(scrape)

    assert failure.value.reason == "timeout"
    assert "persistence.stale_after" in str(failure.value)
    assert set(scrape.samples) == {mosquitto.SAVED}


def test_missing_file_is_named_with_the_cure(file: Path) -> None:
    """Mosquitto's persistence is off by default."""
    reason, message = refusal(SavedSessions(PersistenceConfig(file=str(file))))

    assert reason == "os"
    assert "persistence true" in message


@pytest.mark.parametrize("kind", ["folder", "pipe", "device"])
def test_special_file_is_not_read(file: Path, kind: str) -> None:
    """A pipe does not block, and a device is not read endlessly."""
    match kind:
        case "folder":
            file.mkdir()
        case "pipe":
            os.mkfifo(file)
        case _:
            file.symlink_to("/dev/zero")

    sessions = SavedSessions(PersistenceConfig(file=str(file)))
    before = len(list(Path("/proc/self/fd").iterdir()))
    reasons = {refusal(sessions)[0] for _ in range(5)}

    assert reasons <= {"os", "protocol"}
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_file_of_another_user_is_noperm(
    file: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message refers to the documentation."""

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    write(1)
    monkeypatch.setattr(mosquitto, "_open", refuse)
    reason, message = refusal(SavedSessions(PersistenceConfig(file=str(file))))

    assert reason == "noperm"
    assert "docs/collectors/mqtt.md" in message


def test_reading_a_file_ends_at_the_deadline(file: Path, write: Write) -> None:
    """The message names the settings for more time."""
    write(10)
    sessions = SavedSessions(PersistenceConfig(file=str(file)))
    with pytest.raises(TargetError) as failure:
        sessions._refresh(timeout_seconds=-1)

    assert failure.value.reason == "timeout"
    assert "`interval`" in str(failure.value)
    assert queued(look(sessions)) == {("consumer",): 10}


@pytest.mark.parametrize(("most", "expected"), [(100, 100), (0, None), (None, None)])
def test_the_limit_is_that_of_the_settings(
    file: Path, write: Write, most: int | None, expected: int | None
) -> None:
    """The file does not contain max_queued_messages; 0 is no limit."""
    write(3)
    sessions = SavedSessions(PersistenceConfig(file=str(file), max_queued_messages=most))

    limits = look(sessions).samples.get(backlog.LIMIT)

    assert limits == (expected and {("mqtt", "", "consumer"): expected})


def test_a_negative_limit_is_refused() -> None:
    """The message names the setting and the value."""
    with pytest.raises(ValueError, match="max_queued_messages: must not be negative, got -1"):
        PersistenceConfig(max_queued_messages=-1)
