import re
import socket
import socketserver
import time
from collections.abc import Callable, Iterator
from threading import Thread, Timer

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bts_collectors.mqtt import collector as collector_module
from bts_collectors.mqtt.client import session as session_module
from bts_collectors.mqtt.client.error_boundary import ErrorBoundary
from bts_collectors.mqtt.client.session import Session
from bts_collectors.mqtt.client.state import ConnectionState
from bts_collectors.mqtt.collector import Mqtt
from bts_collectors.mqtt.config import MqttConfig
from bts_collectors.mqtt.sessions.emqx import EmqxConfig
from bts_collectors.mqtt.sys import topics as systopics
from bts_collectors.mqtt.sys import values as sysvalues_module
from bts_exporter import Duration, Scrape, Secret, TargetError, TLSConfig, Url
from bts_exporter.testing import Samples, samples

CONNACK = b"\x20\x02\x00\x00"
SUBACK = b"\x90\x03\x00\x01\x00"
TLS = TLSConfig(ca_file="/ca.pem")
SUBACK_DENIED = b"\x90\x03\x00\x01\x80"

Serve = Callable[..., int]
Start = Callable[[int], Mqtt]


class _Conversation(socketserver.BaseRequestHandler):
    """Answers each packet with the next reply of the script."""

    server: "_Server"

    def handle(self) -> None:
        """Follow the script, and then close the connection or continue to read."""
        for reply in self.server.replies:
            if not self.request.recv(4096):
                return
            self.request.sendall(reply)
        while not self.server.hangs_up and self.request.recv(4096):
            pass


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    replies: tuple[bytes, ...] = ()
    hangs_up = False

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore a client that closed its connection."""


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Return a function that starts a server with the given replies and returns its port."""
    servers: list[_Server] = []

    def start(*replies: bytes, hang_up: bool = False) -> int:
        server = _Server(("127.0.0.1", 0), _Conversation)
        server.replies = replies
        server.hangs_up = hang_up
        servers.append(server)
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        port: int = server.server_address[1]
        return port

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Return a function that starts a collector for a port, with short time-outs."""
    monkeypatch.setattr(session_module, "CONNECT_SECONDS", 0.2)
    monkeypatch.setattr(session_module, "TICK_SECONDS", 0.05)
    monkeypatch.setattr(collector_module, "FIRST_REPLY_SECONDS", 0.6)
    started: list[Mqtt] = []

    def start_one(port: int) -> Mqtt:
        started.append(Mqtt(MqttConfig(url=Url("mqtt", "127.0.0.1", port))))
        started[-1].start()
        return started[-1]

    yield start_one
    for one in started:
        one.stop()


def look(collector: Mqtt) -> tuple[Samples, TargetError]:
    """Return the samples and the error of a collection that fails."""
    scrape = Scrape(time.monotonic() + 10)
    with pytest.raises(TargetError) as failure:
        collector.collect(scrape)
    return samples(collector, scrape), failure.value


@pytest.mark.parametrize(
    ("reply", "hang_up", "reason"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", True, "protocol"),
        (b"\x15\x03\x01\x00\x02\x02\x16", True, "protocol"),
        (b"\x00\x00", False, "protocol"),
        (b"\x20\x00", False, "protocol"),
        (b"", True, "unreachable"),
        (b"", False, "timeout"),
        (b"-", False, "timeout"),
        (b"\x20\x02\x00\x01", False, "protocol"),
        (b"\x20\x02\x00\x02", False, "protocol"),
        (b"\x20\x02\x00\x03", False, "loading"),
        (b"\x20\x02\x00\x04", False, "auth"),
        (b"\x20\x02\x00\x05", False, "auth"),
        (b"\x20\x02\x00\x77", False, "protocol"),
    ],
)
def test_refused_connection_is_a_failed_attempt(
    serve: Serve, start: Start, reply: bytes, hang_up: bool, reason: str
) -> None:
    """Garbage, silence, closed connections and refusals have different reasons; the thread survives."""
    found, error = look(start(serve(reply, hang_up=hang_up)))

    assert (error.reason, found["mqtt_up"][()], found["mqtt_connected"][()]) == (reason, 0, 0)
    assert found["mqtt_connect_failures_total"][reason,] >= 1
    assert found["mqtt_network_thread_restarts_total"] == {(): 0}
    assert "mqtt_subscription_granted_qos" not in found


def test_denied_subscription_is_shown(serve: Serve, start: Start) -> None:
    """A broker that denies $SYS is connected but not up, and the error says why."""
    found, error = look(start(serve(CONNACK, SUBACK_DENIED)))

    assert (error.reason, found["mqtt_up"][()], found["mqtt_connected"][()]) == ("noperm", 0, 1)
    assert found["mqtt_subscription_granted_qos"] == {("$SYS/#",): -1}


def test_broker_without_sys_is_connected_and_not_up(serve: Serve, start: Start) -> None:
    """A broker without statistics has no series, rather than zeros."""
    found, error = look(start(serve(CONNACK, SUBACK)))

    assert (error.reason, found["mqtt_up"][()], found["mqtt_connected"][()]) == ("noperm", 0, 1)
    assert not [name for name in found if name.startswith(("mosquitto_", "messaging_"))]


def test_unanswered_subscription_is_a_timeout(serve: Serve, start: Start) -> None:
    """A broker that hangs after CONNECT is distinguished from one that denies."""
    found, error = look(start(serve(CONNACK)))

    assert (error.reason, found["mqtt_connected"][()]) == ("timeout", 1)


def test_garbage_on_a_connection_ends_it(serve: Serve, start: Start) -> None:
    """An invalid reply has the reason `protocol`, and the thread survives."""
    found, error = look(start(serve(CONNACK, b"\x00\x00")))

    assert error.reason == "protocol"
    assert found["mqtt_disconnects_total"]["protocol",] == 1
    assert found["mqtt_connects_total"][()] == 1


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60), st.booleans())
@example(b"\x36\x05\x00\x01a\x00\x01", True)
@example(b"\x30\x03\x00\x01\xff", True)
@example(b"\x62\x02\x00\x09", True)
def test_no_reply_ends_the_thread(
    serve: Serve, start: Start, garbage: bytes, accepted: bool
) -> None:
    """Any bytes, before or after CONNACK, end in a known failure."""
    port = serve(*([CONNACK, SUBACK + garbage] if accepted else [garbage]), hang_up=True)
    collector = start(port)
    found, _ = look(collector)
    collector.stop()

    assert found["mqtt_network_thread_restarts_total"] == {(): 0}


def test_nothing_listening_is_refused(start: Start) -> None:
    """With the address and the cure; `optional: true` depends on this reason."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        found, error = look(start(port))

    assert (error.reason, found["mqtt_up"][()]) == ("refused", 0)
    assert str(error).startswith(f"MQTT broker at mqtt://127.0.0.1:{port}: connection refused")


def test_collection_without_a_thread_says_so() -> None:
    """A collector that was not started reports it without waiting."""
    found, error = look(Mqtt(MqttConfig()))

    assert (error.reason, found["mqtt_up"][()]) == ("internal", 0)
    assert "network thread" in str(error)


def test_known_reasons_are_counted_from_zero() -> None:
    """The series exist before, so that the first failure is an increase."""
    found, _ = look(Mqtt(MqttConfig()))

    assert set(found["mqtt_connect_failures_total"].values()) == {0}
    assert set(found["mqtt_disconnects_total"].values()) == {0}


def test_first_collection_waits_no_longer_than_it_may(serve: Serve, start: Start) -> None:
    """The first collection leaves time to emit, although the broker has not answered."""
    collector = start(serve())
    scrape = Scrape(time.monotonic() + 0.1)
    with pytest.raises(TargetError):
        collector.collect(scrape)

    assert time.monotonic() < scrape.deadline
    assert samples(collector, scrape)["mqtt_up"] == {(): 0}


def test_collection_waits_for_the_end_of_a_burst(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts that the broker publishes one after the other are emitted together."""
    monkeypatch.setattr(sysvalues_module, "QUIET_SECONDS", 1.0)
    monkeypatch.setattr(collector_module, "SETTLE_SECONDS", 5.0)
    collector = Mqtt(MqttConfig())
    collector._values.receive(systopics.UPTIME, b"5 seconds")
    collector._values.receive(systopics.STORED, b"45")
    later = Timer(0.05, collector._values.receive, [systopics.RETAINED, b"38"])
    later.start()
    found, _ = look(collector)

    assert found["mosquitto_queued_messages"] == {(): 7}


def test_settings_of_tls_with_an_address_that_uses_it() -> None:
    """The broker's address, or that of EMQX's API."""
    secured = MqttConfig(url=Url("wss", "broker"), tls=TLS)
    api = MqttConfig(emqx=EmqxConfig(url=Url("https", "broker")), tls=TLS)

    assert secured.tls is api.tls


def test_packets_are_sent_at_once(start: Start, serve: Serve) -> None:
    """No packet waits for the acknowledgement of the previous one (Nagle's algorithm)."""
    network = start(serve())._network
    session = Session(
        network._target, network.router, ConnectionState(), ErrorBoundary(lambda _: None)
    )
    client = session._client()
    assert client.on_socket_open
    with socket.socket() as opened:
        client.on_socket_open(client, None, opened)

        assert opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"url": Url("http", "broker")},
            "url: expected mqtt://, mqtts://, ws://, wss:// or unix://, got http://broker",
        ),
        (
            {"url": Url("mqtt", "broker", path="/bts")},
            "url: mqtt:// has no path or query, got mqtt://broker",
        ),
        (
            {"url": Url("mqtt", "broker", query="a=b")},
            "url: mqtt:// has no path or query, got mqtt://broker",
        ),
        ({"password": Secret("s3cret")}, "password: needs a user name in url"),
        (
            {"url": Url("mqtt", "h", password=Secret("s3cret"))},
            "password: needs a user name in url",
        ),
        ({"keepalive": Duration(0.5)}, "keepalive: must be between 1 s and 65535 s, got 0.5 s"),
        ({"keepalive": Duration(70000)}, "keepalive: must be between 1 s and 65535 s"),
        ({"stale_after": Duration(0)}, "stale_after: must be more than 0 s"),
        (
            {"url": Url("ws", "broker"), "tls": TLS, "emqx": EmqxConfig()},
            "tls: only mqtts://, wss:// and https:// use TLS, got ws:// and http://",
        ),
    ],
)
def test_wrong_settings_are_refused(changes: dict[str, object], expected: str) -> None:
    """The message has the key and the cause, and no secrets."""
    with pytest.raises(ValueError, match=re.escape(expected)) as refusal:
        MqttConfig(**changes)  # type: ignore[arg-type]

    assert "s3cret" not in str(refusal.value)


@pytest.mark.parametrize(
    "url", ["mqtt://broker", "mqtt://broker/", "mqtts://u:p@broker:1", "mqtt://[::1]:1883"]
)
def test_address_is_accepted(url: str) -> None:
    """With or without port, user and final slash."""
    MqttConfig(url=Url.from_setting(url))
