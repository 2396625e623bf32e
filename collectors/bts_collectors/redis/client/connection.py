"""One kept connection of the `redis` package; a command that breaks it costs only its own reply."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

from hiredis import ReplyError
from redis.exceptions import InvalidResponse

from bts_collectors.redis.client.address import database
from bts_collectors.redis.client.dialing import HandshakeTimeoutError, is_stale
from bts_collectors.redis.client.errors import (
    NoReplyError,
    command_error,
    connection_failed,
    handshake_timeout,
    without_traceback,
)
from bts_collectors.redis.client.name_lookup import NameLookup
from bts_collectors.redis.client.options import ConnectionOptions
from bts_collectors.redis.client.reply_guard import OversizedReply, ReceiveBudget, ReplyGuard
from bts_collectors.redis.client.transport import (
    Opening,
    Transport,
    TransportError,
    Waits,
    halfway,
    new_transport,
)
from bts_collectors.redis.client.unanswered_commands import UnansweredCommands, command_name
from bts_exporter import AddressWatch, TargetError, Url

Command = tuple[str | bytes | int, ...]
#: bytes, int, None, a list of these, or a ReplyError where the server refused.
Reply = Any
#: Returns the current address of the server; takes the deadline, on time.monotonic's clock.
Find = Callable[[float], Url]

#: Commands sent at once, so that neither side holds a huge buffer.
PIPELINE = 500
#: Connections that one request may use: each was lost at another command.
_MOST_CONNECTIONS = 16
_MISSING = object()
_DEFAULTS = ConnectionOptions()
_BROKEN = (OSError, TransportError, InvalidResponse, OversizedReply)


class Connection:
    """Sends commands to one server; opened when needed, kept until it fails. For one thread."""

    def __init__(
        self,
        url: Url,
        options: ConnectionOptions = _DEFAULTS,
        find: Find | None = None,
        budget: ReceiveBudget | None = None,
    ) -> None:
        """Take the address and how to connect. No I/O here.

        `find` returns the address at every opening, for a server that is not always at `url`.
        `budget` limits the bytes received together with other connections; without one, each
        request has its own.
        """
        self.url = url
        self._login = options.login(url)
        self._find = find
        self._own_budget = ReceiveBudget() if budget is None else None
        self._guard = ReplyGuard(budget or self._own_budget or ReceiveBudget())
        self._waits = Waits()
        self._opening = Opening(
            self._waits, self._guard, self._hold, NameLookup(), options.tls, options.keepalive
        )
        self._watch = AddressWatch(url.host)
        self._unanswered = UnansweredCommands()
        #: Whether the server accepts a name for the connection.
        self._sets_name = True
        #: Whether the server has answered on this connection.
        self._has_answered = False
        # One for all openings: its parser is part of a cycle, and keeps a buffer until it is collected.
        self._transport = new_transport(url, self._opening)
        self._is_open = False
        #: The socket that another thread may shut down, also while it is being opened.
        self._socket: socket.socket | None = None
        self._peer = ""
        self._aborted = False
        #: The commands of the next `execute`, whose first chunk was sent already.
        self._ahead: Sequence[Command] = ()

    def execute(
        self, commands: Sequence[Command], deadline: float, ahead: Sequence[Command] = ()
    ) -> list[Reply]:
        """Return the replies to `commands`, sent in one go; `deadline` is on time.monotonic's clock.

        `ahead` is the next request, the same object: the server may begin with it.
        A refused command is a ReplyError in its place. A command at which the server hangs or closes
        the connection is `NoReplyError`. TargetError when there is no reply at all.
        """
        if self._own_budget is not None:
            self._own_budget.begin_collection()
        if self._ahead and self._ahead is not commands:
            self.close()  # replies are under way that belong to another request
        if self._ahead or not self._unanswered:
            return self._execute(commands, deadline, ahead)
        missing = [self._unanswered.no_reply(command) for command in commands]
        wanted = [
            command for command, error in zip(commands, missing, strict=True) if error is None
        ]
        replies = iter(self._execute(wanted, deadline) if wanted else ())
        return [next(replies) if error is None else error for error in missing]

    def abort(self) -> None:
        """End the connection forever: a running or later `execute` in another thread raises TargetError."""
        self._aborted = True
        if (connected := self._socket) is not None:
            try:
                connected.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # closed already

    def close(self) -> None:
        """Close the connection; the next `execute` opens a new one."""
        self._ahead = ()
        connected, self._socket = self._socket, None
        self._is_open = False
        # It may hold megabytes of the last reply.
        self._transport.disconnect()  # type: ignore[no-untyped-call]
        if connected is not None:
            connected.close()
            self._guard.at_boundary()

    def _execute(
        self, commands: Sequence[Command], deadline: float, ahead: Sequence[Command] = ()
    ) -> list[Reply]:
        """Return the replies, over several connections where a command breaks one."""
        replies: list[Reply] = []
        fresh = not self._is_usable()
        error = self._converse(commands, replies, deadline, ahead, fresh=fresh)
        if error is None:
            self._close_if_login_expired(replies)
            return replies
        replies += [_MISSING] * (len(commands) - len(replies))
        # Not all of the time: there may be further requests, and the replies have to be reported.
        until = deadline - (deadline - monotonic()) / 4
        error = self._recover(commands, replies, until, error, fresh=fresh)
        no_reply = NoReplyError(error)
        replies = [no_reply if reply is _MISSING else reply for reply in replies]
        if all(isinstance(reply, NoReplyError) for reply in replies):
            self._sets_name = True  # that was not the reason
            raise without_traceback(replies[0].error)
        return replies

    def _close_if_login_expired(self, replies: Sequence[Reply]) -> None:
        """Close a connection that lost its login, so that the next request logs in again."""
        if replies and isinstance(replies[0], ReplyError) and str(replies[0]).startswith("NOAUTH"):
            self.close()

    def _recover(
        self,
        commands: Sequence[Command],
        replies: list[Reply],
        deadline: float,
        error: TargetError,
        *,
        fresh: bool,
    ) -> TargetError:
        """Send the commands without a reply again, over new connections; return the last error.

        A command at which a connection ends is not sent again, nor are others of its name.
        """
        answered = replies[0] is not _MISSING
        for _ in range(_MOST_CONNECTIONS):
            missing = [place for place, reply in enumerate(replies) if reply is _MISSING]
            is_open = self._is_open
            self.close()
            if not missing or self._aborted or (fresh and not is_open):
                break  # nothing is missing, or the server is gone
            suspect = ""
            if fresh or answered:
                suspect = command_name(commands[missing[0]])
                no_reply = _no_reply_at(suspect, error)
                for place in missing:
                    if command_name(commands[place]) == suspect:
                        replies[place] = no_reply
                missing = [place for place in missing if replies[place] is _MISSING]
            fresh = True
            if not missing:
                break
            received: list[Reply] = []
            wanted = [commands[place] for place in missing]
            outcome = self._converse(wanted, received, deadline, (), fresh=True)
            answered = bool(received)
            for place, reply in zip(missing, received, strict=False):
                replies[place] = reply
            if suspect and (self._has_answered or answered):
                self._unanswered.add(suspect, no_reply.error)  # the server answers other commands
            if outcome is None:
                break
            error = outcome
        return error

    def _converse(
        self,
        commands: Sequence[Command],
        replies: list[Reply],
        deadline: float,
        ahead: Sequence[Command],
        *,
        fresh: bool,
    ) -> TargetError | None:
        """Append the replies to all `commands`; return the error that ended it early.

        The other side of a kept connection may have vanished silently: if not a byte arrives within
        half of the time, a new connection gets the other half.
        """
        try:
            if fresh:
                self._open(deadline)
            first_byte = deadline if fresh else halfway(deadline)
            # The commands to leave out may change before the next request, so nothing is sent ahead.
            ahead = () if self._unanswered else ahead
            self._exchange(commands, replies, deadline, ahead, first_byte=first_byte)
        except _BROKEN as error:
            return self._target_error(error)
        except TargetError as error:
            return without_traceback(error)
        return None

    def _target_error(self, error: Exception) -> TargetError:
        """Return the collector's error for one of the transport."""
        cause = error.error if isinstance(error, TransportError) else error
        if isinstance(cause, HandshakeTimeoutError):
            return handshake_timeout(self.url)
        return connection_failed(self.url, cause, self._waits.first_bytes)

    def _is_usable(self) -> bool:
        """Return whether there is a connection, to an address that the name still has."""
        kept = self._socket
        if not self._is_open or kept is None or self._ahead:
            return self._is_open
        return not is_stale(kept) and not self._watch.has_moved(self._peer)

    def _open(self, deadline: float) -> None:
        """Connect and log in, and name the connection where the server accepts that."""
        try:
            self._log_in(deadline)
            if self._sets_name:
                try:
                    self._set_name(halfway(halfway(deadline)))
                except _BROKEN:
                    self._sets_name = False
                    self._log_in(deadline)
        except (*_BROKEN, TargetError):
            self.close()
            raise

    def _log_in(self, deadline: float) -> None:
        """Connect and log in; if the login is refused, once more with renewed credentials."""
        self._connect(deadline)
        refused = self._authenticate(deadline)
        if refused is not None and refused.reason == "auth" and self._login.renew():
            self._connect(deadline)
            refused = self._authenticate(deadline)
        if refused is not None:
            raise without_traceback(refused)

    def _connect(self, deadline: float) -> None:
        self.close()
        self._has_answered = False
        self._waits.begin_connection(deadline)
        if self._find is not None:
            self._move_to(self._find(deadline))
        self._transport.connect()  # type: ignore[no-untyped-call]
        self._is_open = True
        self._peer = self._transport.peer

    def _move_to(self, url: Url) -> None:
        if url.host != self.url.host:
            self._watch = AddressWatch(url.host)
        if url != self.url:
            self._transport = new_transport(url, self._opening)
        self.url = url

    def _hold(self, opened: socket.socket) -> None:
        """Keep a socket where abort() reaches it, whatever waits for it."""
        self._socket = opened
        if self._aborted:
            msg = "the collector was stopped"
            raise ConnectionAbortedError(msg)

    def _authenticate(self, deadline: float) -> TargetError | None:
        """Log in once, and choose the database; return the command_error, if any."""
        commands: list[Command] = []
        if credentials := self._login.credentials(deadline):
            commands.append(("AUTH", *credentials))
        if number := database(self.url):
            commands.append(("SELECT", number))
        for command in commands:
            # One by one: a server that refuses us may close the connection right after its reply.
            reply = self._exchange_one(command, deadline)
            if isinstance(reply, ReplyError):
                return command_error(self.url, str(command[0]), reply)
        return None

    def _set_name(self, deadline: float) -> None:
        reply = self._exchange_one(("CLIENT", "SETNAME", "bts-exporter"), deadline)
        if isinstance(reply, ReplyError):
            error = command_error(self.url, "CLIENT", reply)
            if error.reason not in {"noperm", "protocol"}:
                raise without_traceback(error)

    def _exchange_one(self, command: Command, deadline: float) -> Reply:
        replies: list[Reply] = []
        self._exchange([command], replies, deadline, first_byte=deadline)
        self._has_answered = True
        return replies[0]

    def _exchange(
        self,
        commands: Sequence[Command],
        replies: list[Reply],
        deadline: float,
        ahead: Sequence[Command] = (),
        *,
        first_byte: float,
    ) -> None:
        """Append the missing replies; the next chunk of commands is sent before one is waited for."""
        first = len(replies)
        chunks = [commands[at : at + PIPELINE] for at in range(first, len(commands), PIPELINE)]
        transport = self._connected()
        self._waits.begin(deadline, first_byte, single=len(commands) == 1 and not ahead)
        if not self._ahead:
            transport.send(chunks[0])
        for chunk, following in zip(chunks, [*chunks[1:], ahead[:PIPELINE]], strict=True):
            if following:
                transport.send(following)
            transport.receive(replies, len(replies) + len(chunk))
        self._ahead = ahead
        if not transport.has_unread():
            self._guard.at_boundary()

    def _connected(self) -> Transport:
        if not self._is_open:
            msg = "the connection is closed"
            raise ConnectionAbortedError(msg)
        return self._transport


def _no_reply_at(name: str, error: TargetError) -> NoReplyError:
    """Return the substitute for the replies to a command at which a connection ended."""
    return NoReplyError(TargetError(error.reason, f"{error} (at the command {name})"))
