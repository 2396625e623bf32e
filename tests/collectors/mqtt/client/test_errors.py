import errno
import socket
import ssl

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from bts_collectors.mqtt.client import errors
from bts_collectors.mqtt.client.state import CONNECT_REASONS, DISCONNECT_REASONS
from bts_collectors.mqtt.client.websocket import WebSocketError
from bts_exporter import Secret, TargetError, Url

URL = Url("mqtt", "broker.example", 1883, username="mon", password=Secret("s3cret"))


def seen(error: TargetError) -> str:
    """Return reason and message without the address, after checking that it contains no credentials."""
    message = str(error)
    assert message.startswith("mqtt://broker.example:1883: ")
    assert "s3cret" not in message
    return f"{error.reason}: {message.removeprefix('mqtt://broker.example:1883: ')}"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionRefusedError(111, "refused"), "refused: connection refused; is the broker run"),
        (TimeoutError("timed out"), "timeout: no reply in time"),
        (socket.gaierror(-2, "Name not known"), "dns: host name does not resolve"),
        (UnicodeError("label empty or too long"), "dns: host name does not resolve"),
        (ssl.SSLError(1, "wrong version number"), "tls: TLS handshake failed"),
        (ConnectionResetError(104, "reset"), "unreachable: connection reset by the server; does"),
        (PermissionError(13, "Permission denied"), "noperm: permission denied"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), "unreachable: no route to host"),
        (OSError(errno.EMFILE, "Too many open files"), "os: Too many open files"),
        (WebSocketError("no upgrade"), "protocol: WebSocket error: no upgrade; does the port"),
    ],
)
def test_connection_error_has_reason_and_cure(error: OSError | UnicodeError, expected: str) -> None:
    """Each kind of failed connection has its own reason."""
    failure = errors.not_connected(URL, error)
    message = str(failure).removeprefix("MQTT broker at mqtt://broker.example:1883: ")

    assert f"{failure.reason}: {message}".startswith(expected)
    assert failure.reason in CONNECT_REASONS


def test_connection_closed_after_the_tls_handshake_names_the_certificate_setting() -> None:
    """A broker that requires a client certificate closes the connection."""
    failure = errors.closed_after_handshake(URL)

    assert failure.reason == "tls"
    assert "tls.cert_file" in str(failure)


@pytest.mark.parametrize(
    ("scheme", "words"),
    [
        ("mqtt", "TLS (mqtts://, usually 8883) or WebSocket (ws://, 9001 or 8083)"),
        ("mqtts", "1883 is without (mqtt://)"),
        ("ws", "1883 is plain MQTT (mqtt://)"),
        ("wss", "8883 is MQTT (mqtts://)"),
    ],
)
def test_connection_that_is_reset_asks_for_the_port(scheme: str, words: str) -> None:
    """A reset often means that the port is for another protocol: the message names the usual ports."""
    assert words in str(errors.not_connected(Url(scheme, "host"), ConnectionResetError()))


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (132, "protocol: CONNECT refused: Unsupported protocol version (132); set protocol"),
        (133, "protocol: CONNECT refused: Client identifier not valid (133); set client_id"),
        (134, "auth: CONNECT refused: Bad user name or password (134); set the user in url"),
        (135, "auth: CONNECT refused: Not authorized (135); check user and password"),
        (136, "loading: CONNECT refused: Server unavailable (136)"),
        (137, "loading: CONNECT refused: Server busy (137)"),
        (138, "noperm: CONNECT refused: Banned (138)"),
        (157, "protocol: CONNECT refused: Server moved (157)"),
        (159, "loading: CONNECT refused: Connection rate exceeded (159)"),
        (128, "protocol: CONNECT refused: Unspecified error (128)"),
    ],
)
def test_refusal_is_named_as_in_the_standard(code: int, expected: str) -> None:
    """Each CONNACK code but success has a reason, its name in the standard and a cure."""
    refusal = ReasonCode(PacketTypes.CONNACK, identifier=code)
    failure = errors.not_accepted(URL, refusal, b"", malformed=False)

    assert seen(failure).startswith(expected)
    assert failure.reason in CONNECT_REASONS


@pytest.mark.parametrize(
    ("first", "words"),
    [
        (b"HTTP/1.1 400 Bad", "the server speaks HTTP: for MQTT over WebSocket use ws://"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "the server speaks TLS: use mqtts://"),
        (b"AMQP\x00\x00\x09\x01", "the server speaks AMQP"),
        (b"-ERR unknown", "the server speaks the Redis protocol"),
        (b"220 mail", "MQTT usually listens on 1883"),
    ],
)
def test_other_server_is_named(first: bytes, words: str) -> None:
    """The first bytes of other servers identify them."""
    failure = errors.not_accepted(URL, None, first, malformed=True)

    assert (failure.reason, words in str(failure)) == ("protocol", True)


def test_connection_that_is_closed_at_once_asks_for_the_port() -> None:
    """A TLS listener closes a plain connection without a reply."""
    failure = errors.not_accepted(URL, None, b"", malformed=False)

    assert failure.reason == "unreachable"
    assert "connection closed by the server; does the port speak TLS" in str(failure)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (139, "unreachable: the broker closed the connection: Server shutting down (139)"),
        (142, "unreachable: the broker closed the connection: Session taken over (142); another"),
        (135, "noperm: the broker closed the connection: Not authorized (135)"),
        (130, "protocol: the broker closed the connection: Protocol error (130)"),
    ],
)
def test_disconnect_of_the_broker_is_named_as_in_the_standard(code: int, expected: str) -> None:
    """With MQTT 5, DISCONNECT has a reason code."""
    failure = errors.disconnected(URL, ReasonCode(PacketTypes.DISCONNECT, identifier=code))

    assert seen(failure).startswith(expected)
    assert failure.reason in DISCONNECT_REASONS


@pytest.mark.parametrize(
    ("timed_out", "malformed", "expected"),
    [
        (True, False, "timeout: no reply to PINGREQ"),
        (False, True, "protocol: the broker sent a malformed packet"),
        (False, False, "unreachable: the broker closed the connection"),
    ],
)
def test_end_of_a_connection_has_reason_and_cure(
    timed_out: bool, malformed: bool, expected: str
) -> None:
    """Each end of an established connection has a reason."""
    failure = errors.connection_lost(URL, timed_out=timed_out, malformed=malformed)

    assert seen(failure).startswith(expected)
    assert failure.reason in DISCONNECT_REASONS


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            FileNotFoundError(2, "No such file"),
            "os: no such file, mosquitto has saved nothing there; set",
        ),
        (
            PermissionError(13, "Permission denied"),
            "noperm: permission denied, by default only mosquitto may read it",
        ),
        (IsADirectoryError(21, "Is a directory"), "os: Is a directory"),
        (OSError("strange"), "os: strange"),
    ],
)
def test_unreadable_file_has_reason_and_cure(error: OSError, expected: str) -> None:
    """The message begins with the name of the file."""
    failure = errors.sessions_unreadable("/f.db", error)

    assert str(failure).startswith("/f.db: ")
    assert f"{failure.reason}: {str(failure).removeprefix('/f.db: ')}".startswith(expected)
