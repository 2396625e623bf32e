from __future__ import annotations

import socket
import threading
from collections.abc import Sequence

import pytest
from hiredis import ReplyError

from bts_collectors.redis import discovery
from bts_collectors.redis.connection import Command, Connection
from bts_collectors.redis.discovery import Discovery, Names
from bts_exporter import TargetError, Url
from servers.redis import Listen


class Keyspace:
    """A server's side of SCAN: pages of names by pattern, and what it was asked."""

    def __init__(self, **pages: list[list[bytes]]) -> None:
        self.pages = pages
        self.asked: list[Command] = []

    def ask(self, commands: Sequence[Command]) -> list[object]:
        """Answer a SCAN with the page that its cursor names."""
        (command,) = commands
        self.asked.append(command)
        pages = self.pages[str(command[3])[0]]
        place = int(command[1])
        return [[str((place + 1) % len(pages)).encode(), pages[place]]]


def never() -> bool:
    """Return that there is time."""
    return False


def test_plain_names_need_no_walk() -> None:
    """Names without glob characters are known from the settings, each once."""
    names = Names(["b", "a", "b"])

    assert names.all() == [b"b", b"a"]
    assert not names.patterns
    assert not names.truncated


@pytest.mark.parametrize("pattern", ["a*", "a?", "a[bc]", "a\\*"])
def test_patterns_are_found_with_scan(pattern: str) -> None:
    """A name with a glob character is a pattern, and truncated until it is walked for."""
    space = Keyspace(a=[[b"a1", b"a2"], [b"a1"]])
    names = Names([pattern], "stream")
    assert names.truncated

    assert names.walk(space.ask, never)

    assert names.all() == [b"a1", b"a2"]
    assert not names.truncated
    match = ("MATCH", pattern, "COUNT", 500, "TYPE", "stream")
    assert space.asked == [("SCAN", b"0", *match), ("SCAN", b"1", *match)]


def test_a_walk_goes_on_where_it_was_stopped() -> None:
    """A walk that is over its time is resumed at the same cursor of the same pattern."""
    space = Keyspace(a=[[b"a1"], [b"a2"]], b=[[b"b1"], [b"b2"]])
    names = Names(["a*", "b*"])
    steps = iter([False, False, False, True])

    assert not names.walk(space.ask, lambda: next(steps))
    assert names.all() == [b"a1", b"a2", b"b1"]
    assert names.truncated
    assert names.walk(space.ask, never)

    assert names.all() == [b"a1", b"a2", b"b1", b"b2"]
    assert [command[1] for command in space.asked] == [b"0", b"1", b"0", b"1"]


def test_too_many_names_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit names are left out, which the collector can tell."""
    monkeypatch.setattr(discovery, "MOST_NAMES", 2)
    names = Names(["a*"])

    names.walk(Keyspace(a=[[b"a1", b"a2", b"a3"]]).ask, never)

    assert names.all() == [b"a1", b"a2"]
    assert names.truncated


def test_forgetting() -> None:
    """A name that was found is forgotten; one that the settings spell is not."""
    names = Names(["plain", "a*"])
    names.walk(Keyspace(a=[[b"a1"]]).ask, never)

    assert names.forget(b"a1")
    assert not names.forget(b"plain")
    assert names.all() == [b"plain"]


def scanning(redis_listener: Listen, reply: bytes) -> tuple[Connection, threading.Semaphore]:
    """Return a connection to a server with one answer to every SCAN, and a count of these."""
    scans = threading.Semaphore(0)

    def behave(connection: socket.socket) -> None:
        while message := connection.recv(65536):
            if b"SCAN" in message:
                connection.sendall(reply)
                scans.release()
            else:
                connection.sendall(b"+OK\r\n")

    return Connection(redis_listener(behave), None), scans


def test_a_refused_scan_is_remembered_as_the_error(redis_listener: Listen) -> None:
    """Where SCAN is not allowed the reason stays until a walk succeeds."""
    connection, _ = scanning(redis_listener, b"")
    finder = Discovery([Names(["a*"])], connection)

    finder.first(lambda _: [ReplyError("NOPERM no permissions to run the 'scan' command")], 1)

    assert isinstance(finder.error, TargetError)
    assert finder.error.reason == "noperm"


def test_the_first_walk_is_the_only_one_in_the_scrape() -> None:
    """Only once does a scrape wait for the key space."""
    space = Keyspace(a=[[b"a1"]])
    names = Names(["a*"])
    finder = Discovery([names], Connection(Url("redis", "example.net"), None))

    finder.first(space.ask, 1)
    finder.first(space.ask, 1)

    assert len(space.asked) == 1


def test_the_background_walk_finds_new_names(redis_listener: Listen) -> None:
    """When it is due a walk runs in a thread of its own and ends by itself."""
    connection, scans = scanning(redis_listener, b"*2\r\n$1\r\n0\r\n*1\r\n$2\r\na1\r\n")
    names = Names(["a*"])
    finder = Discovery([names], connection)

    finder.refresh()

    assert scans.acquire(timeout=20)
    finder._thread.join(20)  # type: ignore[union-attr]
    assert names.all() == [b"a1"]
    finder.refresh()
    assert not finder._thread.is_alive()  # type: ignore[union-attr]
    finder.stop()


def test_stop_ends_a_walk_that_never_would(redis_listener: Listen) -> None:
    """A key space without an end does not keep the collector from stopping."""
    connection, scans = scanning(redis_listener, b"*2\r\n$1\r\n7\r\n*0\r\n")
    finder = Discovery([Names(["a*"])], connection)
    finder.refresh()
    assert scans.acquire(timeout=20)

    finder.stop()

    assert not finder._thread.is_alive()  # type: ignore[union-attr]
    finder.refresh()
    assert not finder._thread.is_alive()  # type: ignore[union-attr]
