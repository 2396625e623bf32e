import errno
import socket
import ssl
from threading import Event

import pytest

from bts_collectors.mqtt import failures
from bts_collectors.mqtt.link import CONNECT_REASONS, DISCONNECT_REASONS, Failure, Link
from bts_collectors.mqtt.sysvalues import SysValues
from bts_exporter import Secret, TargetError, Url

URL = Url("mqtt", "broker.example", 1883, username="mon", password=Secret("s3cret"))


def seen(error: TargetError) -> str:
    """Return what the log line would have, checked for the place and against the credentials."""
    message = str(error)
    assert message.startswith("mqtt://broker.example:1883: ")
    assert "s3cret" not in message
    return f"{error.reason}: {message.removeprefix('mqtt://broker.example:1883: ')}"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionRefusedError(111, "refused"), "refused: nothing listens there"),
        (TimeoutError("timed out"), "timeout: no connection in time"),
        (socket.gaierror(-2, "Name not known"), "dns: the name does not resolve"),
        (UnicodeError("label empty or too long"), "dns: the name does not resolve"),
        (ssl.SSLError(1, "wrong version number"), "tls: no TLS connection"),
        (ssl.SSLCertVerificationError(1, "self-signed"), "tls: no TLS connection"),
        (ConnectionResetError(104, "reset"), "unreachable: the connection broke"),
        (PermissionError(13, "Permission denied"), "noperm: our user may not write to the socket"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), "unreachable: no route"),
        (OSError(errno.EMFILE, "Too many open files"), "os: [Errno 24] Too many open files"),
    ],
)
def test_connection_error_has_reason_and_cure(error: OSError | UnicodeError, expected: str) -> None:
    """Each way in which no connection comes about has a reason of its own."""
    failure = failures.not_connected(URL, error)

    assert seen(failure).startswith(expected)
    assert failure.reason in CONNECT_REASONS


def test_a_broker_that_ends_tls_at_once_wants_to_know_who_we_are() -> None:
    """The message names the setting."""
    failure = failures.unwanted(URL)

    assert failure.reason == "tls"
    assert "tls.cert_file" in str(failure)


def test_broken_tls_connection_asks_for_the_port() -> None:
    """A plain port cuts TLS off: the message says where to look."""
    url = Url("mqtts", "broker.example")

    assert "does the port speak TLS" in str(failures.not_connected(url, ConnectionResetError()))


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (132, "protocol: the broker does not speak this version of MQTT"),
        (133, "protocol: the broker refuses the client id"),
        (134, "auth: wrong user or password"),
        (135, "auth: the broker refuses the user"),
        (136, "loading: the broker says that it is unavailable"),
        (128, "protocol: CONNECT refused with code 128"),
        (None, "protocol: no MQTT broker"),
    ],
)
def test_refusal_has_reason_and_cure(code: int | None, expected: str) -> None:
    """Each answer to CONNECT but yes has a reason; no answer at all is no broker."""
    failure = failures.not_accepted(URL, code)

    assert seen(failure).startswith(expected)
    assert failure.reason in CONNECT_REASONS


@pytest.mark.parametrize(
    ("hung", "garbled", "expected"),
    [
        (True, False, "timeout: no answer to PING"),
        (False, True, "protocol: the broker sent what is no MQTT"),
        (False, False, "unreachable: the broker closed the connection"),
    ],
)
def test_end_of_a_connection_has_reason_and_cure(hung: bool, garbled: bool, expected: str) -> None:
    """Each end of a working connection has a reason."""
    failure = failures.lost(URL, hung=hung, garbled=garbled)

    assert seen(failure).startswith(expected)
    assert failure.reason in DISCONNECT_REASONS


def heard(*topics: str) -> SysValues:
    """Return values that got a message on each of `topics`."""
    values = SysValues(Event())
    for topic in topics:
        values.receive(topic, b"1")
    return values


GRANTED = {"$SYS/#": 0}


@pytest.mark.parametrize(
    ("link", "values", "expected"),
    [
        (
            Link(),
            heard(),
            "timeout: no answer to CONNECT yet: does a broker listen there, and does it run?",
        ),
        (Link(failure=Failure("auth", f"{URL}: no")), heard(), "auth: no"),
        (
            Link(connected=True, failure=Failure("refused", "before")),
            heard(),
            "timeout: no answer to SUBSCRIBE",
        ),
        (
            Link(connected=True, granted={"$SYS/#": -1}),
            heard(),
            "noperm: subscription to $SYS/# denied: allow",
        ),
        (
            Link(connected=True, granted=GRANTED),
            heard(),
            "noperm: connected, but nothing comes under $SYS/: allow it",
        ),
        (
            Link(connected=True, granted=GRANTED),
            heard("$SYS/brokers"),
            "protocol: connected, but no $SYS/broker/uptime",
        ),
        (
            Link(connected=True, granted=GRANTED),
            heard("$SYS/broker/uptime"),
            "timeout: no $SYS/broker/uptime for ",
        ),
    ],
)
def test_silence_is_told_apart_by_its_cause(link: Link, values: SysValues, expected: str) -> None:
    """Whatever keeps fresh values away is named by what the network thread saw."""
    assert seen(failures.why_down(URL, link, values, 60)).startswith(expected)


@pytest.mark.parametrize("topics", [[], ["$SYS/brokers"]])
def test_lost_canary_leads_to_its_permissions(topics: list[str]) -> None:
    """Of a broker without an uptime it alone shows whether it lives."""
    link = Link(connected=True, granted=GRANTED)
    error = failures.why_down(URL, link, heard(*topics), 60, canary=True)

    assert seen(error).startswith("timeout: no message of ours came back within 60 s")


def test_silent_broker_with_a_canary_is_named_by_its_uptime() -> None:
    """Mosquitto is known to have one."""
    link = Link(connected=True, granted=GRANTED)
    error = failures.why_down(URL, link, heard("$SYS/broker/uptime"), 60, canary=True)

    assert seen(error).startswith("timeout: no $SYS/broker/uptime for ")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (FileNotFoundError(2, "No such file"), "os: mosquitto has saved nothing there: set"),
        (PermissionError(13, "Permission denied"), "noperm: mosquitto lets nobody else read it"),
        (IsADirectoryError(21, "Is a directory"), "os: Is a directory"),
        (OSError("strange"), "os: strange"),
    ],
)
def test_unreadable_file_has_reason_and_cure(error: OSError, expected: str) -> None:
    """The file is named in front."""
    failure = failures.sessions_unreadable("/f.db", error)

    assert str(failure).startswith("/f.db: ")
    assert f"{failure.reason}: {str(failure).removeprefix('/f.db: ')}".startswith(expected)
