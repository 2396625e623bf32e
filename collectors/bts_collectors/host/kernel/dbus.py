"""D-Bus client for systemd: sends many calls at once, and never waits beyond the deadline.

jeepney implements the protocol. The socket is our own, since jeepney's connection has no deadline.
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
from bts_exporter import NotPresent, Reason, TargetError

_SYSTEMD = "org.freedesktop.systemd1"
_MANAGER = DBusAddress("/org/freedesktop/systemd1", _SYSTEMD, f"{_SYSTEMD}.Manager")

#: Errors of the bus if systemd is not connected to it.
_ABSENT = {
    "org.freedesktop.DBus.Error.NameHasNoOwner",
    "org.freedesktop.DBus.Error.ServiceUnknown",
}

#: Errors of a systemd version without the property.
_UNKNOWN_PROPERTY = {
    "org.freedesktop.DBus.Error.InvalidArgs",
    "org.freedesktop.DBus.Error.UnknownProperty",
}

#: Calls in flight at the same time; a bus refuses more than 128.
_AT_ONCE = 32

_RECEIVE_BYTES = 65536

#: Bytes of a reply that an error shows.
_SHOWN = 60

#: The shortest socket timeout in seconds; a timeout of 0 would make the socket non-blocking.
_MIN_TIMEOUT = 0.001


class SystemdConnection:
    """A connection for one collection, to the system bus or directly to systemd.

    Raises OSError that names the socket, TargetError, and NotPresent if systemd is absent.
    """

    def __init__(self, path: str, remaining: Callable[[], float], *, direct: bool = False) -> None:
        """Connect to the socket `path`; `remaining` returns the seconds until the deadline."""
        self._path = path
        self._remaining = remaining
        self._parser = Parser()
        self._serials = count(1)
        self._socket = with_room(socket.socket, socket.AF_UNIX)
        with ExitStack() as unless_connected:
            unless_connected.callback(self._socket.close)
            self._authenticate()
            if not direct:
                self._call(message_bus.Hello())
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
        """Return the units that systemd knows, in the form of `ListUnits`."""
        return list(self._call(new_method_call(_MANAGER, "ListUnits"))[0])

    def manager_property(self, name: str) -> object:
        """Return a property of systemd's manager; None if this version does not have it."""
        reply = next(self._replies([Properties(_MANAGER).get(name)]))
        if reply.header.fields.get(HeaderFields.error_name) in _UNKNOWN_PROPERTY:
            return None
        return self._body(reply)[0][1]

    def properties(self, requests: Iterable[tuple[str, str, str]]) -> Iterator[object]:
        """Yield a value for each `(path of the unit, interface, property)`; None if it is refused."""
        for reply in self._replies(
            Properties(DBusAddress(path, _SYSTEMD, f"{_SYSTEMD}.{interface}")).get(name)
            for path, interface, name in requests
        ):
            yield None if _is_error(reply) else reply.body[0][1]

    def _call(self, call: Message) -> tuple[Any, ...]:
        """Return the body of the reply to one call."""
        return self._body(next(self._replies([call])))

    def _body(self, reply: Message) -> tuple[Any, ...]:
        if not _is_error(reply):
            body: tuple[Any, ...] = reply.body
            return body
        name = reply.header.fields.get(HeaderFields.error_name, "")
        if name in _ABSENT:
            msg = f"{self._path}: systemd is not connected to this bus"
            raise NotPresent(msg)
        reason: Reason = "noperm" if name.endswith(".AccessDenied") else "protocol"
        raise TargetError(reason=reason, message=f"{self._path}: refused: {name} {reply.body}")

    def _replies(self, calls: Iterable[Message]) -> Iterator[Message]:
        """Send `calls` and yield the reply to each, in their order."""
        calls = iter(calls)
        while batch := list(islice(calls, _AT_ONCE)):
            replies: dict[int, Message | None] = {}
            for call in batch:
                # If systemd is not running, the bus must report that instead of starting it.
                call.header.flags |= MessageFlag.no_auto_start
                serial = next(self._serials)
                replies[serial] = None
                self._do(self._socket.sendall, call.serialise(serial=serial))
            for _ in batch:
                self._receive(replies)
            yield from replies.values()

    def _receive(self, replies: dict[int, Message | None]) -> None:
        """Wait for one more of `replies`; skip signals and other messages."""
        while True:
            message = self._message()
            serial = message.header.fields.get(HeaderFields.reply_serial)
            if serial in replies and replies[serial] is None:
                replies[serial] = message
                return

    def _message(self) -> Message:
        while True:
            try:
                message = self._parser.get_next_message()
            except (ValueError, LookupError, struct.error) as error:
                raise self._invalid(error) from error
            if message is not None:
                return message
            self._parser.add_data(self._read())

    def _authenticate(self) -> None:
        self._do(self._socket.connect, self._path)
        # In one write: systemd leaves a call that it reads together with BEGIN until the next call.
        self._do(self._socket.sendall, b"\0" + make_auth_external() + BEGIN)
        reply = b""
        while not reply.endswith(b"\r\n"):
            reply += self._read()
        if not reply.startswith(b"OK "):
            msg = (
                f"{self._path}: the bus does not accept this user: {text(reply[:_SHOWN].strip())!r}"
            )
            raise TargetError(reason="auth", message=msg)

    def _read(self) -> bytes:
        data: bytes = self._do(self._socket.recv, _RECEIVE_BYTES)
        if not data:
            msg = f"{self._path}: the bus closed the connection"
            raise TargetError(reason="unreachable", message=msg)
        return data

    def _do(self, action: Callable[[Any], Any], argument: object) -> Any:
        """Return the result of a method of the socket, called with the remaining time as its timeout."""
        left = self._remaining()
        if left <= _MIN_TIMEOUT:
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

    def _invalid(self, error: Exception) -> TargetError:
        msg = f"{self._path}: the reply is not valid D-Bus: {error!r}"
        return TargetError(reason="protocol", message=msg)


def _is_error(message: Message) -> bool:
    return message.header.message_type is MessageType.error
