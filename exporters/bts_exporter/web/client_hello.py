"""The first bytes of a TLS connection, looked at before it gets a thread for its handshake."""

from __future__ import annotations

import re
import socket
from enum import Enum, auto

#: Bytes of a record's header: type, version, length.
_HEADER_BYTES = 5
_HANDSHAKE = 0x16
#: Bytes of a record with its header. RFC 8446 permits no more.
_MAX_RECORD = _HEADER_BYTES + 2**14 + 256
#: The beginning of a request in plain text.
_HTTP = re.compile(rb"[A-Z]{1,5}")


class Hello(Enum):
    """What a client has sent."""

    GONE = auto()  # it closed the connection
    PARTIAL = auto()  # the beginning of a handshake
    COMPLETE = auto()  # a record of a handshake
    HTTP = auto()  # a request without TLS
    OTHER = auto()


def look_at(sock: socket.socket) -> Hello:
    """Return what has arrived, which stays in the kernel; `sock` is then readable when more of it is there.

    BlockingIOError if nothing has arrived.
    """
    seen = sock.recv(_HEADER_BYTES, socket.MSG_PEEK)
    if not seen:
        return Hello.GONE
    if seen[0] != _HANDSHAKE:
        return Hello.HTTP if _HTTP.fullmatch(seen.partition(b" ")[0]) else Hello.OTHER
    if sock.family == socket.AF_UNIX:  # always readable as soon as one byte is there
        return Hello.COMPLETE
    wanted = _HEADER_BYTES
    if len(seen) == _HEADER_BYTES:
        wanted = min(_HEADER_BYTES + int.from_bytes(seen[3:]), _MAX_RECORD)
        seen = sock.recv(wanted, socket.MSG_PEEK)
    awaited = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT)
    # Readable with fewer bytes than were awaited: the client has closed its side.
    if len(seen) >= wanted or len(seen) < awaited:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        return Hello.COMPLETE
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, wanted)
    return Hello.PARTIAL
