"""How systemd is asked: calls over D-Bus, many at once, none of which waits beyond the deadline.

jeepney has the protocol; the socket is ours, since jeepney's own waits for ever when a bus hangs.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from itertools import count, islice
from types import TracebackType
from typing import Any, Self

from jeepney import (  # type: ignore[import-untyped]
    DBusAddress,
    HeaderFields,
    Message,
    MessageFlag,
    MessageType,
    Parser,
    Properties,
    message_bus,
    new_method_call,
)
from jeepney.auth import BEGIN, make_auth_external  # type: ignore[import-untyped]

from bts_collectors.host.kernel.files import text
from bts_collectors.host.kernel.open_files import with_room
from bts_exporter import NothingToRead, Reason, TargetError

_SYSTEMD = "org.freedesktop.systemd1"
_MANAGER = DBusAddress("/org/freedesktop/systemd1", _SYSTEMD, f"{_SYSTEMD}.Manager")

#: Errors of the bus when systemd is not on it.
_NOT_THERE = {
    "org.freedesktop.DBus.Error.NameHasNoOwner",
    "org.freedesktop.DBus.Error.ServiceUnknown",
}

#: Errors of a systemd that is older than a property.
_NOT_KNOWN = {
    "org.freedesktop.DBus.Error.InvalidArgs",
    "org.freedesktop.DBus.Error.UnknownProperty",
}

#: Calls that wait for their answers at the same time: a bus refuses more than 128.
_AT_ONCE = 32

_RECEIVED = 65536

#: Bytes of an answer that an error shows.
_SHOWN = 60

#: The time left is never 0: it is what a time-out of a socket can be.
_NO_TIME = 0.001


class SystemdConnection:
    """A connection for one collection, to the system's bus, or to systemd itself.

    Raises OSError that names the socket, TargetError, and NothingToRead where systemd is not there.
    """

    def __init__(self, path: str, remaining: Callable[[], float], *, direct: bool = False) -> None:
        """Connect to the socket `path`; `remaining` gives the seconds left for everything."""
        self._path = path
        self._remaining = remaining
        self._parser = Parser()
        self._serials = count(1)
        self._socket = with_room(socket.socket, socket.AF_UNIX)
        with ExitStack() as unless_connected:
            unless_connected.callback(self._socket.close)
            self._authenticate()
            if not direct:
                self._ask(message_bus.Hello())
            unless_connected.pop_all()

    def __enter__(self) -> Self:
        """Return the connection."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connection."""
        self._socket.close()

    def units(self) -> list[tuple[Any, ...]]:
        """Return the units that systemd knows, each as `ListUnits` has it."""
        return list(self._ask(new_method_call(_MANAGER, "ListUnits"))[0])

    def manager(self, name: str) -> object:
        """Return a property of systemd itself; None where this version does not have it."""
        answer = next(self._answers([Properties(_MANAGER).get(name)]))
        if answer.header.fields.get(HeaderFields.error_name) in _NOT_KNOWN:
            return None
        return self._body(answer)[0][1]

    def properties(self, wanted: Iterable[tuple[str, str, str]]) -> Iterator[object]:
        """Yield a value for each `(path of the unit, interface, property)`; None where refused."""
        for answer in self._answers(
            Properties(DBusAddress(path, _SYSTEMD, f"{_SYSTEMD}.{interface}")).get(name)
            for path, interface, name in wanted
        ):
            yield None if _is_error(answer) else answer.body[0][1]

    def _ask(self, call: Message) -> tuple[Any, ...]:
        """Return what is answered to one call."""
        return self._body(next(self._answers([call])))

    def _body(self, answer: Message) -> tuple[Any, ...]:
        if not _is_error(answer):
            body: tuple[Any, ...] = answer.body
            return body
        name = answer.header.fields.get(HeaderFields.error_name, "")
        if name in _NOT_THERE:
            msg = f"{self._path}: systemd is not on this bus"
            raise NothingToRead(msg)
        reason: Reason = "noperm" if name.endswith(".AccessDenied") else "protocol"
        raise TargetError(reason=reason, message=f"{self._path}: refused: {name} {answer.body}")

    def _answers(self, calls: Iterable[Message]) -> Iterator[Message]:
        """Yield the answer to each of `calls`, in their order."""
        calls = iter(calls)
        while some := list(islice(calls, _AT_ONCE)):
            answers: dict[int, Message | None] = {}
            for call in some:
                # Where systemd does not run, the bus shall say so, and not try to start it.
                call.header.flags |= MessageFlag.no_auto_start
                serial = next(self._serials)
                answers[serial] = None
                self._do(self._socket.sendall, call.serialise(serial=serial))
            for _ in some:
                self._receive(answers)
            yield from answers.values()

    def _receive(self, answers: dict[int, Message | None]) -> None:
        """Wait for one more of `answers`; signals and the like are skipped."""
        while True:
            message = self._message()
            serial = message.header.fields.get(HeaderFields.reply_serial)
            if serial in answers and answers[serial] is None:
                answers[serial] = message
                return

    def _message(self) -> Message:
        while True:
            try:
                message = self._parser.get_next_message()
            except (ValueError, LookupError, struct.error) as error:
                raise self._garbage(error) from error
            if message is not None:
                return message
            self._parser.add_data(self._read())

    def _authenticate(self) -> None:
        self._do(self._socket.connect, self._path)
        # All in one: systemd forgets a call that it reads together with BEGIN until the next comes.
        self._do(self._socket.sendall, b"\0" + make_auth_external() + BEGIN)
        answer = b""
        while not answer.endswith(b"\r\n"):
            answer += self._read()
        if not answer.startswith(b"OK "):
            msg = f"{self._path}: the bus does not accept this user: {text(answer[:_SHOWN].strip())!r}"
            raise TargetError(reason="auth", message=msg)

    def _read(self) -> bytes:
        data: bytes = self._do(self._socket.recv, _RECEIVED)
        if not data:
            msg = f"{self._path}: the bus closed the connection"
            raise TargetError(reason="unreachable", message=msg)
        return data

    def _do(self, action: Callable[[Any], Any], argument: object) -> Any:
        """Return what a method of the socket does within the time left."""
        left = self._remaining()
        if left <= _NO_TIME:
            raise self._late()
        self._socket.settimeout(left)
        try:
            return action(argument)
        except TimeoutError:
            raise self._late() from None
        except OSError as error:
            error.filename = self._path
            raise

    def _late(self) -> TargetError:
        msg = f"{self._path}: systemd did not answer in time"
        return TargetError(reason="timeout", message=msg)

    def _garbage(self, error: Exception) -> TargetError:
        msg = f"{self._path}: the answer is not D-Bus: {error!r}"
        return TargetError(reason="protocol", message=msg)


def _is_error(message: Message) -> bool:
    return message.header.message_type is MessageType.error
