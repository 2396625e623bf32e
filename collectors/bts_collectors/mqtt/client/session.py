"""One connection to the broker, from CONNECT to its end; runs in the network thread."""

from __future__ import annotations

import logging
import os
import socket
import ssl
import struct
from dataclasses import dataclass, field
from functools import partial
from threading import Event
from time import monotonic
from typing import Any, Literal

from paho.mqtt import MQTTException
from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from bts_collectors.mqtt.client import errors
from bts_collectors.mqtt.client.batch_reader import (
    BatchReader,
    UnreadAcknowledgementsError,
    number_at,
)
from bts_collectors.mqtt.client.error_boundary import ErrorBoundary
from bts_collectors.mqtt.client.router import MAX_PAYLOAD_BYTES, Outgoing, Router
from bts_collectors.mqtt.client.state import ConnectionState
from bts_collectors.mqtt.client.subscriptions import Subscriptions, Suspects
from bts_collectors.mqtt.client.websocket import WebSocketError
from bts_exporter import AddressWatch, Secret, TargetError, TLSConfig, Url

log = logging.getLogger(__name__)

Protocol = Literal["3.1.1", 5]

#: Default ports by scheme; a unix socket has none.
PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443, "unix": None}
_TRANSPORTS = {"ws": "websockets", "wss": "websockets", "unix": "unix"}
#: Schemes that use TLS.
TLS = ("mqtts", "wss")
#: Schemes that may have a path.
PATHS = {"ws", "wss", "unix"}
_WEBSOCKET_PATH = "/mqtt"
_PROTOCOLS: dict[Protocol, MQTTProtocolVersion] = {
    "3.1.1": MQTTProtocolVersion.MQTTv311,
    5: MQTTProtocolVersion.MQTTv5,
}
#: Seconds for each of: TCP connection, TLS handshake, CONNACK.
CONNECT_SECONDS = 5.0
#: Longest wait for the socket, in seconds; then the thread checks whether to stop, and pings.
TICK_SECONDS = 0.5
#: Limit of published messages that wait for an acknowledgement; further ones are not sent.
MAX_UNACKNOWLEDGED = 100
#: Reason code of MQTT 5 (2.4), which paho uses for all versions.
_KEEP_ALIVE_TIMEOUT = 141
#: What paho raises for malformed packets.
_PROTOCOL_ERRORS = (AssertionError, LookupError, MQTTException, ValueError, struct.error)


@dataclass(frozen=True, slots=True)
class Target:
    """Address, identity and options of a connection."""

    url: Url
    password: Secret | None
    client_id: str
    keepalive_seconds: int
    protocol: Protocol = "3.1.1"
    tls: TLSConfig = field(default_factory=TLSConfig)
    alpn: tuple[str, ...] = ()


class Session:
    """A single connection: each one uses a new paho client, so that no state is carried over."""

    def __init__(  # noqa: PLR0913  # what outlives a connection
        self,
        target: Target,
        router: Router,
        state: ConnectionState,
        boundary: ErrorBoundary,
        *,
        suspects: Suspects | None = None,
        watch: AddressWatch | None = None,
    ) -> None:
        """Take the router of messages, the state to update, and the boundary for handlers' errors."""
        self._target = target
        self._router = router
        self._state = state
        self._boundary = boundary
        self._watch = watch or AddressWatch("")
        self._subscriptions = Subscriptions(router.subscriptions, suspects or Suspects(), state)
        self._refusal: ReasonCode | None = None
        #: Of the broker's DISCONNECT (MQTT 5).
        self._disconnect_code: ReasonCode | None = None
        self._timed_out = False

    def run(self, stopping: Event) -> None:
        """Connect, subscribe and receive until `stopping` is set or the host's address changes.

        TargetError if the connection fails or ends before that.
        """
        client = self._client()
        url = self._target.url
        # paho requires a port, even for unix sockets.
        port = url.port or PORTS[url.scheme] or 1
        try:
            sent = client.connect(url.host or url.path, port, self._target.keepalive_seconds)
        except (OSError, UnicodeError) as error:
            raise errors.not_connected(url, error) from error
        if sent != MQTTErrorCode.MQTT_ERR_SUCCESS and url.scheme in TLS:
            raise errors.closed_after_handshake(url)
        closed_by_broker = False
        try:
            self._serve(client, stopping)
        except TargetError:
            closed_by_broker = self._state.connected and not self._timed_out
            raise
        finally:
            self._subscriptions.end(closed_by_broker=closed_by_broker)
            client.disconnect()

    def _client(self) -> Client:
        # The client refers to this object's methods. This object must not refer to the client: the
        # cycle would keep a dead connection's socket open until the garbage collector runs.
        target, url = self._target, self._target.url
        settings: dict[str, Any] = {
            "client_id": target.client_id,
            "protocol": _PROTOCOLS[target.protocol],
            "transport": _TRANSPORTS.get(url.scheme, "tcp"),
            "reconnect_on_failure": False,
        }
        if BatchReader.fits():
            client: Client = BatchReader(self._router, self._boundary, **settings)
        else:
            client = Client(CallbackAPIVersion.VERSION2, **settings)
        client.connect_timeout = CONNECT_SECONDS
        client.max_queued_messages_set(MAX_UNACKNOWLEDGED)
        if url.username:
            password = target.password.reveal() if target.password else None
            client.username_pw_set(url.username, password)
        if url.scheme in TLS:
            client.tls_set_context(_context(target.tls, target.alpn))
        path = url.path or _WEBSOCKET_PATH
        client.ws_set_options(f"{path}?{url.query}" if url.query else path)
        client.on_socket_open = self._on_socket_open
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_disconnect = self._on_disconnect
        return client

    def _serve(self, client: Client, stopping: Event) -> None:
        began = next_tick = monotonic()
        publish = partial(_publish, client, self._target.protocol)
        peer = _peer(client)
        while not stopping.is_set():
            self._state.heartbeat = now = monotonic()
            if not self._state.connected and now > began + CONNECT_SECONDS:
                raise errors.no_connack(self._target.url, CONNECT_SECONDS)
            if self._state.connected and now >= next_tick:
                next_tick = now + TICK_SECONDS
                if self._watch.has_moved(peer):
                    log.info(
                        "%s: reconnecting: the host name resolves to another address",
                        self._target.url,
                    )
                    return
                self._subscriptions.advance(partial(self._subscribe, client))
                if self._subscriptions.settled:
                    self._router.tick(publish)
            try:
                ended = client.loop(TICK_SECONDS)
            except (ssl.SSLError, WebSocketError) as error:
                # With TLS 1.3 the broker checks our certificate after the handshake.
                raise errors.not_connected(self._target.url, error) from error
            except UnreadAcknowledgementsError as error:
                raise errors.acknowledgements_unread(self._target.url) from error
            except _PROTOCOL_ERRORS as error:
                raise self._why_ended(MQTTErrorCode.MQTT_ERR_PROTOCOL, client) from error
            if ended != MQTTErrorCode.MQTT_ERR_SUCCESS:
                raise self._why_ended(ended, client)

    def _why_ended(self, ended: MQTTErrorCode, client: Client) -> TargetError:
        url = self._target.url
        first = client.first_bytes if isinstance(client, BatchReader) else b""
        malformed = ended == MQTTErrorCode.MQTT_ERR_PROTOCOL
        if self._disconnect_code and self._state.connected:
            return errors.disconnected(url, self._disconnect_code)
        if not self._state.connected:
            return errors.not_accepted(
                url, self._refusal or self._disconnect_code, first, malformed=malformed
            )
        waiting = self._subscriptions.waiting
        return errors.connection_lost(
            url, timed_out=self._timed_out, malformed=malformed, requested=waiting
        )

    def _subscribe(self, client: Client, name: str, qos: int) -> int | None:
        if self._target.protocol == 5:  # noqa: PLR2004  # the version's name
            return client.subscribe(name, options=SubscribeOptions(qos))[1]
        return client.subscribe(name, qos)[1]

    def _on_socket_open(self, _client: Client, _userdata: Any, opened: Any) -> None:
        if self._target.url.scheme == "unix":
            return
        # A published message must not wait for the previous one's acknowledgement (Nagle). Our
        # WebSocket has no setsockopt: a duplicate of its descriptor sets the same socket's option.
        with socket.socket(fileno=os.dup(opened.fileno())) as same:
            same.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _on_connect(
        self,
        client: Client,
        _userdata: Any,
        _flags: ConnectFlags,
        code: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if code.is_failure:
            self._refusal = code
            return
        self._router.begin()
        self._state.connects += 1
        self._state.connected = True
        self._subscriptions.begin(partial(self._subscribe, client))

    def _on_subscribe(
        self,
        client: Client,
        _userdata: Any,
        mid: int,
        codes: list[ReasonCode],
        _properties: Properties | None,
    ) -> None:
        self._subscriptions.answer(mid, codes)
        self._subscriptions.advance(partial(self._subscribe, client))

    def _on_message(self, _client: Client, _userdata: Any, message: MQTTMessage) -> None:
        """Handle a message if paho reads the socket itself (see BatchReader.fits)."""
        if len(message.payload) > MAX_PAYLOAD_BYTES:
            self._router.oversized += 1
            return
        try:
            topic = message.topic.encode()
        except UnicodeDecodeError:
            self._router.undecodable += 1
            return
        # pack() is untyped in paho, as is the constructor of Properties below.
        properties: bytes = message.properties.pack() if message.properties else b""  # type: ignore[no-untyped-call]
        _, start = number_at(properties, 0) if properties else (0, 0)
        with self._boundary:
            self._router[topic](bytes(message.payload), message.retain, properties[start:])

    def _on_disconnect(
        self,
        _client: Client,
        _userdata: Any,
        flags: DisconnectFlags,
        code: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if flags.is_disconnect_packet_from_server:
            self._disconnect_code = code
        else:
            self._timed_out = code.value == _KEEP_ALIVE_TIMEOUT


class _Named:
    """The part of an SSL context that paho uses, with another name expected in the certificate."""

    #: If false, paho would check the host name itself.
    check_hostname = True

    def __init__(self, context: ssl.SSLContext, name: str) -> None:
        """Take the name that the certificate must have."""
        self._context = context
        self._name = name

    def wrap_socket(self, sock: socket.socket, **options: Any) -> ssl.SSLSocket:
        """Return the socket wrapped in TLS."""
        return self._context.wrap_socket(sock, **options | {"server_hostname": self._name})


def _context(tls: TLSConfig, alpn: tuple[str, ...]) -> Any:
    context = tls.context()
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return _Named(context, tls.server_name) if tls.server_name else context


def _peer(client: Client) -> str:
    """Return the IP address that the client is connected to; "" for unix sockets."""
    try:
        name = client.socket().getpeername()  # type: ignore[union-attr]
    except (AttributeError, OSError):
        return ""
    return str(name[0]) if isinstance(name, tuple) else ""


def _publish(client: Client, protocol: Protocol, message: Outgoing) -> None:
    properties = None
    if protocol == 5 and message.expiry_seconds:  # noqa: PLR2004  # the version's name
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.MessageExpiryInterval = message.expiry_seconds
    client.publish(message.topic, message.payload, message.qos, properties=properties)
