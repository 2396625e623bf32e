from __future__ import annotations

import socket
import threading

import pytest

from bts_exporter import AddressWatch
from servers import wait_until


def test_name_that_moves_is_noticed() -> None:
    """A connection to an address that the name no longer has is reported as moved."""
    addresses = {"10.0.0.1"}
    watch = AddressWatch("cache.example", interval_seconds=0, lookup=lambda _: set(addresses))

    first = watch.has_moved("10.0.0.1")
    addresses = {"10.0.0.2"}

    assert first is False
    wait_until(lambda: watch.has_moved("10.0.0.1"), "the name has moved")


def test_one_of_several_addresses_is_enough() -> None:
    """A connection to any address of the name stays."""
    looked_up = threading.Event()

    def lookup(_: str) -> set[str]:
        looked_up.set()
        return {"10.0.0.1", "10.0.0.2"}

    watch = AddressWatch("cache.example", interval_seconds=0, lookup=lookup)

    found = {watch.has_moved("10.0.0.2") for _ in range(3)}

    assert looked_up.wait(10)
    assert found | {watch.has_moved("10.0.0.2")} == {False}


def test_connection_made_since_is_not_judged_by_an_old_lookup() -> None:
    """After a reconnect the addresses of the former lookup do not count."""
    watch = AddressWatch("cache.example", interval_seconds=0, lookup=lambda _: {"10.0.0.2"})
    watch.has_moved("10.0.0.1")
    wait_until(lambda: watch.has_moved("10.0.0.1"), "the name has moved")

    assert watch.has_moved("10.0.0.3") is False


def test_lookup_that_hangs_delays_nothing() -> None:
    """While a lookup waits for its DNS server, the answer is that nothing has moved."""
    over = threading.Event()
    started: list[str] = []

    def lookup(host: str) -> set[str]:
        started.append(host)
        over.wait(60)
        return {"10.0.0.2"}

    watch = AddressWatch("cache.example", interval_seconds=0, lookup=lookup)
    try:
        found = [watch.has_moved("10.0.0.1") for _ in range(5)]
        wait_until(lambda: started, "the lookup has begun")
        found.append(watch.has_moved("10.0.0.1"))
    finally:
        over.set()

    assert found == [False] * 6
    assert started == ["cache.example"]


def test_name_that_does_not_resolve_now_keeps_the_connection() -> None:
    """A failed lookup does not report a move."""
    failed = threading.Event()

    def lookup(_: str) -> set[str]:
        failed.set()
        raise socket.gaierror(socket.EAI_AGAIN, "try again")

    watch = AddressWatch("cache.example", interval_seconds=0, lookup=lookup)
    watch.has_moved("10.0.0.1")
    watch.has_moved("10.0.0.1")

    assert failed.wait(10)
    assert watch.has_moved("10.0.0.1") is False


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "fe80::1%lo", ""])
def test_address_is_never_looked_up(host: str) -> None:
    """Addresses and unix sockets do not move."""
    watch = AddressWatch(host, interval_seconds=0, lookup=pytest.fail)

    assert [watch.has_moved("127.0.0.2") for _ in range(3)] == [False] * 3


def test_localhost_stays_where_it_is() -> None:
    """The system's own resolver finds the address that a connection to localhost has."""
    peer = socket.getaddrinfo("localhost", None, type=socket.SOCK_STREAM)[0][4][0]
    watch = AddressWatch("localhost", interval_seconds=0)

    for _ in range(3):
        assert watch.has_moved(str(peer)) is False
