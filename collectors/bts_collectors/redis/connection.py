"""One kept connection: hiredis for the protocol, a socket of our own for the total deadline.

Not redis-py: its import alone costs 12 MB and 95 ms (asyncio), and its time-outs are per read.
"""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Sequence
from time import monotonic
from typing import Any

from hiredis import ProtocolError, Reader, ReplyError, pack_command

from bts_collectors.redis.failures import failure, refusal
from bts_exporter import Secret, TargetError, Url

Command = tuple[str | bytes | int, ...]
#: bytes, int, None, a list of these, or a ReplyError where the server refused.
Reply = Any

#: Commands sent at once, so that neither side holds a huge buffer.
PIPELINE = 500
#: Bytes; a reply beyond it would cost more memory than the whole exporter has.
LONGEST_ANSWER = 256 * 1024 * 1024
DEFAULT_PORT = 6379
_NOTHING = object()


def database(url: Url) -> int:
    """Return the database that `redis://host/2` or `unix:///socket?db=2` names; ValueError if none."""
    text = url.query.removeprefix("db=") if url.scheme == "unix" else url.path.strip("/")
    if not text:
        return 0
    if not text.isascii() or not text.isdigit():
        msg = f"expected the number of a database, got {text!r}"
        raise ValueError(msg)
    return int(text)


class Connection:
    """Asks one server; opened when needed, kept until something goes wrong. One thread asks."""

    def __init__(self, url: Url, password: Secret | None) -> None:
        """Keep the address; `password` wins over the one in `url`. No I/O here."""
        self.url = url
        self._password = password or url.password
        self._socket: socket.socket | None = None
        self._reader = Reader()
        self._over = False

    def ask(self, commands: Sequence[Command], deadline: float) -> list[Reply]:
        """Return the replies to `commands`, sent in one go; `deadline` is on time.monotonic's clock.

        TargetError when there are no replies to be had; one refused command is a ReplyError in
        its place.
        """
        try:
            connected = self._socket
            if connected is None or _is_stale(connected):
                connected = self._open(deadline)
            return self._exchange(connected, commands, deadline)
        except (OSError, ProtocolError) as error:
            self.close()
            raise failure(self.url, error) from error
        except TargetError:
            self.close()
            raise

    def abort(self) -> None:
        """End it for good: another thread that is or comes into `ask` gets a TargetError."""
        self._over = True
        if (connected := self._socket) is not None:
            try:
                connected.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # closed already

    def close(self) -> None:
        """Close the connection; the next `ask` opens a new one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _open(self, deadline: float) -> socket.socket:
        self.close()
        # Known before the handshakes, so that abort() reaches them and a failure closes it.
        self._socket = _connect(self.url, deadline)
        if self._over:
            msg = "the collector was stopped"
            raise ConnectionAbortedError(msg)
        self._reader = Reader(notEnoughData=_NOTHING)
        if self.url.scheme == "rediss":
            _arm(self._socket, deadline)
            context = ssl.create_default_context()
            self._socket = context.wrap_socket(self._socket, server_hostname=self.url.host)
        self._introduce(self._socket, deadline)
        return self._socket

    def _introduce(self, connected: socket.socket, deadline: float) -> None:
        """Log in once, choose the database, and say who we are (where that is allowed)."""
        commands: list[Command] = []
        if self._password is not None or self.url.username:
            user = (self.url.username,) if self.url.username else ()
            password = self._password.reveal() if self._password is not None else ""
            commands.append(("AUTH", *user, password))
        if number := database(self.url):
            commands.append(("SELECT", number))
        commands.append(("CLIENT", "SETNAME", "bts-exporter"))
        for command in commands:
            # One by one: a server that refuses us may hang up right after saying why.
            reply = self._exchange(connected, [command], deadline)[0]
            if isinstance(reply, ReplyError):
                error = refusal(self.url, str(command[0]), reply)
                if command[0] != "CLIENT" or error.reason not in {"noperm", "protocol"}:
                    raise error

    def _exchange(
        self, connected: socket.socket, commands: Sequence[Command], deadline: float
    ) -> list[Reply]:
        replies: list[Reply] = []
        for start in range(0, len(commands), PIPELINE):
            chunk = commands[start : start + PIPELINE]
            _send(connected, b"".join(map(_pack, chunk)), deadline)
            replies.extend(self._receive(connected, len(chunk), deadline))
        return replies

    def _receive(self, connected: socket.socket, count: int, deadline: float) -> list[Reply]:
        replies: list[Reply] = []
        room = LONGEST_ANSWER
        while len(replies) < count:
            reply = self._reader.gets(False)
            if reply is not _NOTHING:
                replies.append(reply)
                continue
            _arm(connected, deadline)
            received = connected.recv(65536)
            room -= len(received)
            if not received:
                msg = "the server closed the connection"
                raise ConnectionResetError(msg)
            if room < 0:
                msg = f"an answer of more than {LONGEST_ANSWER >> 20} MB"
                raise ProtocolError(msg)
            self._reader.feed(received)
        return replies


def _pack(command: Command) -> bytes:
    packed: bytes = pack_command(command)  # type: ignore[arg-type]  # the stub says: of one word
    return packed


def _arm(connected: socket.socket, deadline: float) -> None:
    """Let the next operation on the socket end by the deadline; TimeoutError if that is over."""
    left = deadline - monotonic()
    if left <= 0:
        raise TimeoutError
    connected.settimeout(left)


def _send(connected: socket.socket, message: bytes, deadline: float) -> None:
    # Not sendall: over TLS its time-out starts anew with every part that goes out.
    rest = memoryview(message)
    while rest:
        _arm(connected, deadline)
        rest = rest[connected.send(rest) :]


def _connect(url: Url, deadline: float) -> socket.socket:
    """Return a connection to the first address of `url` that takes one; OSError of the last else."""
    if url.scheme == "unix":
        return _connect_one(socket.AF_UNIX, url.path, deadline)
    port = url.port or DEFAULT_PORT
    addresses = socket.getaddrinfo(url.host, port, type=socket.SOCK_STREAM)
    for place, (family, _, _, _, address) in enumerate(addresses, 1):
        try:
            connected = _connect_one(family, address, deadline)
        except OSError:
            if place == len(addresses):
                raise
        else:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            return connected
    msg = "the name has no address"
    raise socket.gaierror(msg)


def _connect_one(family: int, address: Any, deadline: float) -> socket.socket:
    connected = socket.socket(family, socket.SOCK_STREAM)
    try:
        _arm(connected, deadline)
        connected.connect(address)
    except OSError:
        connected.close()
        raise
    return connected


def _is_stale(connected: socket.socket) -> bool:
    """Return whether the server has hung up meanwhile: on an idle connection it has nothing to say."""
    poll = select.poll()
    poll.register(connected, select.POLLIN)
    return bool(poll.poll(0))
