"""One kept connection: hiredis for the protocol, a socket of our own for the total deadline.

Not redis-py: its import alone costs 12 MB and 95 ms (asyncio), and its time-outs are per read.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from time import monotonic
from typing import Any

from hiredis import ProtocolError, Reader, ReplyError, pack_command

from bts_collectors.redis.dialing import arm, dial, is_stale, send
from bts_collectors.redis.failures import failure, no_handshake, refusal
from bts_exporter import Secret, TargetError, TLSConfig, Url

Command = tuple[str | bytes | int, ...]
#: bytes, int, None, a list of these, or a ReplyError where the server refused.
Reply = Any
#: Returns where the server is now; takes the deadline, on time.monotonic's clock.
Find = Callable[[float], Url]

#: Commands sent at once, so that neither side holds a huge buffer.
PIPELINE = 500
#: Bytes; a reply beyond it would cost more memory than the whole exporter has.
LONGEST_ANSWER = 256 * 1024 * 1024
_NOTHING = object()
_NO_TLS_SETTINGS = TLSConfig()


def database(url: Url) -> int:
    """Return the database that `redis://host/2` or `unix:///socket?db=2` names; ValueError if none."""
    text = url.query.removeprefix("db=") if url.scheme == "unix" else url.path.strip("/")
    if not text:
        return 0
    if not text.isascii() or not text.isdigit():
        msg = f"expected the number of a database, got {text!r}"
        raise ValueError(msg)
    return int(text)


def beside(url: Url, host: str, port: int) -> Url:
    """Return the address of another server with the login, the database and the TLS of `url`."""
    if url.scheme == "unix":
        return Url("redis", host, port, f"/{database(url)}", url.username, url.password)
    return replace(url, host=host, port=port)


class Connection:
    """Asks one server; opened when needed, kept until something goes wrong. One thread asks."""

    def __init__(
        self,
        url: Url,
        password: Secret | None = None,
        tls: TLSConfig = _NO_TLS_SETTINGS,
        find: Find | None = None,
    ) -> None:
        """Keep the address; `password` wins over the one in `url`. No I/O here.

        `find` is asked for the address at every opening, where the server is not always at `url`.
        """
        self.url = url
        self._password = password or url.password
        self._tls = tls
        self._find = find
        self._socket: socket.socket | None = None
        self._reader = Reader()
        self._over = False
        #: The commands of the next `ask`, whose first chunk was sent already.
        self._ahead: Sequence[Command] = ()
        #: Until when to wait for the next bytes, on time.monotonic's clock.
        self._patience = 0.0

    def ask(
        self, commands: Sequence[Command], deadline: float, ahead: Sequence[Command] = ()
    ) -> list[Reply]:
        """Return the replies to `commands`, sent in one go; `deadline` is on time.monotonic's clock.

        `ahead` is what will be asked next, the same object: the server may begin with it.
        TargetError when there are no replies to be had; one refused command is a ReplyError in
        its place.
        """
        if self._ahead and self._ahead is not commands:
            self.close()  # there are replies under way that nobody waits for
        try:
            kept = self._socket
            if kept is not None and (self._ahead or not is_stale(kept)):
                replies = self._ask_kept(kept, commands, deadline, ahead)
                if replies is not None:
                    return replies
            return self._exchange(self._open(deadline), commands, deadline, ahead)
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
        self._ahead = ()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _ask_kept(
        self,
        kept: socket.socket,
        commands: Sequence[Command],
        deadline: float,
        ahead: Sequence[Command],
    ) -> list[Reply] | None:
        """Return the replies; None if the connection broke, or not a byte came within half the time.

        The other side may have vanished without a word: a new connection gets the other half.
        """
        now = monotonic()
        self._patience = now + (deadline - now) / 2
        try:
            return self._exchange(kept, commands, deadline, ahead)
        except (TimeoutError, ConnectionError):
            return None

    def _open(self, deadline: float) -> socket.socket:
        self.close()
        self._patience = deadline
        if self._find is not None:
            self.url = self._find(deadline)
        opened = dial(self.url, deadline, self._hold)
        if self.url.scheme == "rediss":
            opened = self._secure(opened, deadline)
        self._reader = Reader(notEnoughData=_NOTHING)
        self._introduce(opened, deadline)
        return opened

    def _secure(self, opened: socket.socket, deadline: float) -> socket.socket:
        name = self._tls.server_name or self.url.host
        secured = self._tls.context().wrap_socket(
            opened, server_hostname=name, do_handshake_on_connect=False
        )
        self._hold(secured)
        arm(secured, deadline)
        try:
            secured.do_handshake()
        except TimeoutError as error:
            raise no_handshake(self.url) from error
        return secured

    def _hold(self, opened: socket.socket) -> None:
        """Keep a socket where abort() reaches it, whatever waits for it."""
        self._socket = opened
        if self._over:
            msg = "the collector was stopped"
            raise ConnectionAbortedError(msg)

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
        self,
        connected: socket.socket,
        commands: Sequence[Command],
        deadline: float,
        ahead: Sequence[Command] = (),
    ) -> list[Reply]:
        """Return the replies; always one chunk of commands is under way before it is waited for."""
        chunks = [commands[start : start + PIPELINE] for start in range(0, len(commands), PIPELINE)]
        if not self._ahead:
            self._send(connected, chunks[0])
        replies: list[Reply] = []
        for chunk, following in zip(chunks, [*chunks[1:], ahead[:PIPELINE]], strict=True):
            self._send(connected, following)
            replies.extend(self._receive(connected, len(chunk), deadline))
        self._ahead = ahead
        return replies

    def _send(self, connected: socket.socket, commands: Sequence[Command]) -> None:
        send(connected, b"".join(map(_pack, commands)), self._patience)

    def _receive(self, connected: socket.socket, count: int, deadline: float) -> list[Reply]:
        replies: list[Reply] = []
        room = LONGEST_ANSWER
        while len(replies) < count:
            reply = self._reader.gets(False)
            if reply is not _NOTHING:
                replies.append(reply)
                continue
            arm(connected, self._patience)
            received = connected.recv(65536)
            room -= len(received)
            if not received:
                msg = "the server closed the connection"
                raise ConnectionResetError(msg)
            if room < 0:
                msg = f"an answer of more than {LONGEST_ANSWER >> 20} MB"
                raise ProtocolError(msg)
            self._patience = deadline
            self._reader.feed(received)
        return replies


def _pack(command: Command) -> bytes:
    packed: bytes = pack_command(command)  # type: ignore[arg-type]  # the stub says: of one word
    return packed
