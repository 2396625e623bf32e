"""One kept connection: hiredis for the protocol, a socket of our own for the total deadline.

Not redis-py: its import alone costs 12 MB and 95 ms (asyncio), and its time-outs are per read.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from time import monotonic
from typing import Any

from hiredis import ProtocolError, Reader, ReplyError, pack_command

from bts_collectors.redis.client.address import database
from bts_collectors.redis.client.dialing import arm, dial, is_stale, peer_address, send
from bts_collectors.redis.client.errors import Lost, bare, failure, no_handshake, refusal
from bts_collectors.redis.client.name_lookup import NameLookup
from bts_collectors.redis.client.reply_guard import OversizedReply, ReceiveBudget, ReplyGuard
from bts_collectors.redis.client.unanswered_commands import Unanswered, command_name
from bts_exporter import AddressWatch, Secret, TargetError, TLSConfig, Url

Command = tuple[str | bytes | int, ...]
#: bytes, int, None, a list of these, or a ReplyError where the server refused.
Reply = Any
#: Returns where the server is now; takes the deadline, on time.monotonic's clock.
Find = Callable[[float], Url]

#: Commands sent at once, so that neither side holds a huge buffer.
PIPELINE = 500
#: Connections that one question may use: each was lost at another command.
_MOST_CONNECTIONS = 16
_NOTHING = object()
_NO_TLS_SETTINGS = TLSConfig()
_BROKEN = (OSError, ProtocolError, OversizedReply)


class Connection:
    """Asks one server; opened when needed, kept until something goes wrong. One thread asks."""

    def __init__(
        self,
        url: Url,
        password: Secret | None = None,
        tls: TLSConfig = _NO_TLS_SETTINGS,
        find: Find | None = None,
        budget: ReceiveBudget | None = None,
    ) -> None:
        """Keep the address; `password` wins over the one in `url`. No I/O here.

        `find` is asked for the address at every opening, where the server is not always at `url`.
        `budget` is what may be received together with other connections; without, each question
        has one of its own.
        """
        self.url = url
        self._password = password or url.password
        self._tls = tls
        self._find = find
        self._own_budget = ReceiveBudget() if budget is None else None
        self._guard = ReplyGuard(budget or self._own_budget or ReceiveBudget())
        self._names = NameLookup()
        self._watch = AddressWatch(url.host)
        self._unanswered = Unanswered()
        #: Whether the server lets us say who we are.
        self._names_itself = True
        #: Whether the server has answered on this connection.
        self._introduced = False
        self._socket: socket.socket | None = None
        self._peer = ""
        self._reader = Reader(notEnoughData=_NOTHING)
        self._first = b""  # received on this connection
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
        its place, and one that the server hangs at, or breaks the connection at, is `Lost`.
        """
        if self._own_budget is not None:
            self._own_budget.begin_collection()
        if self._ahead and self._ahead is not commands:
            self.close()  # there are replies under way that nobody waits for
        if self._ahead or not self._unanswered:
            return self._ask(commands, deadline, ahead)
        lost = [self._unanswered.lost(command) for command in commands]
        wanted = [command for command, one in zip(commands, lost, strict=True) if one is None]
        replies = iter(self._ask(wanted, deadline) if wanted else ())
        return [next(replies) if one is None else one for one in lost]

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
        connected, self._socket = self._socket, None
        if connected is not None:
            connected.close()
            # Both may hold megabytes of what came last.
            self._reader = Reader(notEnoughData=_NOTHING)
            self._guard.at_boundary()

    def _ask(
        self, commands: Sequence[Command], deadline: float, ahead: Sequence[Command] = ()
    ) -> list[Reply]:
        """Return the replies, over several connections where a command breaks one."""
        replies: list[Reply] = []
        fresh = not self._is_usable()
        failed = self._converse(commands, replies, deadline, ahead, fresh=fresh)
        if failed is None:
            return replies
        replies += [_NOTHING] * (len(commands) - len(replies))
        # Not all of the time: there may be more to ask, and what came has to be told.
        until = deadline - (deadline - monotonic()) / 4
        failed = self._recover(commands, replies, until, failed, fresh=fresh)
        lost = Lost(failed)
        replies = [lost if reply is _NOTHING else reply for reply in replies]
        if all(isinstance(reply, Lost) for reply in replies):
            self._names_itself = True  # that was not the reason
            raise bare(replies[0].error)
        return replies

    def _recover(
        self,
        commands: Sequence[Command],
        replies: list[Reply],
        deadline: float,
        failed: TargetError,
        *,
        fresh: bool,
    ) -> TargetError:
        """Ask for the replies that did not come, over new connections; return the last failure.

        A command at which a connection ends is not asked again, nor are others of its name.
        """
        came = replies[0] is not _NOTHING
        for _ in range(_MOST_CONNECTIONS):
            missing = [place for place, reply in enumerate(replies) if reply is _NOTHING]
            is_open = self._socket is not None
            self.close()
            if not missing or self._over or (fresh and not is_open):
                break  # all is told, or the server is gone
            suspect = ""
            if fresh or came:
                suspect = command_name(commands[missing[0]])
                lost = _lost_at(suspect, failed)
                for place in missing:
                    if command_name(commands[place]) == suspect:
                        replies[place] = lost
                missing = [place for place in missing if replies[place] is _NOTHING]
            fresh = True
            if not missing:
                break
            found: list[Reply] = []
            wanted = [commands[place] for place in missing]
            outcome = self._converse(wanted, found, deadline, (), fresh=True)
            came = bool(found)
            for place, reply in zip(missing, found, strict=False):
                replies[place] = reply
            if suspect and (self._introduced or came):
                self._unanswered.add(suspect, lost.error)  # the server answers, but not to this
            if outcome is None:
                break
            failed = outcome
        return failed

    def _converse(
        self,
        commands: Sequence[Command],
        replies: list[Reply],
        deadline: float,
        ahead: Sequence[Command],
        *,
        fresh: bool,
    ) -> TargetError | None:
        """Append the replies to all `commands` that have none yet; return what ended it early.

        On a kept connection the other side may have vanished without a word: where not a byte came
        within half of the time, a new connection gets the other half.
        """
        try:
            if fresh:
                self._open(deadline)
            else:
                self._patience = _halfway(deadline)
            # What is left out may change before the next question: nothing of that is sent ahead.
            ahead = () if self._unanswered else ahead
            self._exchange(commands, replies, deadline, ahead)
        except _BROKEN as error:
            return failure(self.url, error, self._first)
        except TargetError as error:
            return bare(error)
        return None

    def _is_usable(self) -> bool:
        """Return whether there is a connection, to where the name still points to."""
        kept = self._socket
        if kept is None or self._ahead:
            return kept is not None
        return not is_stale(kept) and not self._watch.has_moved(self._peer)

    def _open(self, deadline: float) -> None:
        """Connect and log in, and say who we are where the server lets us."""
        try:
            self._log_in(deadline)
            if self._names_itself:
                try:
                    self._tell_name(_halfway(_halfway(deadline)))
                except _BROKEN:
                    self._names_itself = False
                    self._log_in(deadline)
        except (*_BROKEN, TargetError):
            self.close()
            raise

    def _log_in(self, deadline: float) -> None:
        """Connect and log in; where the password is refused, with the one that its file has now."""
        self._connect(deadline)
        refused = self._introduce(deadline)
        if refused is not None and refused.reason == "auth" and self._reread_password():
            self._connect(deadline)
            refused = self._introduce(deadline)
        if refused is not None:
            raise bare(refused)

    def _connect(self, deadline: float) -> None:
        self.close()
        self._patience = deadline
        self._introduced = False
        self._first = b""
        if self._find is not None:
            self._go_to(self._find(deadline))
        opened = dial(self.url, deadline, self._hold, self._names)
        if self.url.scheme == "rediss":
            opened = self._secure(opened, deadline)
        self._peer = peer_address(opened)

    def _go_to(self, url: Url) -> None:
        if url.host != self.url.host:
            self._watch = AddressWatch(url.host)
        self.url = url

    def _secure(self, opened: socket.socket, deadline: float) -> socket.socket:
        name = self._tls.server_name or self.url.host
        secured = self._tls.context().wrap_socket(
            opened, server_hostname=name, do_handshake_on_connect=False
        )
        self._hold(secured)
        arm(secured, deadline)
        try:
            secured.do_handshake()
        except TimeoutError:
            raise no_handshake(self.url) from None
        return secured

    def _hold(self, opened: socket.socket) -> None:
        """Keep a socket where abort() reaches it, whatever waits for it."""
        self._socket = opened
        if self._over:
            msg = "the collector was stopped"
            raise ConnectionAbortedError(msg)

    def _reread_password(self) -> bool:
        """Return whether the password has changed where the settings took it from."""
        before = self._password
        self._password = before and before.reread()
        return self._password != before

    def _introduce(self, deadline: float) -> TargetError | None:
        """Log in once, and choose the database; return what was refused."""
        commands: list[Command] = []
        if self._password is not None or self.url.username:
            user = (self.url.username,) if self.url.username else ()
            password = self._password.reveal() if self._password is not None else ""
            commands.append(("AUTH", *user, password))
        if number := database(self.url):
            commands.append(("SELECT", number))
        for command in commands:
            # One by one: a server that refuses us may hang up right after saying why.
            reply = self._exchange_one(command, deadline)
            if isinstance(reply, ReplyError):
                return refusal(self.url, str(command[0]), reply)
        return None

    def _tell_name(self, deadline: float) -> None:
        reply = self._exchange_one(("CLIENT", "SETNAME", "bts-exporter"), deadline)
        if isinstance(reply, ReplyError):
            error = refusal(self.url, "CLIENT", reply)
            if error.reason not in {"noperm", "protocol"}:
                raise bare(error)

    def _exchange_one(self, command: Command, deadline: float) -> Reply:
        replies: list[Reply] = []
        self._exchange([command], replies, deadline)
        self._introduced = True
        return replies[0]

    def _exchange(
        self,
        commands: Sequence[Command],
        replies: list[Reply],
        deadline: float,
        ahead: Sequence[Command] = (),
    ) -> None:
        """Append the missing replies; always one chunk of commands is under way before it is waited for."""
        first = len(replies)
        chunks = [commands[at : at + PIPELINE] for at in range(first, len(commands), PIPELINE)]
        alone = len(commands) == 1 and not ahead
        if not self._ahead:
            self._send(chunks[0])
        for chunk, following in zip(chunks, [*chunks[1:], ahead[:PIPELINE]], strict=True):
            self._send(following)
            self._receive(replies, len(replies) + len(chunk), deadline, alone=alone)
        self._ahead = ahead
        if not self._reader.has_data():
            self._guard.at_boundary()

    def _send(self, commands: Sequence[Command]) -> None:
        if commands:
            send(self._connected(), b"".join(map(_pack, commands)), self._patience)

    def _receive(self, replies: list[Reply], count: int, deadline: float, *, alone: bool) -> None:
        """Receive until there are `count` replies.

        Each gets half of the time left, so that one that does not come leaves some for the
        others; one that is `alone` gets all of it.
        """
        connected, gets = self._connected(), self._reader.gets
        limit = 0.0
        while len(replies) < count:
            reply = gets(False)
            if reply is not _NOTHING:
                replies.append(reply)
                limit = 0.0
                continue
            limit = limit or (deadline if alone else _halfway(deadline))
            arm(connected, min(limit, self._patience))
            received = connected.recv(65536)
            if not received:
                msg = "the server closed the connection"
                raise ConnectionResetError(msg)
            self._first = self._first or received[:32]
            self._patience = deadline
            try:
                self._guard.check(received)
            except OversizedReply as error:
                # The replies in front of it are as good as any.
                self._reader.feed(received[: error.sound])
                replies += islice(iter(partial(gets, False), _NOTHING), count - len(replies))
                raise
            self._reader.feed(received)

    def _connected(self) -> socket.socket:
        if self._socket is None:
            msg = "the connection is closed"
            raise ConnectionAbortedError(msg)
        return self._socket


def _pack(command: Command) -> bytes:
    packed: bytes = pack_command(command)  # type: ignore[arg-type]  # the stub says: of one word
    return packed


def _halfway(deadline: float) -> float:
    now = monotonic()
    return now + (deadline - now) / 2


def _lost_at(name: str, failed: TargetError) -> Lost:
    """Return what stands in place of the replies to a command that a connection ended at."""
    return Lost(TargetError(failed.reason, f"{failed} (when it was asked for {name})"))
