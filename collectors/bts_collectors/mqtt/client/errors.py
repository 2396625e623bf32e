"""Every way in which there is no answer, as a reason and a message that names place and cure.

Pure: what the network thread saw goes in, the error for the scrape comes out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from paho.mqtt.client import WebsocketConnectionError
from paho.mqtt.reasoncodes import ReasonCode

from bts_collectors.mqtt.client.websocket import WebSocketError
from bts_exporter import Product, Reason, TargetError, Url, connection_error

_PORTS = "MQTT usually listens on 1883, with TLS on 8883, as WebSocket on 9001 or 8083"
#: What to check where the server ends a connection that has not become one of MQTT.
_IF_CLOSED = {
    "mqtt": "does the port speak TLS (mqtts://, usually 8883) or WebSocket (ws://, 9001 or 8083)?",
    "mqtts": "does the port speak TLS (usually 8883)? 1883 is without (mqtt://), 8084 WebSocket (wss://)",
    "ws": "is it a WebSocket listener (usually 9001 or 8083)? 1883 is plain MQTT (mqtt://), 8084 has TLS (wss://)",
    "wss": "is it a WebSocket listener with TLS (usually 8084)? 8883 is MQTT (mqtts://)",
}
#: What other servers begin with, and the cure.
_OTHERS = {
    b"HTTP/": "it speaks HTTP: for MQTT over WebSocket use ws://, or wss:// with TLS",
    b"AMQP": "it speaks AMQP: RabbitMQ has MQTT on 1883, with its plug-in rabbitmq_mqtt",
    b"\x15\x03": "it speaks TLS: use mqtts://",
    b"SSH-": "it speaks SSH",
    b"-ERR": "it speaks the protocol of Redis",
}

#: Reasons and cures by codes of MQTT 5 (2.4), which paho translates those of 3.1.1 to.
_REFUSALS: dict[int, tuple[Reason, str]] = {
    132: ("protocol", "set protocol to the version of MQTT that the broker speaks"),
    133: ("protocol", "set client_id to one that the broker accepts"),
    134: ("auth", "set user and password in url and password"),
    135: ("auth", "set user and password, or allow this user or client_id to connect"),
    136: ("loading", "look at the broker's log"),
    137: ("loading", "try again later"),
    138: ("noperm", "the broker bans this client: look at its log"),
    140: ("auth", "the broker wants an authentication method that is not supported here"),
    151: ("noperm", "the broker's quota of connections is used up"),
    156: ("protocol", "set url to the server that the broker's operator names"),
    157: ("protocol", "set url to the server that the broker's operator names"),
    159: ("loading", "the broker limits connections per second"),
}
#: Reasons and cures by codes in DISCONNECT.
_DISCONNECTS: dict[int, tuple[Reason, str]] = {
    129: ("protocol", "report it"),
    130: ("protocol", "report it"),
    135: ("noperm", "the broker does not allow this user what it asked for"),
    139: ("unreachable", "it is restarted or stopped"),
    142: ("unreachable", "another client has the same client_id"),
}


def product(url: Url) -> Product:
    """Return what connects to `url`, for connection_error."""
    return Product(
        "MQTT broker",
        if_refused=f"is the broker running, and listening there? {_PORTS}",
        if_closed=_IF_CLOSED.get(url.scheme, "look at the broker's log"),
    )


def not_connected(url: Url, error: OSError | UnicodeError) -> TargetError:
    """Return why the TCP, TLS or WebSocket connection could not be made."""
    if isinstance(error, WebSocketError | WebsocketConnectionError):
        cure = _IF_CLOSED.get(url.scheme, _PORTS)
        return TargetError("protocol", f"MQTT broker at {url}: no WebSocket: {error}; {cure}")
    return connection_error(product(url), url, error)


def closed_after_handshake(url: Url) -> TargetError:
    """Return why the broker hung up right after the TLS handshake, before it heard of us."""
    cure = "does it ask for a certificate of ours (tls.cert_file)?"
    return TargetError("tls", f"{url}: the broker ended the connection after the handshake: {cure}")


def not_accepted(
    url: Url, refusal: ReasonCode | None, first: bytes, *, malformed: bool
) -> TargetError:
    """Return why the broker did not let us in.

    `refusal` is its code, None where it gave none; `first` is the beginning of what it sent.
    """
    if refusal is not None:
        reason, cure = _REFUSALS.get(refusal.value, ("protocol", "look at the broker's log"))
        return TargetError(reason, f"{url}: CONNECT refused: {named(refusal)}; {cure}")
    if not first and not malformed:
        return connection_error(product(url), url, EOFError())
    cure = next((cure for sign, cure in _OTHERS.items() if first.startswith(sign)), _PORTS)
    return TargetError("protocol", f"{url}: not an MQTT broker, it answered {first!r}; {cure}")


def named(code: ReasonCode) -> str:
    """Return a reason code as the standard names it."""
    return f"{code} ({code.value})"


def no_connack(url: Url, seconds: float) -> TargetError:
    """Return the failure of a target that accepts the connection and says nothing."""
    return TargetError(
        "timeout",
        f"{url}: no answer to CONNECT within {seconds:g} s: the broker hangs, or another server listens there; {_PORTS}",
    )


def disconnected(url: Url, code: ReasonCode) -> TargetError:
    """Return why the broker ended a working connection, as it says by MQTT 5."""
    reason, cure = _DISCONNECTS.get(code.value, ("unreachable", "look at the broker's log"))
    return TargetError(reason, f"{url}: the broker ended the connection: {named(code)}; {cure}")


def connection_lost(
    url: Url, *, timed_out: bool, malformed: bool, requested: Sequence[str] = ()
) -> TargetError:
    """Return why a working connection ended: no answer to a ping, data that is not MQTT, or neither.

    `asked` are the filters whose subscription was not answered.
    """
    if timed_out:
        return TargetError("timeout", f"{url}: no answer to PING: the broker hangs")
    if malformed:
        return TargetError("protocol", f"{url}: the broker sent data that is not MQTT")
    if requested:
        what = f"the broker closed the connection when asked for {', '.join(requested)}"
        return TargetError("unreachable", f"{url}: {what}: may this user subscribe to it?")
    return TargetError("unreachable", f"{url}: the broker closed the connection: look at its log")


def acknowledgements_unread(url: Url) -> TargetError:
    """Return the failure of a broker that does not read what it asks for."""
    what = "the broker sends messages and does not read the acknowledgements"
    return TargetError("protocol", f"{url}: {what}: look at its log")


def denied(url: Url, refused: Mapping[str, str]) -> TargetError:
    """Return the failure of subscriptions that the broker refuses; their reasons by filter."""
    listed = ", ".join(f"{name} ({why})" for name, why in refused.items())
    cure = "allow the user to subscribe to it and read it"
    if all(name.startswith("$SYS") for name in refused):
        cure += ", or set `sys: false` and watch the broker with `canary`"
    return TargetError("noperm", f"{url}: subscription to {listed} denied: {cure}")


def unanswered(url: Url, requested: Sequence[str]) -> TargetError:
    """Return the failure of subscriptions that the broker does not answer."""
    return TargetError("timeout", f"{url}: no answer to SUBSCRIBE to {', '.join(requested)}")


def no_connection(url: Url) -> TargetError:
    """Return the failure of a connection before its first attempt has ended."""
    return TargetError(
        "timeout", f"{url}: no answer to CONNECT yet: does a broker listen there, and does it run?"
    )


def no_canary(url: Url, stale_after: float) -> TargetError:
    """Return the failure of a broker that gives messages of ours back no more."""
    return TargetError(
        "timeout",
        f"{url}: no message of ours came back within {stale_after:g} s: the broker hangs, or its"
        " ACL forbids what docs/collectors/mqtt.md says that the canary needs",
    )


def silent_sys(url: Url) -> TargetError:
    """Return the failure of a broker that publishes nothing of itself, where nothing else shows that it lives."""
    return TargetError(
        "noperm",
        f"{url}: connected, but nothing comes under $SYS/: allow it in the broker's ACL"
        " (topic read $SYS/#); a broker with sys_interval 0, or other than mosquitto, has none:"
        " set `sys: false`, or watch it with `canary`",
    )


def no_uptime(url: Url) -> TargetError:
    """Return the failure of a broker whose `$SYS` is not mosquitto's, where nothing else shows that it lives."""
    return TargetError(
        "protocol",
        f"{url}: connected, but no $SYS/broker/uptime among its $SYS topics: watch a"
        " broker other than mosquitto with `canary`",
    )


def old_uptime(url: Url, age: float, stale_after: float) -> TargetError:
    """Return the failure of a broker that has stopped to publish its uptime."""
    return TargetError(
        "timeout",
        f"{url}: no $SYS/broker/uptime for {age:.0f} s: the broker hangs, or its sys_interval is"
        f" longer than stale_after ({stale_after:g} s)",
    )


def network_thread(url: Url) -> TargetError:
    """Return the failure of our own network thread."""
    return TargetError("internal", f"{url}: the network thread does not run, or hangs")


def sessions_unreadable(file: str, error: OSError) -> TargetError:
    """Return why the file in which mosquitto saves its sessions cannot be read."""
    match error:
        case FileNotFoundError():
            cure = "set `persistence true`, and wait for autosave_interval or send it SIGUSR1"
            return TargetError("os", f"{file}: mosquitto has saved nothing there: {cure}")
        case PermissionError():
            cure = "docs/collectors/mqtt.md has the cure"
            return TargetError("noperm", f"{file}: mosquitto lets nobody else read it: {cure}")
        case _:
            return TargetError("os", f"{file}: {error.strerror or error}")


def sessions_damaged(file: str, error: ValueError) -> TargetError:
    """Return the failure of a file that is not what mosquitto saves its sessions in."""
    return TargetError("protocol", f"{file}: {error}: is it mosquitto's persistence_file?")


def sessions_too_old(file: str, age: float) -> TargetError:
    """Return the failure of a file that was saved longer ago than is worth showing."""
    return TargetError(
        "timeout",
        f"{file}: saved {age:.0f} s ago, longer than persistence.stale_after: is it this broker's,"
        " and is its autosave_interval shorter?",
    )


def sessions_too_many(file: str, seconds: float) -> TargetError:
    """Return the failure of a file that takes too long to read."""
    cure = "give this collector an `interval` and a longer `timeout`"
    return TargetError("timeout", f"{file}: not read within {seconds:.1f} s: {cure}")
