from __future__ import annotations

from time import monotonic

from bts_collectors.redis.server import clients
from bts_exporter import Scrape

OLD = "id=7 addr=127.0.0.1:45174 fd=7 name=worker age=0 idle=0 flags=N db=0 cmd=get\n"
NEW = (
    "id=8 addr=127.0.0.1:45180 laddr=127.0.0.1:6379 fd=8 name=worker age=0 flags=N cmd=client|list"
    " user=app redir=-1 resp=2 lib-name=redis-py lib-ver=8.1.0 io-thread=0\n"
)


def emitted(listed: str) -> Scrape:
    """Return the samples of a reply of CLIENT LIST."""
    scrape = Scrape(monotonic() + 60)
    clients.emit(scrape, listed.encode())
    return scrape


def test_connections_are_counted_by_identity() -> None:
    """Connections with the same name, user and library are one series; older servers have fewer fields."""
    scrape = emitted(OLD + NEW + NEW)

    assert scrape.samples == {
        clients.CLIENTS: {("worker", "", ""): 1, ("worker", "app", "redis-py"): 2},
        clients.OTHERS: {(): 0},
    }


def test_rare_combinations_are_counted_together() -> None:
    """Clients that give themselves any number of names make a bounded number of series."""
    crowd = [OLD.replace("worker", f"w{number}") for number in range(clients.MOST + 9)]

    scrape = emitted("".join(crowd) + NEW * 2)

    assert len(scrape.samples[clients.CLIENTS]) == clients.MOST
    assert scrape.samples[clients.CLIENTS]["worker", "app", "redis-py"] == 2
    assert scrape.samples[clients.OTHERS] == {(): 10}


def test_rubbish_is_a_connection_without_a_name() -> None:
    """A line without known fields counts with empty labels; a reply that is not a text is skipped."""
    assert emitted("what\n").samples[clients.CLIENTS] == {("", "", ""): 1}
    scrape = Scrape(monotonic() + 60)
    clients.emit(scrape, None)
    assert scrape.samples == {}
