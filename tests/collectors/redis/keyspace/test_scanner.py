from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Sequence

import pytest
from hiredis import ReplyError

from bts_collectors.redis.client.connection import Command, Connection
from bts_collectors.redis.keyspace import scanner as module
from bts_collectors.redis.keyspace.scanner import KeyspaceScanner, Names
from bts_exporter import TargetError, Url
from servers.redis import Listen

REFUSAL = ReplyError("NOPERM this user has no permissions to run this command")


class Keyspace:
    """A key space for the scanner: pages of keys with their types. It records its requests."""

    def __init__(self, *pages: dict[bytes, object], host: str = "example.net") -> None:
        self.pages = pages
        self.url = Url("redis", host)
        self.requests: list[Command] = []
        self.closed = 0

    def execute(self, commands: Sequence[Command], deadline: float) -> list[object]:
        """Answer SCAN with the page that its cursor names, TYPE with the type of the key."""
        self.requests += commands
        return [self._answer(command) for command in commands]

    def _answer(self, command: Command) -> object:
        if command[0] == "TYPE":
            return next(page[command[1]] for page in self.pages if command[1] in page)  # type: ignore[index]
        place = int(command[1])
        following = str((place + 1) % len(self.pages)).encode()
        return [following, list(self.pages[place])]

    def close(self) -> None:
        """Count closed connections."""
        self.closed += 1

    def abort(self) -> None:
        """Do nothing."""


def walk(settings: Sequence[Names], *spaces: Keyspace) -> KeyspaceScanner:
    """Walk once through `spaces`."""
    scanner = KeyspaceScanner(settings, lambda: spaces)  # type: ignore[arg-type,return-value]
    scanner.wait_for_first_walk(20)
    return scanner


def again(scanner: KeyspaceScanner) -> None:
    """Start the next walk and wait for its end."""
    scanner.refresh()
    assert scanner._thread
    scanner._thread.join(20)


def test_plain_names_need_no_walk() -> None:
    """Names without glob characters are known from the settings, each once."""
    names = Names(["b", "a", "b"])
    space = Keyspace({})

    walk([names], space)

    assert names.all() == [b"b", b"a"]
    assert (names.patterns, names.truncated) == (False, False)
    assert space.requests == []


def test_patterns_of_one_type_are_the_servers_work() -> None:
    """For one pattern and one type, the server does all of the filtering."""
    space = Keyspace({b"a1": b"stream", b"a2": b"stream"}, {b"a1": b"stream"})
    names = Names(["a*"], "stream")
    assert names.truncated

    walk([names], space)

    assert names.all() == [b"a1", b"a2"]
    assert not names.truncated
    words = ("MATCH", b"a*", "COUNT", 500, "TYPE", b"stream")
    assert space.requests == [("SCAN", b"0", *words), ("SCAN", b"1", *words)]
    assert space.closed == 1


def test_one_walk_serves_all_settings() -> None:
    """Settings with different patterns and types share the SCANs; TYPE is sent for names that match."""
    space = Keyspace(
        {b"bts:1": b"stream", b"bts:2": b"list", b"jobs:1": b"list", b"jxxs:1": b"list"}
    )
    streams, lists, keys = (
        Names(["bts:*"], "stream"),
        Names(["bts:*", "jobs:*"], "list"),
        Names(["jobs:?"]),
    )

    walk([streams, lists, keys], space)

    assert streams.all() == [b"bts:1"]
    assert lists.all() == [b"bts:2", b"jobs:1"]
    assert keys.all() == [b"jobs:1"]
    assert [command[0] for command in space.requests] == ["SCAN", "TYPE", "TYPE", "TYPE"]
    assert space.requests[0][3] == b"[\\b\\j][\\o\\t][\\b\\s][\\:\\s]*"


def test_a_type_that_may_not_be_read() -> None:
    """A name whose type is refused is kept: reading its key reports the refusal."""
    names = Names(["a*"], "stream")

    walk([names, Names(["b*"])], Keyspace({b"a1": REFUSAL}))

    assert names.all() == [b"a1"]


@pytest.mark.parametrize(("budget", "amount"), [("KEYS_BUDGET", 1000), ("BUDGET_SECONDS", -1)])
def test_a_walk_goes_on_where_it_was_interrupted(
    budget: str, amount: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A walk that exceeds its budget continues at the same cursor of the same connection."""
    monkeypatch.setattr(module, budget, amount)
    spaces = Keyspace({b"a1": b""}, {b"a2": b""}), Keyspace({b"a3": b""}, host="other.net")
    names = Names(["a*"])
    scanner = walk([names], *spaces)
    first = len(spaces[0].requests)
    assert first == amount // 500 if budget == "KEYS_BUDGET" else first == 0
    assert names.truncated
    monkeypatch.undo()

    again(scanner)

    assert names.all() == [b"a1", b"a2", b"a3"]
    assert not names.truncated
    assert [command[1] for command in spaces[0].requests] == [b"0", b"1"]
    assert [command[1] for command in spaces[1].requests] == [b"0"]


def test_a_place_that_is_gone_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted walk ends without the nodes that left meanwhile."""
    monkeypatch.setattr(module, "KEYS_BUDGET", 1)
    spaces = [Keyspace({b"a1": b""}), Keyspace({b"a2": b""}, host="other.net")]
    names = Names(["a*"])
    scanner = KeyspaceScanner([names], lambda: spaces)  # type: ignore[arg-type,return-value]
    scanner.wait_for_first_walk(20)
    assert names.truncated
    del spaces[1]

    again(scanner)

    assert names.all() == [b"a1"]
    assert not names.truncated


def test_too_many_names_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names beyond the limit are left out; `truncated` says so until a walk finds fewer names."""
    monkeypatch.setattr(module, "MOST_NAMES", 2)
    monkeypatch.setattr(module, "INTERVAL_SECONDS", 0)
    space = Keyspace({b"a1": b"", b"a2": b"", b"a3": b""}, {})
    names = Names(["a*"])

    scanner = walk([names], space)

    assert names.all() == [b"a1", b"a2"]
    assert names.truncated
    names.forget(b"a1")
    space.pages = ({b"a3": b""},)
    again(scanner)
    assert names.all() == [b"a2", b"a3"]
    assert not names.truncated


def test_a_name_is_kept_for_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of a deleted key is kept for an hour, because Redis deletes keys that become empty."""
    monkeypatch.setattr(module, "INTERVAL_SECONDS", 0)
    now = 0.0
    monkeypatch.setattr(module, "monotonic", lambda: now)
    space = Keyspace({b"a1": b"", b"a2": b""})
    names = Names(["a*"])
    scanner = walk([names], space)
    space.pages = ({b"a2": b""},)

    now = module.KEPT_SECONDS
    again(scanner)
    kept = names.all()
    now = module.KEPT_SECONDS + 1
    again(scanner)

    assert (kept, names.all()) == ([b"a1", b"a2"], [b"a2"])


def test_forgetting() -> None:
    """A name that was found is forgotten; one that the settings spell is not."""
    names = Names(["plain", "a*"])
    names.add([b"a1"])

    assert names.forget(b"a1")
    assert not names.forget(b"plain")
    assert names.all() == [b"plain"]


def test_a_refused_scan_is_an_error_for_a_minute() -> None:
    """A denied SCAN is reported, and is not tried again in every scrape."""
    space = Keyspace({})
    space.execute = lambda _commands, _deadline: [REFUSAL]  # type: ignore[method-assign]
    scanner = walk([Names(["a*"])], space)
    assert scanner.error is not None
    assert scanner.error.reason == "noperm"
    assert "refused SCAN" in str(scanner.error)
    before = scanner._thread

    scanner.refresh()

    assert scanner._thread is before


def test_a_server_that_is_gone_is_tried_again() -> None:
    """The error of a walk is reported until a walk succeeds; it starts from the beginning again."""
    space = Keyspace({b"a1": b""}, {b"a2": b""})
    names = Names(["a*"])
    error = TargetError("unreachable", "gone")
    works = space.execute

    def breaks(commands: Sequence[Command], deadline: float) -> list[object]:
        if commands[0][1] == b"1":
            raise error
        return works(commands, deadline)

    space.execute = breaks  # type: ignore[method-assign]
    scanner = walk([names], space)
    assert str(scanner.error) == str(error)
    space.execute = works  # type: ignore[method-assign]

    again(scanner)

    assert scanner.error is None
    assert [command[1] for command in space.requests] == [b"0", b"0", b"1"]


def test_the_first_walk_is_the_only_one_in_a_scrape() -> None:
    """Only the first scrape waits for a walk."""
    space = Keyspace({b"a1": b""})
    scanner = walk([Names(["a*"])], space)

    scanner.wait_for_first_walk(20)

    assert len(space.requests) == 1


def scanning(
    redis_listener: Listen, reply: bytes
) -> tuple[Callable[[], list[Connection]], threading.Semaphore]:
    """Return a function that connects to a server with one reply to every SCAN, and the number of SCANs."""
    scans = threading.Semaphore(0)

    def behave(connection: socket.socket) -> None:
        while message := connection.recv(65536):
            # Everything else that a connection begins with is granted.
            for word in re.findall(rb"\*\d+\r\n\$\d+\r\n(\w+)", message):
                connection.sendall(reply if word == b"SCAN" else b"+OK\r\n")
                if word == b"SCAN":
                    scans.release()

    url = redis_listener(behave)
    return lambda: [Connection(url)], scans


def test_a_walk_runs_in_the_background(redis_listener: Listen) -> None:
    """A walk that is due runs in a separate thread, over a separate connection."""
    places, scans = scanning(redis_listener, b"*2\r\n$1\r\n0\r\n*1\r\n$2\r\na1\r\n")
    names = Names(["a*"])
    scanner = KeyspaceScanner([names], places)

    scanner.refresh()

    assert scans.acquire(timeout=20)
    assert scanner._thread
    scanner._thread.join(20)
    assert names.all() == [b"a1"]
    scanner.refresh()
    assert not scanner._thread.is_alive()
    scanner.stop()


def test_stop_ends_a_walk_that_never_would(redis_listener: Listen) -> None:
    """The collector stops although a walk has no end."""
    places, scans = scanning(redis_listener, b"*2\r\n$1\r\n7\r\n*0\r\n")
    scanner = KeyspaceScanner([Names(["a*"])], places)
    scanner.refresh()
    assert scans.acquire(timeout=20)

    scanner.stop()

    assert scanner._thread
    assert not scanner._thread.is_alive()
    scanner.refresh()
    assert not scanner._thread.is_alive()
