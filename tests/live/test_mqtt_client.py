"""Connections: all transports, both versions of MQTT, both ways of reading."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from bts_collectors.mqtt.client import network_thread
from bts_collectors.mqtt.client.batch_reader import BatchReader
from bts_collectors.mqtt.client.topics import Pattern
from bts_collectors.mqtt.collector import Mqtt
from bts_collectors.mqtt.rules.config import Measure, Rule
from bts_collectors.mqtt.rules.payloads import Path as ValuePath
from bts_exporter import Duration
from bts_exporter.testing import look
from servers import free_port, need, wait_until
from servers.mosquitto import Mosquitto, StartMosquitto
from servers.mqtt import Start, shows

pytestmark = pytest.mark.live

SCHEMES = ("mqtt", "mqtts", "ws", "wss", "unix")
BOTH = pytest.mark.parametrize("reading", ["batched", "paho"], indirect=True)
#: paho leaves the socket of a connection that fails to the garbage collector.
LEFT_OPEN = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

READING = Rule(
    topic=Pattern.from_setting("bts/{station}/{parameter}"),
    metrics={
        "bts_reading": Measure(path=ValuePath.from_setting("value")),
        "bts_readings_total": Measure(type="counter"),
    },
)


@pytest.fixture
def reading(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Select the way of reading, batched or paho's own."""
    if request.param == "paho":
        monkeypatch.setattr(BatchReader, "fits", lambda: False)


@pytest.fixture
def start(start: Start) -> Start:
    """Return a function that starts a collector with a rule for an address."""

    def start_one(url: str, **settings: object) -> Mqtt:
        return start(url, **{"rules": {"readings": READING}} | settings)

    return start_one


def hears(collector: Mqtt, broker: Mosquitto, value: float) -> None:
    """Publish a reading, and wait until the collector emits it."""
    wait_until(shows(collector, "mqtt_subscription_granted_qos", 0, "bts/+/+"), "subscribed")
    broker.publish("bts/7/122", f'{{"value": {value}}}')
    wait_until(shows(collector, "bts_reading", value, "7", "122"), "reading")


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a listener's lines for a trusted certificate."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    argv = [need("openssl", "openssl"), "req", "-x509", "-nodes", "-newkey", "ec"]
    argv += ["-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=localhost", "-days", "2"]
    argv += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(argv, check=True, capture_output=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    return [f"certfile {cert}", f"keyfile {key}"]


@pytest.fixture
def listening(
    start_mosquitto: StartMosquitto, certificate: list[str], tmp_path: Path
) -> Callable[[str], tuple[Mosquitto, str]]:
    """Return a function that starts a broker with a listener of a scheme, and returns both broker and address."""

    def listen(scheme: str) -> tuple[Mosquitto, str]:
        port, path = free_port(), tmp_path / "mqtt.sock"
        lines = [f"listener 0 {path}" if scheme == "unix" else f"listener {port} 127.0.0.1"]
        if scheme in {"ws", "wss"}:
            lines.append("protocol websockets")
        if scheme in {"mqtts", "wss"}:
            lines += certificate
        url = f"unix://{path}" if scheme == "unix" else f"{scheme}://127.0.0.1:{port}"
        return start_mosquitto(*lines), url

    return listen


@pytest.mark.parametrize(
    ("reading", "scheme", "protocol"),
    [
        *(("batched", scheme, "3.1.1") for scheme in SCHEMES),
        *(("batched", scheme, 5) for scheme in SCHEMES),
        ("paho", "mqtt", 5),
        ("paho", "wss", "3.1.1"),
    ],
    indirect=["reading"],
)
def test_messages_arrive_over_every_transport(
    listening: Callable[[str], tuple[Mosquitto, str]],
    start: Start,
    reading: None,
    scheme: str,
    protocol: str | int,
) -> None:
    """TCP, TLS, WebSockets with and without TLS, unix sockets; MQTT 3.1.1 and 5; both readers."""
    broker, url = listening(scheme)
    collector = start(url, protocol=protocol)
    hears(collector, broker, 12.5)
    broker.publish("bts/8/122", '{"value": 1}', count=300)

    wait_until(shows(collector, "bts_readings_total", 300, "8", "122"), "300 messages")
    assert look(collector)[0]["mqtt_up"] == {(): 1}
    assert look(collector)[0]["mqtt_message_handling_errors_total"] == {(): 0}


@BOTH
def test_rules_continue_after_a_restart(mosquitto: Mosquitto, start: Start, reading: None) -> None:
    """Subscriptions are made again, and counters keep their values."""
    collector = start(mosquitto.url)
    hears(collector, mosquitto, 1)
    mosquitto.kill()
    wait_until(shows(collector, "mqtt_connected", 0), "connection lost")
    mosquitto.start()
    wait_until(shows(collector, "mqtt_connected", 1), "connected again")
    hears(collector, mosquitto, 2)

    found, _ = look(collector)
    assert found["bts_readings_total"] == {("7", "122"): 2}
    assert found["mqtt_connects_total"] == {(): 2}


@BOTH
def test_rules_continue_after_the_broker_hung(
    mosquitto: Mosquitto, start: Start, reading: None
) -> None:
    """A ping timeout ends the connection, and the next one receives messages."""
    collector = start(mosquitto.url, keepalive=Duration(1))
    hears(collector, mosquitto, 1)
    mosquitto.freeze()
    wait_until(shows(collector, "mqtt_disconnects_total", 1, "timeout"), "given up")
    mosquitto.thaw()
    wait_until(shows(collector, "mqtt_connected", 1), "connected again")
    hears(collector, mosquitto, 2)


def test_denied_rule_is_shown_and_the_others_are_served(
    start_mosquitto: StartMosquitto, start: Start, tmp_path: Path
) -> None:
    """The granted QoS of a denied filter is -1, and the collection fails; $SYS is still served."""
    plugin = "/usr/lib/x86_64-linux-gnu/mosquitto_dynamic_security.so"
    if not Path(plugin).exists():
        pytest.skip(f"{plugin} is missing")
    roles = tmp_path / "dynsec.json"
    control = need("mosquitto_ctrl", "mosquitto")
    subprocess.run(
        [control, "dynsec", "init", roles, "admin", "pw"], check=True, capture_output=True
    )
    broker = start_mosquitto(f"plugin {plugin}", f"plugin_opt_config_file {roles}", anonymous=False)
    admin = [control, "-p", str(broker.port), "-u", "admin", "-P", "pw", "dynsec"]
    for order in (
        ["createClient", "app", "-p", "pw"],
        ["createRole", "monitor"],
        ["addRoleACL", "monitor", "subscribePattern", "$SYS/#", "allow"],
        ["addRoleACL", "monitor", "publishClientReceive", "$SYS/#", "allow"],
        ["addClientRole", "app", "monitor"],
    ):
        subprocess.run([*admin, *order], check=True, capture_output=True)
    collector = start(f"mqtt://app:pw@127.0.0.1:{broker.port}")
    wait_until(shows(collector, "mqtt_subscription_granted_qos", -1, "bts/+/+"), "denied")
    wait_until(shows(collector, "mqtt_up", 1), "up")
    found, error = look(collector)

    assert error is not None
    assert error.reason == "noperm"
    assert "subscription to bts/+/+ (Unspecified error (128)) denied" in str(error)
    assert found["mqtt_subscription_granted_qos"]["$SYS/#",] == 0
    assert "mosquitto_uptime_seconds" in found


@LEFT_OPEN
def test_missing_socket_is_refused(start: Start, tmp_path: Path) -> None:
    """As for a closed port; `optional: true` depends on this reason."""
    _, error = look(start(f"unix://{tmp_path}/no.sock"))

    assert error is not None
    assert (error.reason, "no such socket" in str(error)) == ("refused", True)


@LEFT_OPEN
def test_port_without_websockets_is_protocol(mosquitto: Mosquitto, start: Start) -> None:
    """The message names the protocol that is missing."""
    _, error = look(start(f"ws://127.0.0.1:{mosquitto.port}/mqtt"))

    assert error is not None
    assert error.reason == "unreachable"
    assert "is it a WebSocket listener" in str(error)


@pytest.mark.parametrize("scheme", ["mqtts", "ws", "wss", "unix"])
def test_every_transport_survives_a_hang_and_a_restart(
    listening: Callable[[str], tuple[Mosquitto, str]], start: Start, scheme: str
) -> None:
    """The client disconnects from a hanging broker, and reconnects when it continues or restarts."""
    broker, url = listening(scheme)
    collector = start(url, keepalive=Duration(1))
    hears(collector, broker, 1)
    broker.freeze()
    wait_until(shows(collector, "mqtt_disconnects_total", 1, "timeout"), "given up")
    broker.thaw()
    wait_until(shows(collector, "mqtt_connected", 1), "connected again")
    hears(collector, broker, 2)
    broker.kill()
    wait_until(shows(collector, "mqtt_connected", 0), "connection lost")
    broker.start()
    wait_until(shows(collector, "mqtt_connected", 1), "connected to the new one")
    hears(collector, broker, 3)

    assert look(collector)[0]["mqtt_network_thread_restarts_total"] == {(): 0}


def test_broker_that_is_back_is_up_at_the_next_collection(
    mosquitto: Mosquitto, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A collection connects to a broker that has returned, and has its values."""
    monkeypatch.setattr(network_thread, "RETRY_FIRST_SECONDS", 1000.0)
    monkeypatch.setattr(network_thread, "RETRY_BY_COLLECTION_SECONDS", 0.0)
    collector = start(mosquitto.url)
    wait_until(shows(collector, "mqtt_up", 1), "up")
    mosquitto.kill()
    wait_until(shows(collector, "mqtt_up", 0), "down")
    mosquitto.start()

    found, error = look(collector)
    assert (found["mqtt_up"], error) == ({(): 1}, None)
