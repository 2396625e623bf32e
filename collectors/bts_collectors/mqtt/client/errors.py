"""All errors of the MQTT collector, each with a reason, the address or file, and the cure.

Pure functions: observations of the network thread in, the error for the scrape out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from paho.mqtt.client import WebsocketConnectionError
from paho.mqtt.reasoncodes import ReasonCode

from bts_collectors.mqtt.client.websocket import WebSocketError
from bts_exporter import Product, Reason, TargetError, Url, connection_error

_PORTS = "MQTT usually listens on 1883, with TLS on 8883, as WebSocket on 9001 or 8083"
#: What to check if the server closes the connection before CONNACK.
_IF_CLOSED = {
    "mqtt": "does the port speak TLS (mqtts://, usually 8883) or WebSocket (ws://, 9001 or 8083)?",
    "mqtts": "does the port speak TLS (usually 8883)? 1883 is without (mqtt://), 8084 WebSocket (wss://)",
    "ws": "is it a WebSocket listener (usually 9001 or 8083)? 1883 is plain MQTT (mqtt://), 8084 has TLS (wss://)",
    "wss": "is it a WebSocket listener with TLS (usually 8084)? 8883 is MQTT (mqtts://)",
}
#: First bytes that other servers send, and the cure.
_OTHERS = {
    b"HTTP/": "the server speaks HTTP: for MQTT over WebSocket use ws://, or wss:// with TLS",
    b"AMQP": "the server speaks AMQP: RabbitMQ serves MQTT on 1883 with its plug-in rabbitmq_mqtt",
    b"\x15\x03": "the server speaks TLS: use mqtts://",
    b"SSH-": "the server speaks SSH",
    b"-ERR": "the server speaks the Redis protocol",
}

#: Reason and cure by CONNACK code of MQTT 5 (2.4); paho translates the codes of 3.1.1 to these.
_REFUSALS: dict[int, tuple[Reason, str]] = {
    132: ("protocol", "set protocol to an MQTT version that the broker supports"),
    133: ("protocol", "set client_id to one that the broker accepts"),
    134: ("auth", "set the user in url, and password"),
    135: ("auth", "check user and password, or allow this user or client_id to connect"),
    136: ("loading", "check the broker's log"),
    137: ("loading", "try again later"),
    138: ("noperm", "the broker bans this client: check its log"),
    140: ("auth", "the broker requires an authentication method that is not supported"),
    151: ("noperm", "the broker's connection quota is exhausted"),
    156: ("protocol", "the broker moved: set url to its new address"),
    157: ("protocol", "the broker moved: set url to its new address"),
    159: ("loading", "the broker limits the connection rate"),
}
#: Reason and cure by DISCONNECT code.
_DISCONNECTS: dict[int, tuple[Reason, str]] = {
    129: ("protocol", "this is a bug: please report it"),
    130: ("protocol", "this is a bug: please report it"),
    135: ("noperm", "the broker does not allow this operation for this user"),
    139: ("unreachable", "the broker is shutting down"),
    142: ("unreachable", "another client uses the same client_id"),
}


def product(url: Url) -> Product:
    """Return the product's name and hints, for connection_error."""
    return Product(
        "MQTT broker",
        if_refused=f"is the broker running and listening there? {_PORTS}",
        if_closed=_IF_CLOSED.get(url.scheme, "check the broker's log"),
    )


def not_connected(url: Url, error: OSError | UnicodeError) -> TargetError:
    """Return the error for a TCP, TLS or WebSocket connection that could not be established."""
    if isinstance(error, WebSocketError | WebsocketConnectionError):
        cure = _IF_CLOSED.get(url.scheme, _PORTS)
        return TargetError("protocol", f"MQTT broker at {url}: WebSocket error: {error}; {cure}")
    return connection_error(product(url), url, error)


def closed_after_handshake(url: Url) -> TargetError:
    """Return the error for a connection that the broker closed right after the TLS handshake."""
    cure = "does it require a client certificate (tls.cert_file)?"
    return TargetError(
        "tls", f"{url}: the broker closed the connection after the TLS handshake; {cure}"
    )


def not_accepted(
    url: Url, refusal: ReasonCode | None, first: bytes, *, malformed: bool
) -> TargetError:
    """Return the error for a CONNECT that was not accepted.

    `refusal` is the broker's reason code, or None; `first` is the beginning of its reply.
    """
    if refusal is not None:
        reason, cure = _REFUSALS.get(refusal.value, ("protocol", "check the broker's log"))
        return TargetError(reason, f"{url}: CONNECT refused: {named(refusal)}; {cure}")
    if not first and not malformed:
        return connection_error(product(url), url, EOFError())
    cure = next((cure for sign, cure in _OTHERS.items() if first.startswith(sign)), _PORTS)
    return TargetError("protocol", f"{url}: unexpected reply {first!r}, not an MQTT broker; {cure}")


def named(code: ReasonCode) -> str:
    """Return a reason code with its name in the standard."""
    return f"{code} ({code.value})"


def no_connack(url: Url, timeout_seconds: float) -> TargetError:
    """Return the error for a server that accepts the connection and sends nothing."""
    return TargetError(
        "timeout",
        f"{url}: no reply to CONNECT within {timeout_seconds:g} s; the broker hangs, or another server listens there; {_PORTS}",
    )


def disconnected(url: Url, code: ReasonCode) -> TargetError:
    """Return the error for a connection that the broker ended with DISCONNECT (MQTT 5)."""
    reason, cure = _DISCONNECTS.get(code.value, ("unreachable", "check the broker's log"))
    return TargetError(reason, f"{url}: the broker closed the connection: {named(code)}; {cure}")


def connection_lost(
    url: Url, *, timed_out: bool, malformed: bool, requested: Sequence[str] = ()
) -> TargetError:
    """Return the error for a lost connection: ping timeout, malformed data, or closed by the broker.

    `requested` lists the filters whose SUBSCRIBE has no SUBACK.
    """
    if timed_out:
        return TargetError("timeout", f"{url}: no reply to PINGREQ; the broker hangs")
    if malformed:
        return TargetError("protocol", f"{url}: the broker sent a malformed packet")
    if requested:
        what = f"the broker closed the connection on SUBSCRIBE to {', '.join(requested)}"
        return TargetError("unreachable", f"{url}: {what}; may this user subscribe to it?")
    return TargetError("unreachable", f"{url}: the broker closed the connection; check its log")


def acknowledgements_unread(url: Url) -> TargetError:
    """Return the error for a broker that does not read our acknowledgements."""
    what = "the broker sends messages but does not read the acknowledgements"
    return TargetError("protocol", f"{url}: {what}; check its log")


def denied(url: Url, refused: Mapping[str, str]) -> TargetError:
    """Return the error for denied subscriptions; `refused` has the cause by filter."""
    listed = ", ".join(f"{name} ({why})" for name, why in refused.items())
    cure = "allow this user to subscribe to it and to read it"
    if all(name.startswith("$SYS") for name in refused):
        cure += ", or set `sys: false` and monitor the broker with `canary`"
    return TargetError("noperm", f"{url}: subscription to {listed} denied; {cure}")


def unanswered(url: Url, requested: Sequence[str]) -> TargetError:
    """Return the error for subscriptions without SUBACK."""
    return TargetError("timeout", f"{url}: no reply to SUBSCRIBE to {', '.join(requested)}")


def no_connection(url: Url) -> TargetError:
    """Return the error while the first attempt to connect has not ended."""
    return TargetError(
        "timeout",
        f"{url}: no reply to CONNECT yet; is the broker running and listening there? {_PORTS}",
    )


def no_canary(url: Url, stale_after_seconds: float) -> TargetError:
    """Return the error for a broker that does not return our canary messages."""
    return TargetError(
        "timeout",
        f"{url}: no canary message came back within {stale_after_seconds:g} s; the broker hangs, or its"
        " ACL denies the canary's topics (see docs/collectors/mqtt.md)",
    )


def silent_sys(url: Url) -> TargetError:
    """Return the error if $SYS is silent and nothing else shows that the broker responds."""
    return TargetError(
        "noperm",
        f"{url}: connected, but no message under $SYS/; allow it in the broker's ACL"
        " (topic read $SYS/#). If the broker has sys_interval 0 or is not mosquitto,"
        " set `sys: false` or monitor it with `canary`",
    )


def no_uptime(url: Url) -> TargetError:
    """Return the error if $SYS is not mosquitto's and nothing else shows that the broker responds."""
    return TargetError(
        "protocol",
        f"{url}: connected, but no $SYS/broker/uptime among its $SYS topics; monitor a"
        " broker other than mosquitto with `canary`",
    )


def old_uptime(url: Url, age_seconds: float, stale_after_seconds: float) -> TargetError:
    """Return the error for a broker that no longer publishes its uptime."""
    return TargetError(
        "timeout",
        f"{url}: no $SYS/broker/uptime for {age_seconds:.0f} s; the broker hangs, or its sys_interval is"
        f" longer than stale_after ({stale_after_seconds:g} s)",
    )


def network_thread(url: Url) -> TargetError:
    """Return the error for our own network thread."""
    return TargetError("internal", f"{url}: our network thread is stopped or stuck")


def sessions_unreadable(file: str, error: OSError) -> TargetError:
    """Return the error for a persistence file that cannot be read."""
    match error:
        case FileNotFoundError():
            cure = "set `persistence true` in mosquitto.conf, then wait for autosave_interval or send SIGUSR1"
            return TargetError(
                "os", f"{file}: no such file, mosquitto has saved nothing there; {cure}"
            )
        case PermissionError():
            cure = "see docs/collectors/mqtt.md for how to allow it"
            return TargetError(
                "noperm",
                f"{file}: permission denied, by default only mosquitto may read it; {cure}",
            )
        case _:
            return TargetError("os", f"{file}: {error.strerror or error}")


def sessions_damaged(file: str, error: ValueError) -> TargetError:
    """Return the error for a file that is not a valid persistence file."""
    return TargetError("protocol", f"{file}: {error}; is it mosquitto's persistence_file?")


def sessions_too_old(file: str, age_seconds: float) -> TargetError:
    """Return the error for a persistence file older than persistence.stale_after."""
    return TargetError(
        "timeout",
        f"{file}: saved {age_seconds:.0f} s ago, longer than persistence.stale_after; is it this broker's"
        " file, and is the broker's autosave_interval shorter?",
    )


def sessions_too_many(file: str, timeout_seconds: float) -> TargetError:
    """Return the error for a persistence file that takes too long to read."""
    cure = "set `interval` and a longer `timeout` for this target"
    return TargetError("timeout", f"{file}: not read within {timeout_seconds:.1f} s; {cure}")
