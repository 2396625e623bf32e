"""One connection to the broker, from CONNECT to its end; only the network thread is in here."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Event
from time import monotonic
from typing import Any, Protocol

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from bts_collectors.mqtt import failures
from bts_collectors.mqtt.guard import Guard
from bts_collectors.mqtt.link import Link
from bts_exporter import Secret, TargetError, Url

PORTS = {"mqtt": 1883, "mqtts": 8883}
#: Seconds for each of: TCP connection, TLS handshake, answer to CONNECT.
CONNECT_SECONDS = 5.0
#: Seconds after which the thread looks up from its socket: whether to stop, whether to ping.
TICK = 0.5
#: Codes of MQTT 5 (2.4), which paho uses whatever the protocol.
_DENIED = 128  # and above, in SUBACK
_KEEP_ALIVE_TIMEOUT = 141


class Receiver(Protocol):
    """Where messages go; called by the network thread."""

    @property
    def filters(self) -> Sequence[str]:
        """Return what to subscribe to."""

    def begin(self) -> None:
        """Take note that a new connection was made; its messages follow."""

    def receive(self, topic: str, payload: bytes) -> None:
        """Take a message."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect, and as who."""

    url: Url
    password: Secret | None
    client_id: str
    keepalive: int  # seconds


class Session:
    """One connection and none after it: each has a client of its own, so that no state is left over."""

    def __init__(self, target: Target, receiver: Receiver, link: Link, guard: Guard) -> None:
        """Give where messages and news of the connection go, and what errors of `receiver` end in."""
        self._target = target
        self._receiver = receiver
        self._link = link
        self._guard = guard
        self._refusal: int | None = None
        self._hung = False

    def run(self, stopping: Event) -> None:
        """Connect, subscribe and receive until `stopping` is set; TargetError when it ends before."""
        client = self._client()
        url = self._target.url
        try:
            client.connect(url.host, url.port or PORTS[url.scheme], self._target.keepalive)
        except (OSError, UnicodeError) as error:
            raise failures.not_connected(url, error) from error
        try:
            self._serve(client, stopping)
        finally:
            client.disconnect()

    def _client(self) -> Client:
        # The client holds this object's methods; this object must not hold the client, or the
        # cycle of the two keeps a dead connection's sockets open until the garbage collector runs.
        target = self._target
        client = Client(CallbackAPIVersion.VERSION2, target.client_id, reconnect_on_failure=False)
        client.connect_timeout = CONNECT_SECONDS
        if target.url.username:
            password = target.password.reveal() if target.password else None
            client.username_pw_set(target.url.username, password)
        if target.url.scheme == "mqtts":
            client.tls_set_context(ssl.create_default_context())
        client.on_socket_open = self._on_socket_open
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_disconnect = self._on_disconnect
        return client

    def _serve(self, client: Client, stopping: Event) -> None:
        patience = monotonic() + CONNECT_SECONDS
        while not stopping.is_set():
            ended = client.loop(TICK)
            if ended != MQTTErrorCode.MQTT_ERR_SUCCESS:
                raise self._why_ended(ended)
            if not self._link.connected and monotonic() > patience:
                raise failures.mute(self._target.url, CONNECT_SECONDS)

    def _why_ended(self, ended: MQTTErrorCode) -> TargetError:
        if not self._link.connected:
            return failures.not_accepted(self._target.url, self._refusal)
        garbled = ended == MQTTErrorCode.MQTT_ERR_PROTOCOL
        return failures.lost(self._target.url, hung=self._hung, garbled=garbled)

    def _on_socket_open(self, _client: Client, _userdata: Any, opened: Any) -> None:
        # A message of ours must not wait for the acknowledgement of the one before (Nagle).
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _on_connect(
        self,
        client: Client,
        _userdata: Any,
        _flags: ConnectFlags,
        code: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if code.is_failure:
            self._refusal = code.value
            return
        self._receiver.begin()
        self._link.connects += 1
        self._link.connected = True
        client.subscribe([(name, 0) for name in self._receiver.filters])

    def _on_subscribe(
        self,
        _client: Client,
        _userdata: Any,
        _mid: int,
        codes: list[ReasonCode],
        _properties: Properties | None,
    ) -> None:
        granted = [code.value if code.value < _DENIED else -1 for code in codes]
        self._link.granted = dict(zip(self._receiver.filters, granted, strict=False))

    def _on_message(self, _client: Client, _userdata: Any, message: MQTTMessage) -> None:
        with self._guard:
            self._receiver.receive(message.topic, bytes(message.payload))

    def _on_disconnect(
        self,
        _client: Client,
        _userdata: Any,
        _flags: DisconnectFlags,
        code: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        self._hung = code.value == _KEEP_ALIVE_TIMEOUT
