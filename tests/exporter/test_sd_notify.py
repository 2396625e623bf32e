from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bts_exporter import sd_notify


@pytest.fixture(params=["path", "abstract"])
def manager(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    """Return the socket of a service manager, a file or in the abstract namespace."""
    name = f"@bts-test-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(name.replace("@", "\0", 1))
        sock.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        yield sock


def test_notification(manager: socket.socket) -> None:
    """A notification is one datagram with a line for each value."""
    sd_notify.notify("READY=1", "STATUS=fine")

    assert manager.recv(4096) == b"READY=1\nSTATUS=fine"


def test_reloading(manager: socket.socket) -> None:
    """A reload is announced with its start time, which Type=notify-reload needs."""
    before = time.monotonic_ns() // 1000
    sd_notify.reloading()
    after = time.monotonic_ns() // 1000

    state, moment = manager.recv(4096).decode().split("\n")
    assert state == "RELOADING=1"
    assert moment.startswith("MONOTONIC_USEC=")
    assert before <= int(moment.partition("=")[2]) <= after


@pytest.mark.parametrize(
    "address", [None, "", "/nonexistent/socket", "relative", "@bts-nobody-listens"]
)
def test_notification_that_nobody_hears(
    address: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a manager, or with one that is gone, nothing happens."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)

    sd_notify.notify("READY=1")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "20000000"}, 10.0),
        ({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": "{pid}"}, 10.0),
        ({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
    ],
)
def test_watchdog(
    environment: dict[str, str], expected: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watchdog is fed twice per interval, if it is meant for this process."""
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value.format(pid=os.getpid()))

    assert sd_notify.watchdog_seconds() == expected


@pytest.mark.parametrize(
    ("pid", "fds"), [(None, None), (None, "1"), ("1", "1"), ("{pid}", None), ("{pid}", "0")]
)
def test_no_sockets_passed(
    pid: str | None, fds: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sockets for another process are not used."""
    for name, value in (("LISTEN_PID", pid), ("LISTEN_FDS", fds)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value.format(pid=os.getpid()))

    assert sd_notify.sockets() == []


def test_sockets_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every passed socket is used."""
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
    ):
        first = _two_in_a_row(one, two)
        monkeypatch.setattr(sd_notify, "_FIRST_FD", first)
        monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
        monkeypatch.setenv("LISTEN_FDS", "2")

        passed = sd_notify.sockets()

        assert [sock.getsockname() for sock in passed] == [one.getsockname(), two.getsockname()]
        for sock in passed:
            sock.close()


def _two_in_a_row(one: socket.socket, two: socket.socket) -> int:
    """Duplicate two sockets to neighbouring descriptors, and return the first."""
    first = max(map(int, os.listdir("/proc/self/fd"))) + 10  # noqa: PTH208
    os.dup2(one.fileno(), first)
    os.dup2(two.fileno(), first + 1)
    return first
