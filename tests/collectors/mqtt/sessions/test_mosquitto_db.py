import io
import os
import struct
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bts_collectors.mqtt.sessions import mosquitto_db
from bts_collectors.mqtt.sessions.mosquitto_db import DamagedError, SavedQueue

HEAD = b"\x00\xb5\x00mosquitto db" + bytes(4)
V5, V6 = struct.pack(">I", 5), struct.pack(">I", 6)
QUEUED, WAIT_FOR_PUBACK, WAIT_FOR_PUBCOMP = 11, 3, 9
IN, OUT = 0, 1


def chunk(kind: int, body: bytes) -> bytes:
    """Return a chunk of the file."""
    return struct.pack(">II", kind, len(body)) + body


def client(name: bytes, user: bytes = b"", padding: int = 4) -> bytes:
    """Return a client in format 6; 32-bit Intel processors do not pad."""
    numbers = struct.pack(">qIHHHH", 0, 0xFFFFFFFF, 7, len(name), 1883, len(user))
    return chunk(6, numbers + bytes(padding) + name + user)


def client_5(name: bytes) -> bytes:
    """Return a client in format 5."""
    return chunk(6, struct.pack(">qIHH", 0, 0xFFFFFFFF, 7, len(name)) + name)


def message(name: bytes, state: int = QUEUED, way: int = OUT, more: bytes = b"") -> bytes:
    """Return a message for a client, optionally followed by MQTT 5 properties."""
    numbers = struct.pack("<Q", 5) + struct.pack(">HHBBBB", 1, len(name), 1, state, 0, way)
    return chunk(3, numbers + name + more)


def stored(payload: bytes) -> bytes:
    """Return a stored message, to which clients' messages refer."""
    return chunk(2, bytes(32) + b"bts/1/t" + payload)


def read(content: bytes) -> dict[str, SavedQueue]:
    """Return the queues in a file with this content."""
    return mosquitto_db.read(io.BytesIO(content), lambda: None).queues


def test_messages_are_counted_by_client() -> None:
    """Unsent messages are queued; unacknowledged ones are in flight."""
    content = HEAD + V6 + chunk(1, bytes(16)) + stored(b"20.5") * 3 + client(b"consumer")
    content += message(b"consumer") * 2 + message(b"consumer", WAIT_FOR_PUBACK)
    content += message(b"consumer", WAIT_FOR_PUBCOMP) + client(b"archive") + message(b"archive")

    assert read(content) == {"consumer": SavedQueue(2, 2), "archive": SavedQueue(1, 0)}


@pytest.mark.parametrize("state", [1, 2, 4])
def test_message_that_is_to_be_sent_when_its_client_is_back_is_queued(state: int) -> None:
    """A message that waits for its client is queued, although it is in the inflight list."""
    assert read(HEAD + V6 + message(b"c", state)) == {"c": SavedQueue(1, 0)}


def test_message_from_a_client_is_not_waiting_for_it() -> None:
    """Incoming messages with QoS 2 are not a backlog."""
    assert read(HEAD + V6 + client(b"c") + message(b"c", way=IN)) == {"c": SavedQueue(0, 0)}


def test_client_without_messages_has_a_queue_of_0() -> None:
    """A known client has a sample."""
    assert read(HEAD + V6 + client(b"idle")) == {"idle": SavedQueue(0, 0)}


def test_format_5_is_read() -> None:
    """Mosquitto 1.6 wrote no user names."""
    content = HEAD + V5 + client_5(b"consumer") + message(b"consumer")

    assert read(content) == {"consumer": SavedQueue(1, 0)}


@pytest.mark.parametrize("padding", [0, 4])
def test_user_and_padding_are_not_part_of_the_id(padding: int) -> None:
    """The position of the id depends on the machine that wrote the file."""
    assert read(HEAD + V6 + client(b"consumer", b"user", padding)) == {"consumer": SavedQueue(0, 0)}


def test_properties_after_the_id_are_not_part_of_it() -> None:
    """A subscription identifier follows the id."""
    assert read(HEAD + V6 + message(b"c", more=b"\x02\x0b\x05")) == {"c": SavedQueue(1, 0)}


def test_id_with_invalid_utf_8_is_shown() -> None:
    """Invalid bytes are replaced."""
    assert read(HEAD + V6 + client(b"c\xff")) == {"c\N{REPLACEMENT CHARACTER}": SavedQueue(0, 0)}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "not a persistence file of mosquitto"),
        (b"SQLite format 3\x00", "not a persistence file of mosquitto"),
        (HEAD[:15], "truncated at byte 15"),
        (HEAD + struct.pack(">I", 4), "mosquitto.db has format 4 (expected 5 or 6"),
        (HEAD + struct.pack(">I", 7), "mosquitto.db has format 7"),
        (HEAD + V6 + b"\x00\x00", "truncated at byte 23"),
        (HEAD + V6 + client(b"c")[:-1], "truncated at byte 31"),
        (HEAD + V6 + chunk(2, bytes(40))[:-1], "truncated at byte 31"),
        (HEAD + V6 + chunk(0, b""), "unknown chunk type 0"),
        (HEAD + V6 + chunk(7, b""), "unknown chunk type 7"),
        (HEAD + V6 + chunk(3, bytes(15)), "damaged at byte 31"),
        (HEAD + V6 + chunk(6, bytes(19)), "damaged at byte 31"),
        (HEAD + V6 + chunk(3, struct.pack(">8xHHBBBB", 1, 9, 1, 11, 0, 1)), "damaged at byte 31"),
        (HEAD + V6 + chunk(6, struct.pack(">8x4x2xHHH4x", 90, 0, 0)), "damaged at byte 31"),
        (HEAD + V5 + chunk(6, struct.pack(">8x4x2xH", 90)), "damaged at byte 31"),
        (HEAD + V6 + chunk(3, bytes(200_000)), "200000 bytes for one client"),
    ],
)
def test_damage_is_named_with_its_place(content: bytes, expected: str) -> None:
    """Other files, other versions, truncated and inconsistent files are refused."""
    with pytest.raises(DamagedError) as refusal:
        read(content)

    assert expected in str(refusal.value)


def test_number_of_clients_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file cannot fill the memory with clients."""
    monkeypatch.setattr(mosquitto_db, "MAX_CLIENTS", 2)

    with pytest.raises(DamagedError, match="more than 2 clients"):
        read(HEAD + V6 + client(b"a") + client(b"b") + client(b"c"))


def test_reading_ends_when_check_raises(give_up: Callable[[], None]) -> None:
    """The exception of `check` is passed on."""
    with pytest.raises(TimeoutError):
        mosquitto_db.read(io.BytesIO(HEAD + V6 + client(b"a")), give_up)


@pytest.fixture
def give_up() -> Callable[[], None]:
    """Return a check that raises."""

    def check() -> None:
        raise TimeoutError

    return check


def test_payloads_are_not_read() -> None:
    """A file with large messages needs no more memory than one with small messages."""

    class Stream(io.BytesIO):
        longest = 0

        def read(self, size: int | None = -1, /) -> bytes:
            self.longest = max(self.longest, size or 0)
            return super().read(size)

    stream = Stream(HEAD + V6 + stored(bytes(1_000_000)) + message(b"c"))

    assert mosquitto_db.read(stream, lambda: None).queues == {"c": SavedQueue(1, 0)}
    assert stream.longest < 100


WHOLE = HEAD + V6 + stored(b"1") + client(b"c", b"u") + message(b"c") + message(b"d", 3)


@given(st.binary(max_size=300), st.booleans(), st.booleans())
@example(b"", False, False)
def test_no_content_raises_an_unexpected_error(garbage: bytes, headed: bool, v6: bool) -> None:
    """Any content is parsed or damaged."""
    head = HEAD + (V6 if v6 else V5) if headed else b""
    try:
        found = read(head + garbage)
    except DamagedError:
        return

    assert all(waiting.queued >= 0 for waiting in found.values())


@given(st.data())
def test_no_changed_byte_raises_an_unexpected_error(data: st.DataObject) -> None:
    """Nor does a valid file that is truncated."""
    at = data.draw(st.integers(0, len(WHOLE) - 1))
    byte = data.draw(st.binary(min_size=0, max_size=1))
    try:
        found = read(WHOLE[:at] + byte + WHOLE[at + 1 :])
    except DamagedError:
        return

    assert sum(waiting.queued + waiting.in_flight for waiting in found.values()) <= 2


def test_file_that_shrinks_during_reading_is_truncated() -> None:
    """Mosquitto renames its files, but a backup program may overwrite them."""

    class Shrinking(io.BytesIO):
        def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
            if offset == len(HEAD + V6):
                self.truncate(offset + 12)
            return super().seek(offset, whence)

    with pytest.raises(DamagedError):
        mosquitto_db.read(Shrinking(WHOLE), lambda: None)


def kept(number: int, expiry: int) -> bytes:
    """Return a stored message with an expiry."""
    return chunk(2, struct.pack("=Qq", number, expiry) + bytes(16) + b"bts/1/t")


def test_messages_that_expire_are_in_the_queue_until_they_do() -> None:
    """Publishers set the expiry (MQTT 5); the broker removes expired messages later."""
    content = HEAD + V6 + kept(5, 2000) + client(b"c") + message(b"c") * 3
    waiting = read(content)["c"]

    assert [waiting.queued_at(now) for now in (1999.9, 2000, 3000)] == [3, 0, 0]


def test_message_that_was_sent_does_not_expire() -> None:
    """A sent message is in flight, even after its expiry."""
    content = (
        HEAD + V6 + kept(5, 2000) + message(b"c", WAIT_FOR_PUBACK) + kept(6, 9) + message(b"c")
    )
    waiting = read(content)["c"]

    assert (waiting.in_flight, waiting.queued_at(3000)) == (1, 0)


def test_long_ids_are_distinguished_but_not_kept() -> None:
    """Ids may have 64 kB; little memory is used for 100,000 of them."""
    names = [b"x" * 60_000 + bytes([65 + n]) for n in range(3)]
    found = read(HEAD + V6 + b"".join(client(name) + message(name) for name in names))

    assert len(found) == 3
    assert all(mosquitto_db.MAX_CLIENT_ID < len(name) < 200 for name in found)


def numbered(number: int) -> bytes:
    """Return a queued message of client c with this store id."""
    return chunk(
        3, struct.pack("=Q", number) + struct.pack(">HHBBBB", 1, 1, 1, QUEUED, 0, OUT) + b"c"
    )


def test_the_oldest_message_has_the_lowest_number() -> None:
    """Store ids rise as messages arrive; expired messages do not count, wherever they are in the queue."""
    content = HEAD + V6 + kept(3, 1000) + kept(4, 3000) + kept(7, 2000)
    content += b"".join(numbered(number) for number in (9, 7, 3, 8, 4))
    waiting = read(content)["c"]

    assert [waiting.oldest_at(now) for now in (999, 1000, 2500, 3000)] == [3, 4, 4, 8]
    assert SavedQueue().oldest_at(0) is None


def test_the_number_of_the_latest_message_is_read() -> None:
    """The file's first chunk has the store id of the latest message, also of one that was delivered."""
    config = chunk(1, struct.pack("=Q", 63) + bytes(8))

    assert mosquitto_db.read(io.BytesIO(HEAD + V6 + config), lambda: None).latest == 63
    assert mosquitto_db.read(io.BytesIO(HEAD + V6 + client(b"c")), lambda: None).latest is None


def test_messages_that_expire_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each one takes memory while the file is read."""
    monkeypatch.setattr(mosquitto_db, "MAX_EXPIRING", 2)
    with pytest.raises(DamagedError, match="more than 2 messages with an expiry"):
        read(HEAD + V6 + kept(1, 9) + kept(2, 9) + kept(3, 9))
