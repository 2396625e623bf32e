"""The connections of the `redis` package, over a socket with one deadline for a whole exchange.

The package's timeouts apply to each read and write, and its parser allocates what the server
announces. The socket that it gets here ends every wait at the deadline of the exchange, and checks
what was received before the parser reads it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from time import monotonic
from typing import Any

from hiredis import Reader, ReplyError, pack_command
from redis.backoff import NoBackoff
from redis.connection import (
    AbstractConnection,
    DefaultParser,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.connection import Connection as TCPConnection
from redis.exceptions import InvalidResponse
from redis.retry import Retry

from bts_collectors.redis.client.address import socket_path
from bts_collectors.redis.client.dialing import (
    DEFAULT_PORT,
    arm,
    dial_tcp,
    dial_unix,
    handshake,
    peer_address,
    send,
)
from bts_collectors.redis.client.keepalive import Keepalive
from bts_collectors.redis.client.name_lookup import NameLookup
from bts_collectors.redis.client.reply_guard import OversizedReply, ReplyGuard
from bts_exporter import TLSConfig, Url

#: Bytes kept of what a server sends first.
_FIRST_BYTES = 32
#: What the parser returns when the next reply is incomplete.
_INCOMPLETE = object()
#: Bytes received at once, and the size of the buffer that each connection keeps.
_READ_SIZE = 65536


class TransportError(Exception):
    """Carries an OSError through the `redis` package, which would keep only its text."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


class Waits:
    """The deadlines of one connection, on time.monotonic's clock, and the first bytes received."""

    def __init__(self) -> None:
        """Begin without a connection."""
        self.begin_connection(0.0)

    def begin_connection(self, end: float) -> None:
        """Begin to open a connection that must be open at `end`."""
        #: What the server sent first: other protocols are recognized by it.
        self.first_bytes = b""
        self.begin(end)

    def begin(self, end: float, first_byte: float | None = None, *, single: bool = False) -> None:
        """Begin an exchange that ends at `end`; something must be received by `first_byte`.

        Each reply gets half of the time left, so that one that does not come leaves time for the
        others. A `single` reply gets all of it.
        """
        self.end = end
        self._first_byte = end if first_byte is None else first_byte
        self._single = single
        self._reply = 0.0

    def begin_reply(self) -> None:
        """Begin to wait for the next reply."""
        self._reply = 0.0

    def received(self, data: bytes) -> None:
        """Note that the server is at work: the exchange may take all of its time."""
        self._first_byte = self.end
        if not self.first_bytes:
            self.first_bytes = data[:_FIRST_BYTES]

    def for_sending(self) -> float:
        """Return the deadline for sending."""
        return self._first_byte

    def for_receiving(self) -> float:
        """Return the deadline for the next bytes."""
        if not self._reply:
            self._reply = self.end if self._single else halfway(self.end)
        return min(self._reply, self._first_byte)


class GuardedSocket:
    """The socket of the `redis` package; raises TransportError and OversizedReply."""

    def __init__(self, opened: socket.socket, waits: Waits, guard: ReplyGuard) -> None:
        """Take a connected socket."""
        self.opened = opened
        self._waits = waits
        self._guard = guard
        #: The error after which nothing more is received; as a text, because an exception keeps its frames.
        self._oversized = ""

    def recv_into(self, buffer: bytearray) -> int:
        """Receive the available bytes, at least one, and return their number."""
        if self._oversized:
            raise OversizedReply(self._oversized)
        try:
            arm(self.opened, self._waits.for_receiving())
            size = self.opened.recv_into(buffer)
        except OSError as error:
            raise TransportError(error) from error
        if not size:
            msg = "the server closed the connection"
            raise TransportError(ConnectionResetError(msg))
        received = bytes(memoryview(buffer)[:size])
        self._waits.received(received)
        try:
            self._guard.check(received)
        except OversizedReply as error:
            if not error.sound:
                raise
            # The replies in front of it are valid.
            self._oversized = str(error)
            return error.sound
        return size

    def sendall(self, message: bytes) -> None:
        """Send all of `message`."""
        try:
            send(self.opened, message, self._waits.for_sending())
        except OSError as error:
            raise TransportError(error) from error

    def shutdown(self, how: int) -> None:
        """End the connection."""
        self.opened.shutdown(how)

    def close(self) -> None:
        """Close the socket."""
        self.opened.close()


class _Parser(DefaultParser):  # type: ignore[misc, valid-type]  # chosen when redis is imported
    """The package's hiredis parser; a refusal is a ReplyError in its place, with its error code.

    The package's own errors omit the code, such as NOPERM or WRONGPASS, which names the cause.
    """

    def on_connect(self, connection: AbstractConnection, **options: Any) -> None:
        super().on_connect(connection, **options)
        self._reader = Reader(
            protocolError=InvalidResponse, replyError=ReplyError, notEnoughData=_INCOMPLETE
        )

    def read(self, replies: list[Any], count: int, begin_reply: Callable[[], None]) -> None:
        """Append replies until there are `count`; `begin_reply` is called before each wait for a new one.

        The package's `read_response` returns one reply and takes four times as long for it.
        """
        begin_reply()
        while True:
            before = len(replies)
            # If a reply is not valid, those in front of it are appended nevertheless.
            replies.extend(islice(iter(self._reader.gets, _INCOMPLETE), count - before))
            if len(replies) == count:
                return
            if len(replies) > before:
                begin_reply()
            self.read_from_socket()

    def has_unread(self) -> bool:
        """Return whether a part of a reply was received."""
        return self._reader is not None and self._reader.has_data()


@dataclass(frozen=True, slots=True)
class Opening:
    """The parts that open a connection by a deadline, so that another thread can end it."""

    waits: Waits
    guard: ReplyGuard
    #: Is called with every socket before anything waits for it.
    hold: Callable[[socket.socket], None]
    names: NameLookup
    tls: TLSConfig
    keepalive: Keepalive


class Transport(AbstractConnection):
    """The common part of the three kinds of connections."""

    _parser: _Parser

    def __init__(self, opening: Opening, **options: Any) -> None:
        """Take the options of the package's connection. No I/O here."""
        self._opening = opening
        #: The address of the other side; empty for a unix socket.
        self.peer = ""
        super().__init__(
            parser_class=_Parser,
            # Without a name, a login and a database, connect() sends nothing.
            driver_info=None,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=None,
            socket_read_size=_READ_SIZE,
            **options,
        )

    def send(self, commands: Sequence[tuple[str | bytes | int, ...]]) -> None:
        """Send `commands` in one go."""
        # hiredis packs for the package, too, which then sends parts of 6 kB, one system call each.
        message = b"".join(map(pack_command, commands))  # type: ignore[arg-type]  # its stub allows one word
        self.send_packed_command([message], check_health=False)  # type: ignore[no-untyped-call]

    def receive(self, replies: list[Any], count: int) -> None:
        """Append replies until there are `count`."""
        self._parser.read(replies, count, self._opening.waits.begin_reply)

    def has_unread(self) -> bool:
        """Return whether a part of a reply was received."""
        return self._parser.has_unread()

    def _connect(self) -> GuardedSocket:
        try:
            opened = self._open(self._opening)
        except OSError as error:
            raise TransportError(error) from error
        self.peer = peer_address(opened)
        return GuardedSocket(opened, self._opening.waits, self._opening.guard)

    def _open(self, opening: Opening) -> socket.socket:
        raise NotImplementedError


class _TCPTransport(Transport, TCPConnection):
    def _open(self, opening: Opening) -> socket.socket:
        addresses = opening.names.addresses(self.host, self.port, opening.waits.end)
        opened = dial_tcp(addresses, opening.waits.end, opening.hold)
        if self.socket_keepalive:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in self.socket_keepalive_options.items():
                opened.setsockopt(socket.IPPROTO_TCP, option, value)
        return opened


class _TLSTransport(_TCPTransport, SSLConnection):
    def _open(self, opening: Opening) -> socket.socket:
        # Not the package's own handshake: it hides the socket from a thread that wants to end it.
        opened = super()._open(opening)
        context = opening.tls.context()
        name = opening.tls.server_name or self.host
        secured = context.wrap_socket(opened, server_hostname=name, do_handshake_on_connect=False)
        opening.hold(secured)
        handshake(secured, opening.waits.end)
        return secured


class _UnixTransport(Transport, UnixDomainSocketConnection):
    def _open(self, opening: Opening) -> socket.socket:
        return dial_unix(self.path, opening.waits.end, opening.hold)


def new_transport(url: Url, opening: Opening) -> Transport:
    """Return the connection to `url`, not opened yet."""
    if url.scheme == "unix":
        # `host` is abstract for mypy only; the package's own class lacks it, too.
        return _UnixTransport(opening, path=socket_path(url))  # type: ignore[abstract]
    kind = _TLSTransport if url.scheme == "rediss" else _TCPTransport
    port = url.port or DEFAULT_PORT
    return kind(opening, host=url.host, port=port, **opening.keepalive.options())


def halfway(deadline: float) -> float:
    """Return the moment at which half of the time until `deadline` is over."""
    now = monotonic()
    return now + (deadline - now) / 2
