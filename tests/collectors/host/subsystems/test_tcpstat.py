from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bts_collectors.host.subsystems.tcpstat import Tcpstat, parse
from bts_exporter import NotPresent, TargetError
from bts_exporter.testing import collect

SOCKET, ERROR, DONE = 20, 2, 3
ESTABLISHED, TIME_WAIT, LISTEN, NEW_SYN_RECV = 1, 6, 10, 12

#: Makes sockets in known states, in a network namespace, and prints the collected samples.
SCENE = """
import fcntl, json, socket, struct
from bts_collectors.host.subsystems.tcpstat import Tcpstat
from bts_exporter.testing import collect
from servers import wait_until

def found():
    samples = collect(Tcpstat(Tcpstat.Config()))["node_tcp_connection_states"]
    return {state: value for (state,), value in samples.items()}

with socket.socket() as probe:  # ip link set lo up
    fcntl.ioctl(probe, 0x8914, struct.pack("16sh14x", b"lo", 1))
# Nothing is open in a network that is new.
before = found()

listener = socket.create_server(("127.0.0.1", 0), backlog=77)
listener6 = socket.create_server(("::1", 0), family=socket.AF_INET6) if socket.has_ipv6 else None

def pair():
    client = socket.create_connection(listener.getsockname())
    return client, listener.accept()[0]

open_pair, half_closed, closed = pair(), pair(), pair()
not_accepted = socket.create_connection(listener.getsockname())
open_pair[0].sendall(b"x" * 1000)
open_pair[1].recv(1, socket.MSG_PEEK)
half_closed[0].shutdown(socket.SHUT_WR)
half_closed[1].recv(1)
closed[0].close()
closed[1].recv(1)
closed[1].close()

wait_until(lambda: not found()["tx_queued_bytes"], "all is acknowledged")
print(json.dumps([before, found(), listener6 is not None]))
"""


def message(kind: int, body: bytes) -> bytes:
    """Return a netlink message."""
    return struct.pack("=LHHLL", 16 + len(body), kind, 2, 1, 0) + body


def tcp(state: int, received: int = 0, sent: int = 0) -> bytes:
    """Return the message for a socket."""
    return message(
        SOCKET, struct.pack("=BBBB48xLLLLL", 2, state, 0, 0, 0, received, sent, 0, 7) + b"\0" * 4
    )


def end(code: int = 0) -> bytes:
    """Return the message that ends a reply."""
    return message(DONE, struct.pack("=i", code))


class Kernel:
    """A netlink socket that sends the same messages as the reply to each request."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = answers
        self.waiting: list[bytes] = []
        self.timeout = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.waiting.clear()

    def settimeout(self, seconds: float) -> None:
        """Record the timeout."""
        self.timeout = seconds

    def send(self, question: bytes) -> int:
        """Take a request."""
        self.waiting = list(self.answers)
        return len(question)

    def recv(self, size: int) -> bytes:
        """Return the next message of the reply; there is none after the last."""
        if not self.waiting:
            raise TimeoutError
        return self.waiting.pop(0)


def states(monkeypatch: pytest.MonkeyPatch, *answers: bytes) -> dict[str, float]:
    """Return the values by state, without zeros, if the kernel sends `answers`."""
    kernel = Kernel(*answers)
    monkeypatch.setattr(socket, "socket", lambda *args: kernel)
    samples = collect(Tcpstat(Tcpstat.Config()))["node_tcp_connection_states"]
    assert len(samples) == 13
    assert 0 < kernel.timeout <= 10
    return {state: value for (state,), value in samples.items() if value}


def test_states_and_queues(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets are counted by state, and the bytes in their queues summed."""
    found = states(
        monkeypatch,
        tcp(ESTABLISHED, 10, 1) + tcp(ESTABLISHED, 5),
        tcp(TIME_WAIT) + tcp(NEW_SYN_RECV) + end(),
    )

    assert found == {
        "established": 2,
        "time_wait": 1,
        "syn_recv": 1,
        "rx_queued_bytes": 15,
        "tx_queued_bytes": 1,
    }


def test_queues_of_listeners(monkeypatch: pytest.MonkeyPatch) -> None:
    """The queues of a listening socket contain connections, which are not counted as bytes."""
    assert states(monkeypatch, tcp(LISTEN, 3, 4096) + end()) == {"listen": 1}


def test_states_to_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown state is not counted as another one."""
    assert states(monkeypatch, tcp(13) + tcp(0) + tcp(255) + end()) == {}


def test_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any socket every state is served as 0."""
    assert states(monkeypatch, end()) == {}


def test_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message may be longer than needed, and is padded to four bytes."""
    longer = message(SOCKET, tcp(TIME_WAIT)[16:] + b"more!")

    assert states(monkeypatch, longer + b"\0" * (-len(longer) % 4) + tcp(TIME_WAIT) + end()) == {
        "time_wait": 2
    }


@pytest.mark.parametrize("kind", [ERROR, DONE])
def test_without_the_modules(monkeypatch: pytest.MonkeyPatch, kind: int) -> None:
    """A kernel without TCP diagnostics has nothing to read."""
    with pytest.raises(NotPresent, match="modules inet_diag, tcp_diag"):
        states(monkeypatch, message(kind, struct.pack("=i", -errno.ENOENT)))


@pytest.mark.parametrize("kind", [ERROR, DONE])
def test_refusal(monkeypatch: pytest.MonkeyPatch, kind: int) -> None:
    """An error of the kernel is an error, not a host without sockets."""
    with pytest.raises(PermissionError, match="NETLINK_SOCK_DIAG: "):
        states(monkeypatch, tcp(ESTABLISHED) + message(kind, struct.pack("=i", -errno.EACCES)))


@pytest.mark.parametrize("number", [errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT])
def test_without_netlink(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """A kernel without netlink, such as that of a sandbox, has nothing to read."""

    def refuse(*args: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(socket, "socket", refuse)

    with pytest.raises(NotPresent, match=r"NETLINK_SOCK_DIAG: .* not supported"):
        collect(Tcpstat(Tcpstat.Config()))


def test_no_more_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any other error is a failure."""

    def refuse(*args: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(socket, "socket", refuse)

    with pytest.raises(OSError, match="Too many open files"):
        collect(Tcpstat(Tcpstat.Config()))


def test_another_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system other than Linux has nothing to read."""
    monkeypatch.delattr(socket, "AF_NETLINK")

    with pytest.raises(NotPresent, match="this system is not Linux"):
        collect(Tcpstat(Tcpstat.Config()))


def test_cut_off() -> None:
    """A truncated reply is an error, not fewer sockets."""
    answer = tcp(ESTABLISHED) + tcp(LISTEN) + end()
    size = len(tcp(LISTEN))

    for length in range(1, len(answer)):
        if length % size:
            with pytest.raises(TargetError, match="invalid size of a message"):
                parse(answer[:length])


@settings(max_examples=300)
@given(begin=st.integers(0, 160), patch=st.binary(max_size=20))
def test_damage(begin: int, patch: bytes) -> None:
    """A damaged reply gives sockets or an error, and parsing always ends."""
    answer = tcp(ESTABLISHED) + tcp(LISTEN) + end()
    with contextlib.suppress(NotPresent, TargetError, OSError):
        parse(answer[:begin] + patch + answer[begin + len(patch) :])


@pytest.mark.skipif(not hasattr(socket, "AF_NETLINK"), reason="this system is not Linux")
def test_this_machine() -> None:
    """Sockets that the test opens are counted, and bytes that it has not read yet."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
        listener.accept()[0] as server,
    ):
        client.sendall(b"x" * 1000)
        server.recv(1000, socket.MSG_PEEK | socket.MSG_WAITALL)
        found = collect(Tcpstat(Tcpstat.Config()))["node_tcp_connection_states"]

    assert found["established",] >= 2
    assert found["listen",] >= 1
    assert found["rx_queued_bytes",] >= 1000


def test_exact_counts() -> None:
    """In a network namespace exactly the sockets of the test are counted, each in its state."""
    unshare = shutil.which("unshare")
    argv = [unshare or "", "--net", "--map-root-user", sys.executable]
    probe = [*argv, "-c", "pass"]
    if unshare is None or subprocess.run(probe, check=False, capture_output=True).returncode:
        pytest.skip("no permission for a network of our own (unshare --net --map-root-user)")
    done = subprocess.run(
        [*argv, "-c", SCENE],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[4],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    assert done.returncode == 0, done.stderr
    before, after, ipv6 = json.loads(done.stdout)

    assert before == dict.fromkeys(before, 0)
    # Two of the open pair, and two of the connection that was not accepted.
    expected = {
        "established": 4,
        "fin_wait2": 1,
        "close_wait": 1,
        "time_wait": 1,
        "listen": 1 + ipv6,
        "rx_queued_bytes": 1000,
    }
    assert expected == {state: value for state, value in after.items() if value}
