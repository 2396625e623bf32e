"""The subsystem `tcpstat`: TCP sockets by state, and the bytes in their queues.

From the kernel's socket diagnostics, since /proc/net/tcp takes seconds with many sockets.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator

from bts_collectors.host.kernel.open_files import with_room
from bts_collectors.host.subsystem import Subsystem
from bts_exporter import NotPresent, Scrape, TargetError, gauge

#: States in the kernel's numbering, which starts at 1.
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
#: A request socket, whose handshake is not complete, counts as SYN_RECV.
_NEW_SYN_RECV, _SYN_RECV = 12, 3
#: The queues of a listening socket hold connections to accept, not bytes.
_LISTEN = 10

_NETLINK_SOCK_DIAG = 4
#: The older of two requests, since one call returns sockets of IPv4 and IPv6. The kernel walks its whole socket
#: table for each call, which is most of the cost.
_TCPDIAG_GETSOCK = 18
#: Message types: an error, and the end of the reply.
_ENDS = (2, 3)
_REQUEST_DUMP = 0x301
_ALL_STATES = 0xFFFFFFFF

_HEADER = struct.Struct("=LHHLL")
#: Any family, any socket; states.
_REQUEST = struct.Struct("=4x48xL4x")
#: Size, type; state, receive queue, send queue; between them are timers and the socket's id.
_SOCKET = struct.Struct("=LH10x xB2x48x4xLL")
#: Type, error.
_END = struct.Struct("=4xH10x i")
_BUFFER = 1 << 15


class Tcpstat(Subsystem):
    """TCP sockets by state from NETLINK_SOCK_DIAG."""

    name = "tcpstat"

    states = gauge(
        "node_tcp_connection_states",
        "Number of TCP sockets by state, and bytes in their queues (NETLINK_SOCK_DIAG).",
        ("state",),
    )

    def collect(self, scrape: Scrape) -> None:
        """Emit the number of sockets in every state, also 0, and the bytes in queues."""
        counts = [0] * (len(_STATES) + 1)
        received = sent = 0
        for state, to_read, to_send in _sockets(scrape.remaining()):
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


def _sockets(timeout_seconds: float) -> Iterator[tuple[int, int, int]]:
    """Yield `(state, bytes to read, bytes to send)` of every TCP socket."""
    body = _REQUEST.pack(_ALL_STATES)
    size = _HEADER.size + len(body)
    header = _HEADER.pack(size, _TCPDIAG_GETSOCK, _REQUEST_DUMP, 1, 0)
    with _connect() as kernel:
        kernel.settimeout(timeout_seconds)
        kernel.send(header + body)
        done = False
        while not done:
            found, done = parse(kernel.recv(_BUFFER))
            yield from found


def _connect() -> socket.socket:
    try:
        return with_room(socket.socket, socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_SOCK_DIAG)
    except AttributeError:
        msg = "netlink is absent: this system is not Linux"
        raise NotPresent(msg) from None
    except OSError as error:
        if error.errno not in {errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT}:
            raise
        msg = f"NETLINK_SOCK_DIAG: {error.strerror}"
        raise NotPresent(msg) from error


def parse(messages: bytes) -> tuple[list[tuple[int, int, int]], bool]:
    """Return `(state, bytes to read, bytes to send)` of each socket, and whether the reply is complete.

    Raises NotPresent if the kernel has no socket diagnostics, OSError for an error that it returns,
    TargetError for an invalid message.
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
                raise _invalid_message()
            found.append((state, to_read, to_send))
        else:
            return found, False
    except struct.error:
        pass  # shorter than the message of a socket: the end
    try:
        kind, code = _END.unpack_from(messages, at)
    except struct.error as error:
        raise _invalid_message() from error
    if kind not in _ENDS:
        raise _invalid_message()
    _check(code)
    return found, True


def _check(code: int) -> None:
    if code == -errno.ENOENT:
        msg = "the kernel has no socket diagnostics (modules inet_diag, tcp_diag)"
        raise NotPresent(msg)
    if code < 0:
        raise OSError(-code, f"NETLINK_SOCK_DIAG: {os.strerror(-code)}")


def _invalid_message() -> TargetError:
    return TargetError(reason="protocol", message="NETLINK_SOCK_DIAG: invalid size of a message")


COLLECTOR = Tcpstat
