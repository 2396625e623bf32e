"""paho's client, but it reads many messages at once: paho needs four system calls and eight locks for each.

It uses private names of paho. If one of them is missing, paho's own reading is used.
"""

from __future__ import annotations

import select
import socket
from collections import deque
from contextlib import ExitStack
from functools import partial
from ssl import SSLError, SSLSocket
from time import monotonic, sleep
from typing import Any, cast

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion

from bts_collectors.mqtt.client.error_boundary import ErrorBoundary
from bts_collectors.mqtt.client.router import MAX_PAYLOAD_BYTES, Router
from bts_collectors.mqtt.client.websocket import Socket, WebSocket, WebSocketError, read_available

#: Bytes of one read, and the size from which a read suggests that more is waiting.
_READ_BYTES = 65536
_FULL_READ_BYTES = _READ_BYTES // 2
#: Most bytes read in one loop, before other work such as a ping.
_MAX_LOOP_BYTES = 8 * 1024 * 1024
#: Seconds after SUBACK during which the retained messages arrive in a burst.
_RETAINED_BURST_SECONDS = 1.0
#: First bytes received that are kept, to identify servers that are not MQTT brokers.
_FIRST_BYTES = 16
#: Seconds. Brokers write each message separately. If messages follow each other faster than this,
#: the reader waits for more: one read costs as much as several messages.
_BATCH_DELAY_SECONDS = 0.002
#: Payload, topic and properties.
_MAX_PACKET = MAX_PAYLOAD_BYTES + 2 * 65536
#: Limit of unsent packets, for a broker that does not read.
_MAX_UNSENT = 10_000
#: First byte of a PUBLISH with QoS 0, and its RETAIN bit.
_PUBLISH = 0x30
_RETAIN = 0x01
_PUBREL = 0x62
_SUBACK = 0x90
#: Bytes of the shortest PUBLISH: the header, and a topic of one character.
_SHORTEST = 5
_READABLE = select.POLLIN | select.POLLPRI
#: A variable byte integer has seven bits in each byte; the eighth means that another byte follows.
_NUMBER_BYTES = 4
_MORE = 0x80
#: Result for an incomplete number: greater than any valid one.
_UNKNOWN = 1 << 32

#: All private names of paho that this file uses.
_PRIVATE = (
    "_connect_timeout",
    "_create_socket",
    "_create_socket_connection",
    "_host",
    "_in_packet",
    "_loop",
    "_loop_rc_handle",
    "_out_packet",
    "_packet_handle",
    "_port",
    "_protocol",
    "_send_puback",
    "_send_pubrec",
    "_sock",
    "_ssl_context",
    "_transport",
    "_websocket_path",
)


class UnreadAcknowledgementsError(Exception):
    """Raised when the broker sends messages with QoS 1 or 2 but does not read the acknowledgements."""


class BatchReader(Client):
    """Passes messages with QoS 0 directly to the router, and all other packets to paho."""

    def __init__(self, router: Router, boundary: ErrorBoundary, **settings: Any) -> None:
        """Take the boundary for handlers' errors; `settings` are paho's."""
        super().__init__(CallbackAPIVersion.VERSION2, **settings)
        self._router = router
        self._boundary = boundary
        self._rest = b""  # an incomplete packet
        self._at = 0  # position in the buffer: everything before it is done
        self._read_at = self._burst_until = 0.0  # on the clock of `time.monotonic`
        self._ended = False
        self._skip = 0  # bytes still to come of a message that is too large
        # Packet identifiers of delivered messages with QoS 2 that the broker may send again.
        self._delivered: set[int] = set()
        #: The first bytes received, for the error message if the server is not an MQTT broker.
        self.first_bytes = b""

    @classmethod
    def fits(cls) -> bool:
        """Return whether the installed paho has all the private names."""
        plain = Client(CallbackAPIVersion.VERSION2)
        return all(hasattr(plain, name) for name in _PRIVATE)

    def loop_read(self, max_packets: int = 1) -> MQTTErrorCode:  # noqa: ARG002  # paho's argument
        """Read what is available, up to 8 MiB, and process all complete packets."""
        now = monotonic()
        if now - self._read_at < _BATCH_DELAY_SECONDS and now > self._burst_until:
            sleep(_BATCH_DELAY_SECONDS)
        pieces: deque[bytes] = deque()
        total = size = self._drain(pieces)
        result = MQTTErrorCode.MQTT_ERR_SUCCESS
        while pieces and not result:
            piece = pieces.popleft()
            self.first_bytes = self.first_bytes or piece[:_FIRST_BYTES]
            result = self._consume(self._rest + piece if self._rest else piece)
            # Read before parsing: the broker drops messages if its buffers fill up.
            if (
                size >= _FULL_READ_BYTES
                and total < _MAX_LOOP_BYTES
                and self._sock
                and not self._ended
            ):
                total += (size := self._drain(pieces))
        self._read_at = monotonic() if total < _FULL_READ_BYTES else 0.0
        if self._ended and not result and self._sock:
            result = MQTTErrorCode.MQTT_ERR_CONN_LOST
        return self._loop_rc_handle(result) if result else result

    def _loop(self, timeout: float = 1.0) -> MQTTErrorCode:
        """Wait for the socket, at most `timeout` seconds; then read, write and ping.

        paho's version uses select(), which fails for descriptors above 1023.
        """
        sock = cast("Socket | WebSocket | None", self._sock)
        if sock is None:
            return MQTTErrorCode.MQTT_ERR_NO_CONN
        waits = select.poll()
        waits.register(sock.fileno(), _READABLE | (select.POLLOUT if self.want_write() else 0))
        # TLS may hold data that it has already read from the kernel.
        pending = isinstance(sock, SSLSocket | WebSocket) and sock.pending() > 0
        events = waits.poll(0 if pending else timeout * 1000)
        ready = events[0][1] if events else 0
        if pending or ready & ~select.POLLOUT:
            ended = self.loop_read()
            if ended or self._sock is None:
                return ended
        if ready & select.POLLOUT and (ended := self.loop_write()):
            return ended
        return self.loop_misc() if self._sock else MQTTErrorCode.MQTT_ERR_SUCCESS

    def _drain(self, pieces: deque[bytes]) -> int:
        """Append everything that can be read without waiting; return the number of bytes."""
        sock = cast("Socket | WebSocket", self._sock)
        read = sock.recv if isinstance(sock, WebSocket) else partial(read_available, sock)
        total, latest = 0, _READ_BYTES
        while total < _MAX_LOOP_BYTES and latest >= _FULL_READ_BYTES:
            try:
                data = read(_READ_BYTES)
            except BlockingIOError:
                break
            except (SSLError, WebSocketError):
                if pieces:
                    break  # the next read raises it again
                raise  # their text has the cause, which paho's codes do not
            except OSError:
                data = b""
            if not data:
                self._ended = True
                break
            pieces.append(data)
            latest = len(data)
            total += latest
        return total

    def _create_socket(self) -> Any:
        """Connect; on failure, close everything that was opened."""
        with ExitStack() as failing:
            if self._transport == "unix":
                made = failing.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                made.settimeout(self._connect_timeout)
                made.connect(self._host)
            else:
                made = failing.enter_context(self._create_socket_connection())
            result: Any = made
            if self._ssl_context:
                result = made = failing.enter_context(
                    self._ssl_context.wrap_socket(
                        made, server_hostname=self._host, do_handshake_on_connect=False
                    )
                )
                made.settimeout(self._connect_timeout)
                made.do_handshake()
            if self._transport == "websockets":
                name = self._websocket_host()
                result = WebSocket(made, name, self._websocket_path, self._connect_timeout)
            failing.pop_all()
        return result

    def _websocket_host(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        usual = self._port == (443 if self._ssl_context else 80)
        return host if usual else f"{host}:{self._port}"

    def _consume(self, buffer: bytes) -> MQTTErrorCode:
        self._at = min(self._skip, len(buffer))
        self._skip -= self._at
        connection = self._sock
        result: MQTTErrorCode | None = MQTTErrorCode.MQTT_ERR_SUCCESS
        while result == MQTTErrorCode.MQTT_ERR_SUCCESS and self._sock is connection:
            with self._boundary:
                self._deliver(buffer)
            # This passes the next packet to paho even if a handler failed.
            result = self._pass_to_paho(buffer)
        self._rest = buffer[self._at :]
        return result or MQTTErrorCode.MQTT_ERR_SUCCESS

    def _deliver(self, buffer: bytes) -> None:
        """Deliver messages with QoS 0, up to the first other, incomplete or malformed packet."""
        router, at, end = self._router, self._at, len(buffer)
        has_properties = self._protocol == MQTTProtocolVersion.MQTTv5
        while at + _SHORTEST <= end and buffer[at] | _RETAIN == _PUBLISH | _RETAIN:
            length, start = buffer[at + 1], at + 2
            if length & _MORE:
                length, start = number_at(buffer, at + 1)
            stop = start + length
            if stop > end or length < _SHORTEST - 2:
                return
            payload = topic_end = start + 2 + (buffer[start] << 8) + buffer[start + 1]
            if has_properties:
                size, payload = number_at(buffer, topic_end)
                payload += size
            if payload > stop or topic_end == start + 2:
                return
            retained = buffer[at] != _PUBLISH
            self._at = at = stop
            if has_properties and size:
                properties = buffer[payload - size : payload]
                router[buffer[start + 2 : topic_end]](buffer[payload:stop], retained, properties)
            else:
                router[buffer[start + 2 : topic_end]](buffer[payload:stop], retained)

    def _pass_to_paho(self, buffer: bytes) -> MQTTErrorCode | None:
        """Pass the next packet to paho; return None if it is incomplete."""
        if len(self._out_packet) > _MAX_UNSENT:
            raise UnreadAcknowledgementsError
        length, start = number_at(buffer, self._at + 1)
        if length == _UNKNOWN:
            endless = len(buffer) - start >= _NUMBER_BYTES
            return MQTTErrorCode.MQTT_ERR_PROTOCOL if endless else None
        if length > _MAX_PACKET:
            return self._skip_message(buffer, start, start + length)
        if start + length > len(buffer):
            return None
        command = buffer[self._at]
        if command >> 4 == _PUBLISH >> 4 and command & 0x06:
            self._at = start + length
            return self._acknowledge(command, buffer[start : start + length])
        if command == _SUBACK:
            self._burst_until = monotonic() + _RETAINED_BURST_SECONDS
        if command == _PUBREL:
            self._delivered.discard(int.from_bytes(buffer[start : start + 2]))
        self._in_packet = {
            "command": command,
            "have_remaining": 1,
            "remaining_count": [],
            "remaining_mult": 1,
            "remaining_length": length,
            "packet": bytearray(buffer[start : start + length]),
            "to_process": 0,
            "pos": 0,
        }
        self._at = start + length
        return self._packet_handle()

    def _acknowledge(self, command: int, body: bytes) -> MQTTErrorCode:
        """Deliver a message with QoS 1 or 2, and acknowledge it.

        A message with QoS 2 is delivered at once, and its packet identifier is kept until PUBREL.
        Keeping the message until then would let the broker fill our memory.
        """
        qos = command >> 1 & 3
        topic_end = 2 + int.from_bytes(body[:2])
        number, start = int.from_bytes(body[topic_end : topic_end + 2]), topic_end + 2
        properties = b""
        if self._protocol == MQTTProtocolVersion.MQTTv5:
            size, start = number_at(body, start)
            properties = body[start : start + size]
            start += size
        if qos > 2 or topic_end == 2 or not number or start > len(body):  # noqa: PLR2004
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        if qos == 1 or number not in self._delivered:
            self._route(body[2:topic_end], body[start:], bool(command & _RETAIN), properties)
        if qos == 1:
            return self._send_puback(number)
        self._delivered.add(number)
        return self._send_pubrec(number)

    def _route(self, topic: bytes, payload: bytes, retained: bool, properties: bytes) -> None:  # noqa: FBT001
        if len(payload) > MAX_PAYLOAD_BYTES:
            self._router.oversized += 1
            return
        with self._boundary:
            self._router[topic](payload, retained, properties)

    def _skip_message(self, buffer: bytes, start: int, stop: int) -> MQTTErrorCode | None:
        """Skip a message that is too large; return None if its packet identifier has not arrived yet."""
        qos = buffer[self._at] >> 1 & 3
        if buffer[self._at] >> 4 != _PUBLISH >> 4 or qos > 2:  # noqa: PLR2004  # there is no QoS 3
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        if qos:
            number = start + 2 + int.from_bytes(buffer[start : start + 2])
            if number + 2 > len(buffer):
                return None
            # Without an acknowledgement the broker would send it again at each connection.
            acknowledge = self._send_puback if qos == 1 else self._send_pubrec
            acknowledge(int.from_bytes(buffer[number : number + 2]))
        self._router.oversized += 1
        self._skip = stop - len(buffer)
        self._at = len(buffer)
        return MQTTErrorCode.MQTT_ERR_SUCCESS


def number_at(buffer: bytes, at: int) -> tuple[int, int]:
    """Return the variable byte integer at position `at`, and the position after it."""
    if (
        at + 1 < len(buffer) and buffer[at] & _MORE > buffer[at + 1] & _MORE
    ):  # fast path: most have two bytes
        return buffer[at] - _MORE + (buffer[at + 1] << 7), at + 2
    value = 0
    for index, byte in enumerate(buffer[at : at + _NUMBER_BYTES]):
        value |= (byte & ~_MORE) << 7 * index
        if not byte & _MORE:
            return value, at + index + 1
    return _UNKNOWN, at
