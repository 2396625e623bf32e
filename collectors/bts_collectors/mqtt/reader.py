"""paho's client, reading many messages at once: by itself it takes four system calls and eight locks for each.

It uses names that are private to paho; where one is missing, paho reads as it always does.
"""

from __future__ import annotations

from ssl import SSLError
from time import monotonic, sleep
from typing import Any

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion

from bts_collectors.mqtt.guard import Guard
from bts_collectors.mqtt.router import MAX_PAYLOAD, Router

#: Bytes read at once.
_CHUNK = 65536
#: Seconds: brokers write each message by itself, and where they follow each other faster than this
#: we wait for more of them, since a look at the socket costs as much as several messages.
_GATHER = 0.002
#: Payload, topic, and properties within reason.
_MAX_PACKET = MAX_PAYLOAD + 2 * 65536
#: First byte of a PUBLISH with QoS 0, and its bit that may be set.
_PUBLISH = 0x30
_RETAIN = 0x01
#: Bytes of the shortest: its head, and a topic of one.
_SHORTEST = 5
#: Numbers have seven bits a byte, and more follows where the eighth is set.
_NUMBER_BYTES = 4
_MORE = 0x80
#: What is not all there: more than any number.
_UNKNOWN = 1 << 32

#: All of paho's private names in this file.
_PRIVATE = (
    "_in_packet",
    "_loop_rc_handle",
    "_packet_handle",
    "_protocol",
    "_send_puback",
    "_send_pubrec",
    "_sock",
    "_sock_recv",
)


class BatchReader(Client):
    """Hands messages of QoS 0 straight to the router, and everything else to paho."""

    def __init__(self, router: Router, guard: Guard, **settings: Any) -> None:
        """Give what errors of a message's handler end in; `settings` are paho's."""
        super().__init__(CallbackAPIVersion.VERSION2, **settings)
        self._router = router
        self._guard = guard
        self._rest = b""  # the beginning of a packet
        self._at = 0  # all before it in the buffer is dealt with
        self._read_at = 0.0  # on the clock of `time.monotonic`
        self._skip = 0  # bytes yet to come of a message that is too large

    @classmethod
    def fits(cls) -> bool:
        """Return whether the installed paho has all that is needed of its inside."""
        plain = Client(CallbackAPIVersion.VERSION2)
        return all(hasattr(plain, name) for name in _PRIVATE)

    def loop_read(self, max_packets: int = 1) -> MQTTErrorCode:  # noqa: ARG002  # paho's argument
        """Read what there is, up to 64 KiB, and deal with all packets that are complete."""
        if monotonic() - self._read_at < _GATHER:
            sleep(_GATHER)
        try:
            data = self._sock_recv(_CHUNK)
        except BlockingIOError:
            return MQTTErrorCode.MQTT_ERR_SUCCESS
        except SSLError:
            raise  # it says why, which paho's codes cannot
        except OSError:
            data = b""
        result = MQTTErrorCode.MQTT_ERR_CONN_LOST
        if data:
            # What fills the chunk is not all that there is.
            self._read_at = monotonic() if len(data) < _CHUNK else 0.0
            result = self._consume(self._rest + data if self._rest else data)
        return self._loop_rc_handle(result) if result else result

    def _consume(self, buffer: bytes) -> MQTTErrorCode:
        self._at = min(self._skip, len(buffer))
        self._skip -= self._at
        connection = self._sock
        result: MQTTErrorCode | None = MQTTErrorCode.MQTT_ERR_SUCCESS
        while result == MQTTErrorCode.MQTT_ERR_SUCCESS and self._sock is connection:
            with self._guard:
                self._deliver(buffer)
            # Also the next message, where the one before it failed.
            result = self._hand_over(buffer)
        self._rest = buffer[self._at :]
        return result or MQTTErrorCode.MQTT_ERR_SUCCESS

    def _deliver(self, buffer: bytes) -> None:
        """Deal with messages of QoS 0 until anything else comes, incomplete or malformed ones too."""
        router, at, end = self._router, self._at, len(buffer)
        has_properties = self._protocol == MQTTProtocolVersion.MQTTv5
        while at + _SHORTEST <= end and buffer[at] | _RETAIN == _PUBLISH | _RETAIN:
            length, start = buffer[at + 1], at + 2
            if length & _MORE:
                length, start = _number(buffer, at + 1)
            stop = start + length
            if stop > end or length < _SHORTEST - 2:
                return
            payload = topic_end = start + 2 + (buffer[start] << 8) + buffer[start + 1]
            if has_properties:
                size, payload = _number(buffer, topic_end)
                payload += size
            if payload > stop or topic_end == start + 2:
                return
            retained = buffer[at] != _PUBLISH
            self._at = at = stop
            router[buffer[start + 2 : topic_end]](buffer[payload:stop], retained)

    def _hand_over(self, buffer: bytes) -> MQTTErrorCode | None:
        """Have paho deal with the next packet; None where it is not all there."""
        length, start = _number(buffer, self._at + 1)
        if length == _UNKNOWN:
            endless = len(buffer) - start >= _NUMBER_BYTES
            return MQTTErrorCode.MQTT_ERR_PROTOCOL if endless else None
        if length > _MAX_PACKET:
            return self._leave_out(buffer, start, start + length)
        if start + length > len(buffer):
            return None
        self._in_packet = {
            "command": buffer[self._at],
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

    def _leave_out(self, buffer: bytes, start: int, stop: int) -> MQTTErrorCode | None:
        """Pass over a message that is too large to be kept; None where its number is not there yet."""
        qos = buffer[self._at] >> 1 & 3
        if buffer[self._at] >> 4 != _PUBLISH >> 4 or qos > 2:  # noqa: PLR2004  # there is no QoS 3
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        if qos:
            number = start + 2 + int.from_bytes(buffer[start : start + 2])
            if number + 2 > len(buffer):
                return None
            # Or the broker would send it again at each connection.
            acknowledge = self._send_puback if qos == 1 else self._send_pubrec
            acknowledge(int.from_bytes(buffer[number : number + 2]))
        self._router.oversized += 1
        self._skip = stop - len(buffer)
        self._at = len(buffer)
        return MQTTErrorCode.MQTT_ERR_SUCCESS


def _number(buffer: bytes, at: int) -> tuple[int, int]:
    """Return the number that begins at `at`, and where it ends."""
    if at + 1 < len(buffer) and buffer[at] & _MORE > buffer[at + 1] & _MORE:  # most are of two
        return buffer[at] - _MORE + (buffer[at + 1] << 7), at + 2
    value = 0
    for place, byte in enumerate(buffer[at : at + _NUMBER_BYTES]):
        value |= (byte & ~_MORE) << 7 * place
        if not byte & _MORE:
            return value, at + place + 1
    return _UNKNOWN, at
