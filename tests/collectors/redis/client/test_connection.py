from __future__ import annotations

import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import pytest

from bts_collectors.redis.client.connection import Connection
from bts_collectors.redis.client.options import ConnectionOptions
from bts_exporter import Secret, TargetError, Url
from servers import free_port, wait_until
from servers.redis import Listen
from stubs import environment

Behave = Callable[[socket.socket], None]


def answering(*replies: bytes) -> Behave:
    """Return the behaviour of a server that gives each of `replies` to a message."""

    def behave(connection: socket.socket) -> None:
        for reply in replies:
            connection.recv(65536)
            connection.sendall(reply)

    return behave


def in_turns(*behaviours: Behave) -> Behave:
    """Return the behaviour of a server with one of `behaviours` for each connection."""
    rest = iter(behaviours)

    def behave(connection: socket.socket) -> None:
        next(rest)(connection)

    return behave


def dripping(connection: socket.socket) -> None:
    """Behave as a server that sends an endless answer, a byte now and then."""
    connection.recv(65536)
    connection.sendall(b"$1000000\r\n")
    pause = threading.Event()
    while not pause.wait(0.01):
        connection.sendall(b"x")


def silent(connection: socket.socket) -> None:
    """Behave as a server that accepts and never answers."""


def reason_and_text(connection: Connection, seconds: float = 20) -> tuple[str, str]:
    """Return the reason and the text of a failing request."""
    with pytest.raises(TargetError) as caught:
        connection.execute([("PING",)], monotonic() + seconds)
    return caught.value.reason, str(caught.value)


def test_replies_come_in_the_order_of_commands(redis_listener: Listen) -> None:
    """All commands are sent together, and a refused one is an error in its place."""
    url = redis_listener(answering(b"+OK\r\n", b":1\r\n-ERR no\r\n*2\r\n$2\r\n\xff\x00\r\n$-1\r\n"))
    connection = Connection(url)

    number, refused, array = connection.execute(
        [("A",), ("B",), ("C", b"\xff", 3)], monotonic() + 20
    )
    connection.close()

    assert (number, str(refused), array) == (1, "ERR no", [b"\xff\x00", None])


@pytest.mark.parametrize("behave", [silent, dripping])
def test_the_deadline_is_for_the_whole_answer(redis_listener: Listen, behave: Behave) -> None:
    """A server that never completes its reply is given up at the deadline, although it keeps sending."""
    reason, message = reason_and_text(Connection(redis_listener(behave)), seconds=0.2)

    assert reason == "timeout"
    assert "no reply in time" in message


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "protocol"),
        (b"-WRONGPASS invalid username-password pair or user is disabled.\r\n", "auth"),
        (b"-ERR AUTH <password> called without any password configured\r\n", "auth"),
        (b"-DENIED Redis is running in protected mode\r\n", "auth"),
        (b"-LOADING Redis is loading the dataset in memory\r\n", "loading"),
        (b"-ERR max number of clients reached\r\n", "unreachable"),
    ],
)
def test_what_a_server_says_to_a_login(redis_listener: Listen, reply: bytes, reason: str) -> None:
    """A refused login has the reason of the server's reply to AUTH."""
    assert (
        reason
        == reason_and_text(
            Connection(redis_listener(answering(reply)), ConnectionOptions(Secret("s3cret")))
        )[0]
    )


def test_a_failure_names_place_and_cure_but_no_secret() -> None:
    """An error names the address and the cure, and no password."""
    url = Url.from_setting(f"redis://user:hunter2@127.0.0.1:{free_port()}/1")

    reason, message = reason_and_text(Connection(url, ConnectionOptions(Secret("s3cret"))))

    advice = "is Redis running, and does it listen at this address and port?"
    assert ("refused", f"Redis at {url}: connection refused; {advice}") == (reason, message)


def test_hanging_up_is_unreachable(redis_listener: Listen) -> None:
    """A server that closes the connection in place of an answer is not reachable."""

    def hang_up(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.shutdown(socket.SHUT_RDWR)

    assert reason_and_text(Connection(redis_listener(hang_up)))[0] == "unreachable"


def test_a_missing_socket_is_refused(tmp_path: Path) -> None:
    """A missing unix socket has the same reason as a closed port."""
    connection = Connection(Url("unix", path=str(tmp_path / "redis.sock")))

    assert reason_and_text(connection)[0] == "refused"


def test_a_name_that_does_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that does not resolve has the reason `dns`."""

    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)

    assert reason_and_text(Connection(Url("redis", "nowhere.invalid")))[0] == "dns"


@pytest.mark.parametrize("host", [64 * "a" + ".invalid", "a\0b"])
def test_what_cannot_be_a_name(host: str) -> None:
    """An impossible name, which a server may announce, has the reason `dns`, too."""
    assert reason_and_text(Connection(Url("redis", host)))[0] == "dns"


def test_the_next_address_of_a_name_is_tried(
    redis_listener: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All addresses of a name are tried."""
    url = redis_listener(answering(b"+OK\r\n", b"+PONG\r\n"))
    ports = (free_port(), url.port)
    addresses = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", p)) for p in ports]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: addresses)
    connection = Connection(url)

    assert connection.execute([("PING",)], monotonic() + 20) == [b"PONG"]

    connection.close()


def test_commands_ahead_are_sent_before_the_replies_are_read(redis_listener: Listen) -> None:
    """Commands that are sent ahead reach the server before the replies to the previous ones are read, and only once."""
    got: list[bytes] = []

    def behave(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"+OK\r\n")
        heard = b""
        while heard.count(b"*1") < 2:
            heard += connection.recv(65536)
        got.append(heard)
        connection.sendall(b":1\r\n:2\r\n")
        got.append(connection.recv(65536))
        connection.sendall(b":3\r\n")

    connection = Connection(redis_listener(behave))
    first, then, last = [[(name,)] for name in ("A", "B", "C")]

    replies = [
        connection.execute(first, monotonic() + 20, then),
        connection.execute(then, monotonic() + 20),
        connection.execute(last, monotonic() + 20),
    ]
    connection.close()

    assert replies == [[1], [2], [3]]
    assert got == [b"*1\r\n$1\r\nA\r\n*1\r\n$1\r\nB\r\n", b"*1\r\n$1\r\nC\r\n"]


def test_commands_ahead_that_are_not_requested(redis_listener: Listen) -> None:
    """If the next request is another one, replies to the commands sent ahead are not mistaken for its replies."""
    two_replies = answering(b"+OK\r\n", b":1\r\n:2\r\n")
    url = redis_listener(in_turns(two_replies, answering(b"+OK\r\n", b":3\r\n")))
    connection = Connection(url)

    replies = [
        connection.execute([("A",)], monotonic() + 20, [("B",)]),
        connection.execute([("B",)], monotonic() + 20),
    ]
    connection.close()

    assert replies == [[1], [3]]


def test_commands_ahead_of_a_connection_that_broke(redis_listener: Listen) -> None:
    """Commands sent ahead over a connection that ends are sent again over the next one."""

    def breaking(connection: socket.socket) -> None:
        answering(b"+OK\r\n", b":1\r\n")(connection)
        connection.shutdown(socket.SHUT_RDWR)

    url = redis_listener(in_turns(breaking, answering(b"+OK\r\n", b":2\r\n")))
    connection = Connection(url)
    ahead: list[tuple[str]] = [("B",)]

    replies = [
        connection.execute([("A",)], monotonic() + 20, ahead),
        connection.execute(ahead, monotonic() + 20),
    ]
    connection.close()

    assert replies == [[1], [2]]


def test_a_connection_is_kept(redis_listener: Listen) -> None:
    """Further requests use the same connection, which is named once."""
    greetings = []

    def behave(connection: socket.socket) -> None:
        greetings.append(connection.recv(65536))
        connection.sendall(b"+OK\r\n")
        answering(b":1\r\n", b":2\r\n")(connection)

    connection = Connection(redis_listener(behave))

    assert connection.execute([("A",)], monotonic() + 20) == [1]
    assert connection.execute([("A",)], monotonic() + 20) == [2]
    connection.close()
    assert greetings == [b"*3\r\n$6\r\nCLIENT\r\n$7\r\nSETNAME\r\n$12\r\nbts-exporter\r\n"]


def test_a_connection_that_the_server_closed_is_replaced(redis_listener: Listen) -> None:
    """A connection closed while idle is noticed before it is used again."""
    closed = threading.Event()

    def behave(connection: socket.socket) -> None:
        answering(b"+OK\r\n", b":1\r\n")(connection)
        connection.shutdown(socket.SHUT_RDWR)
        closed.set()

    connection = Connection(redis_listener(behave))
    first = connection.execute([("A",)], monotonic() + 20)
    assert closed.wait(20)

    assert [1] == first == connection.execute([("A",)], monotonic() + 20)

    connection.close()


def test_abort_ends_a_wait_in_another_thread(redis_listener: Listen) -> None:
    """A running request fails as soon as the connection is aborted."""
    received = threading.Event()
    failures: list[str] = []

    def behave(connection: socket.socket) -> None:
        answering(b"+OK\r\n")(connection)
        connection.recv(65536)
        received.set()

    connection = Connection(redis_listener(behave))
    thread = threading.Thread(target=lambda: failures.append(reason_and_text(connection, 60)[0]))
    thread.start()
    assert received.wait(20)
    connection.abort()
    thread.join(20)

    assert failures == ["unreachable"]


def test_an_endless_answer_is_given_up(
    redis_listener: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reply that is too large for the memory is rejected before it is received."""
    monkeypatch.setattr("bts_collectors.redis.client.reply_guard.MOST_RECEIVED", 1000)
    url = redis_listener(answering(b"+OK\r\n", b"$5000\r\n" + 5000 * b"x" + b"\r\n"))

    assert reason_and_text(Connection(url))[0] == "protocol"


def test_nothing_is_opened_after_abort(redis_listener: Listen) -> None:
    """A request after an abort opens no connection."""
    connection = Connection(redis_listener(answering(b"+OK\r\n", b":1\r\n")))
    connection.abort()

    assert reason_and_text(connection)[0] == "unreachable"


def vanishing(greetings: list[bytes]) -> Behave:
    """Return the behaviour of a server whose first connection sends nothing after one reply."""

    def behave(connection: socket.socket) -> None:
        greetings.append(connection.recv(65536))
        connection.sendall(b"+OK\r\n")
        answering(*[b":%d\r\n" % len(greetings)])(connection)

    return behave


def test_a_kept_connection_that_went_silent(redis_listener: Listen) -> None:
    """If the other side of a kept connection is gone without notice, a new one gets half of the time."""
    greetings: list[bytes] = []
    connection = Connection(redis_listener(vanishing(greetings)))
    assert connection.execute([("A",)], monotonic() + 20) == [1]

    assert connection.execute([("A",)], monotonic() + 4) == [2]

    connection.close()


def test_a_kept_connection_that_is_reset(redis_listener: Listen) -> None:
    """A connection that turns out to be gone when it is used is replaced at once."""
    greetings: list[bytes] = []

    def behave(connection: socket.socket) -> None:
        vanishing(greetings)(connection)
        if len(greetings) == 1:
            connection.recv(65536)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()

    connection = Connection(redis_listener(behave))
    assert connection.execute([("A",)], monotonic() + 20) == [1]

    assert connection.execute([("A",)], monotonic() + 20) == [2]

    connection.close()


def test_a_slow_answer_is_waited_for(redis_listener: Listen) -> None:
    """A kept connection that has sent part of a reply is not replaced, because the server is working."""
    greetings: list[bytes] = []

    def behave(connection: socket.socket) -> None:
        vanishing(greetings)(connection)
        dripping(connection)

    connection = Connection(redis_listener(behave))
    assert connection.execute([("A",)], monotonic() + 20) == [1]

    assert reason_and_text(connection, seconds=0.5)[0] == "timeout"

    assert len(greetings) == 1


def test_a_fresh_connection_has_all_of_the_time(redis_listener: Listen) -> None:
    """The first reply may take longer than CLIENT SETNAME."""
    pause = threading.Event()

    def behave(connection: socket.socket) -> None:
        answering(b"+OK\r\n")(connection)
        connection.recv(65536)
        pause.wait(1.3)  # more than a quarter of the time
        connection.sendall(b":1\r\n")

    connection = Connection(redis_listener(behave))

    assert connection.execute([("A",)], monotonic() + 5) == [1]

    connection.close()


def test_a_server_that_does_not_read(redis_listener: Listen) -> None:
    """A server that stops receiving is given up at the deadline."""
    connection = Connection(redis_listener(answering(b"+OK\r\n")))

    with pytest.raises(TargetError) as caught:
        connection.execute([("A", 50_000_000 * b"x")], monotonic() + 0.5)

    assert caught.value.reason == "timeout"


@pytest.mark.parametrize("reply", [b"*2147483647\r\n", b"@5\r\n"], ids=["oversized", "invalid"])
def test_the_replies_in_front_of_a_bad_one(redis_listener: Listen, reply: bytes) -> None:
    """An oversized or invalid reply costs its own command; the replies in front of it are used."""
    url = redis_listener(answering(b"+OK\r\n", b":1\r\n" + reply))
    connection = Connection(url)

    first, second = connection.execute([("A",), ("B",)], monotonic() + 20)

    assert (first, second.error.reason) == (1, "protocol")


def test_a_connection_that_lost_its_login(redis_listener: Listen) -> None:
    """After NOAUTH on a kept connection, the next request logs in again: a token may have expired."""
    refusal = b"-NOAUTH Authentication required.\r\n"
    expired = answering(b"+OK\r\n", b"+OK\r\n", b":1\r\n", refusal, refusal)
    url = redis_listener(in_turns(expired, answering(b"+OK\r\n", b"+OK\r\n", b":2\r\n")))
    connection = Connection(url, ConnectionOptions(Secret("s3cret")))

    replies = [connection.execute([("A",)], monotonic() + 20)[0] for _ in range(3)]
    connection.close()

    assert [str(reply) for reply in replies] == ["1", "NOAUTH Authentication required.", "2"]


@pytest.fixture
def black_hole() -> Iterator[int]:
    """Give a port of 127.0.0.1 that neither accepts nor refuses a connection."""
    # A backlog of none that is full: the handshake of one more does not complete.
    full = socket.create_server(("127.0.0.1", 0), backlog=0)
    filling = [socket.socket() for _ in range(4)]
    for client in filling:
        client.setblocking(False)
        client.connect_ex(full.getsockname())
    yield full.getsockname()[1]
    for opened in (full, *filling):
        opened.close()


def test_an_address_that_swallows_everything(
    redis_listener: Listen, monkeypatch: pytest.MonkeyPatch, black_hole: int
) -> None:
    """An address of a name that never answers gets its share of the time, and the next one the rest."""
    url = redis_listener(answering(b"+OK\r\n", b"+PONG\r\n"))
    ports = (black_hole, url.port)
    addresses = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", p)) for p in ports]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: addresses)
    connection = Connection(url)

    assert connection.execute([("PING",)], monotonic() + 4) == [b"PONG"]

    connection.close()


def test_abort_ends_the_opening_of_a_connection(black_hole: int) -> None:
    """A connection that is being opened to an address that never answers ends when it is aborted."""
    connection = Connection(Url("redis", "127.0.0.1", black_hole))
    failures: list[str] = []
    thread = threading.Thread(
        target=lambda: failures.append(reason_and_text(connection, 600)[0]), daemon=True
    )
    thread.start()
    wait_until(lambda: connection._socket, "the connection is being opened")
    connection.abort()
    thread.join(60)

    assert failures == ["unreachable"]


def test_abort_ends_a_tls_handshake(redis_listener: Listen) -> None:
    """A handshake without a reply ends as soon as the connection is aborted."""
    begun = threading.Event()

    def behave(connection: socket.socket) -> None:
        connection.recv(65536)
        begun.set()

    url = redis_listener(behave)
    connection = Connection(Url("rediss", url.host, url.port))
    failures: list[str] = []
    thread = threading.Thread(target=lambda: failures.append(reason_and_text(connection, 60)[0]))
    thread.start()
    assert begun.wait(20)
    connection.abort()
    thread.join(20)

    assert len(failures) == 1


@pytest.mark.parametrize("configured", [True, False])
def test_redis_is_imported_only_when_configured(tmp_path: Path, configured: bool) -> None:
    """A process without a Redis collector does not import the redis package, which takes several MB."""
    file = tmp_path / "config.yaml"
    file.write_text(f"collectors:\n  {'redis' if configured else 'host'}:\n")
    command = [sys.executable, "-X", "importtime", "-m", "bts_exporter", "check"]

    done = subprocess.run(
        [*command, f"--config.file={file}"],
        env=environment(),
        check=False,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0
    # What `importlib` imports itself is not listed, as redis.connection, but what that imports.
    assert ("redis._parsers" in done.stderr) is configured
