"""How many TCP connections are in which state, and how much waits in their queues.

Asked of the kernel's socket diagnostics: /proc/net/tcp takes seconds where there are many sockets.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator

from bts_collectors.host.kernel.open_files import with_room
from bts_collectors.host.subsystem import Subsystem
from bts_exporter import NothingToRead, Scrape, TargetError, gauge

#: States as the kernel numbers them, from 1 on.
_STATES = (
    "established",
    "syn_sent",
    "syn_recv",
    "fin_wait1",
    "fin_wait2",
    "time_wait",
    "close",
    "close_wait",
    "last_ack",
    "listen",
    "closing",
)
#: A request socket is one that was asked for and not accepted yet.
_NEW_SYN_RECV, _SYN_RECV = 12, 3
#: Its queues hold connections to accept, not bytes.
_LISTEN = 10

_NETLINK_SOCK_DIAG = 4
#: The older of two questions, since it is for both versions of IP at once: the kernel's table of
#: sockets is large however few there are, and walking it is most of the cost.
_TCPDIAG_GETSOCK = 18
#: Kinds of messages: an error, and the end of the answer.
_ENDS = (2, 3)
_REQUEST_DUMP = 0x301
_ALL_STATES = 0xFFFFFFFF

_HEADER = struct.Struct("=LHHLL")
#: any family, any socket; states
_REQUEST = struct.Struct("=4x48xL4x")
#: size, kind; state, receive queue, send queue: between them are timers and the socket's id
_SOCKET = struct.Struct("=LH10x xB2x48x4xLL")
#: kind, error
_END = struct.Struct("=4xH10x i")
_BUFFER = 1 << 15


class Tcpstat(Subsystem):
    """States of TCP sockets from NETLINK_SOCK_DIAG."""

    name = "tcpstat"

    states = gauge(
        "node_tcp_connection_states",
        "TCP sockets by state, and the bytes in their queues (NETLINK_SOCK_DIAG).",
        ("state",),
    )

    def collect(self, scrape: Scrape) -> None:
        """Emit every state, with 0 where there is no socket in it."""
        counts = [0] * (len(_STATES) + 1)
        received = sent = 0
        for state, to_read, to_send in _ask(scrape.remaining()):
            known = _SYN_RECV if state == _NEW_SYN_RECV else state
            if known < len(counts):
                counts[known] += 1
            if state != _LISTEN:
                received += to_read
                sent += to_send
        for name, count in zip(_STATES, counts[1:], strict=True):
            scrape.emit(self.states, count, name)
        scrape.emit(self.states, received, "rx_queued_bytes")
        scrape.emit(self.states, sent, "tx_queued_bytes")


def _ask(seconds: float) -> Iterator[tuple[int, int, int]]:
    """Yield `(state, bytes to read, bytes to send)` of every TCP socket."""
    body = _REQUEST.pack(_ALL_STATES)
    size = _HEADER.size + len(body)
    header = _HEADER.pack(size, _TCPDIAG_GETSOCK, _REQUEST_DUMP, 1, 0)
    with _connect() as kernel:
        kernel.settimeout(seconds)
        kernel.send(header + body)
        done = False
        while not done:
            found, done = parse(kernel.recv(_BUFFER))
            yield from found


def _connect() -> socket.socket:
    try:
        return with_room(socket.socket, socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_SOCK_DIAG)
    except AttributeError:
        msg = "netlink is absent: this is no Linux"
        raise NothingToRead(msg) from None
    except OSError as error:
        if error.errno not in {errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT}:
            raise
        msg = f"NETLINK_SOCK_DIAG: {error.strerror}"
        raise NothingToRead(msg) from error


def parse(messages: bytes) -> tuple[list[tuple[int, int, int]], bool]:
    """Return `(state, bytes to read, bytes to send)` of each socket, and whether these were the last.

    NothingToRead when the kernel has no diagnostics of TCP, OSError for what it complains about,
    TargetError for rubbish.
    """
    found: list[tuple[int, int, int]] = []
    at = 0
    try:
        while at < len(messages):
            size, kind, state, to_read, to_send = _SOCKET.unpack_from(messages, at)
            if kind in _ENDS:
                break
            at += (size + 3) & ~3
            if size < _SOCKET.size or at > len(messages):
                raise _rubbish()
            found.append((state, to_read, to_send))
        else:
            return found, False
    except struct.error:
        pass  # shorter than that of a socket: the end
    try:
        kind, code = _END.unpack_from(messages, at)
    except struct.error as error:
        raise _rubbish() from error
    if kind not in _ENDS:
        raise _rubbish()
    _check(code)
    return found, True


def _check(code: int) -> None:
    if code == -errno.ENOENT:
        msg = "the kernel has no socket diagnostics (modules inet_diag, tcp_diag)"
        raise NothingToRead(msg)
    if code < 0:
        raise OSError(-code, f"NETLINK_SOCK_DIAG: {os.strerror(-code)}")


def _rubbish() -> TargetError:
    return TargetError(
        reason="protocol", message="NETLINK_SOCK_DIAG: a message of another size than it says"
    )


COLLECTOR = Tcpstat
