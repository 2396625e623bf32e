import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import MQTTErrorCode

from bts_collectors.mqtt.collector import Mqtt
from bts_exporter import Secret
from bts_exporter.testing import Samples, collect, look
from servers import need, wait_until
from servers.mosquitto import Mosquitto, StartMosquitto
from servers.mqtt import Start, shows

pytestmark = pytest.mark.live

BACKLOG = ("mqtt", "", "")
DOCS = Path(__file__).parents[2] / "docs/collectors/mqtt.md"


def fails(collector: Mqtt, reason: str) -> Callable[[], bool]:
    """Return a condition to wait for: a collection fails with this reason."""

    def failed() -> bool:
        error = look(collector)[1]
        return error is not None and error.reason == reason

    return failed


def of_broker(found: Samples) -> list[str]:
    """Return the names of the metrics of the broker's statistics."""
    kept = "mosquitto_sys_last_update_timestamp_seconds"
    return [n for n in found if n.startswith(("mosquitto_", "messaging_")) and n != kept]


def test_first_collection_is_complete(mosquitto: Mosquitto, start: Start) -> None:
    """`bts-exporter once` has the broker's values although it collects right after the start."""
    collector = start(mosquitto.url)
    found = collect(collector)

    assert found["mqtt_up"] == {(): 1}
    assert found["mqtt_connected"] == {(): 1}
    assert found["mqtt_subscription_granted_qos"] == {("$SYS/#",): 0}
    assert list(found["mosquitto_info"].values()) == [1]
    assert set(found["mosquitto_clients"]) == {("connected",), ("disconnected",)}
    assert abs(found["mosquitto_sys_last_update_timestamp_seconds"][()] - time.time()) < 60
    assert {
        "mosquitto_uptime_seconds",
        "mosquitto_sessions",
        "mosquitto_clients_expired_total",
        "mosquitto_packets_received_total",
        "mosquitto_packets_sent_total",
        "mosquitto_network_bytes_received_total",
        "mosquitto_network_bytes_sent_total",
        "mosquitto_messages_received_total",
        "mosquitto_messages_sent_total",
        "mosquitto_messages_dropped_total",
        "mosquitto_payload_bytes_received_total",
        "mosquitto_payload_bytes_sent_total",
        "mosquitto_store_messages",
        "mosquitto_store_bytes",
        "mosquitto_retained_messages",
        "mosquitto_subscriptions",
        "mosquitto_shared_subscriptions",
        "mosquitto_heap_bytes",
        "mosquitto_heap_max_bytes",
    } <= set(found)
    # Of a broker that starts just now the two counts contradict each other for a moment.
    wait_until(shows(collector, "mosquitto_queued_messages", 0), "nothing queued")


def test_exporter_is_counted_among_the_clients(mosquitto: Mosquitto, start: Start) -> None:
    """Values follow the broker's publications."""
    collector = start(mosquitto.url)

    wait_until(shows(collector, "mosquitto_clients", 1, "connected"), "one client connected")
    wait_until(shows(collector, "mosquitto_clients_max", 1), "one client at most")


def test_messages_for_a_disconnected_client_are_the_backlog(
    mosquitto: Mosquitto, start: Start
) -> None:
    """Its queued messages are counted exactly, without retained ones."""
    collector = start(mosquitto.url)
    mosquitto.subscribe_and_leave("consumer", "bts/#")
    mosquitto.publish("other/kept", retain=True)
    mosquitto.publish("bts/1/temperature", count=7)

    wait_until(shows(collector, "messaging_backlog_messages", 7, *BACKLOG), "backlog of 7")
    assert collect(collector)["mosquitto_queued_messages"] == {(): 7}
    assert collect(collector)["mosquitto_clients"]["disconnected",] == 1


def test_messages_for_two_disconnected_clients_are_counted_once(
    mosquitto: Mosquitto, start: Start
) -> None:
    """The broker stores a message once for any number of clients."""
    collector = start(mosquitto.url)
    for client in ("consumer", "archive"):
        mosquitto.subscribe_and_leave(client, "bts/#")
    mosquitto.publish("bts/1/temperature", count=5)

    wait_until(shows(collector, "mosquitto_queued_messages", 5), "5 queued messages")


def test_messages_that_a_queue_has_no_room_for_are_dropped(
    start_mosquitto: StartMosquitto, start: Start
) -> None:
    """Messages beyond max_queued_messages count as dropped, not as backlog."""
    broker = start_mosquitto("max_queued_messages 3")
    collector = start(broker.url)
    broker.subscribe_and_leave("consumer", "bts/#")
    broker.publish("bts/1/temperature", count=10)

    wait_until(shows(collector, "mosquitto_messages_dropped_total", 7), "7 dropped messages")
    wait_until(shows(collector, "mosquitto_queued_messages", 3), "3 queued messages")


def test_restarted_broker_is_found_again(mosquitto: Mosquitto, start: Start) -> None:
    """The client reconnects and subscribes, and earlier values are dropped."""
    collector = start(mosquitto.url)
    mosquitto.subscribe_and_leave("consumer", "bts/#")
    mosquitto.publish("bts/1/temperature", count=7)
    mosquitto.publish("$SYS/broker/connection/old/state", "1", retain=True)
    wait_until(shows(collector, "mosquitto_queued_messages", 7), "backlog of 7")
    wait_until(shows(collector, "mosquitto_bridge_up", 1, "old"), "what only this one has")
    mosquitto.kill()
    wait_until(shows(collector, "mqtt_connected", 0), "connection lost")
    while_gone, error = look(collector)
    mosquitto.start()
    wait_until(shows(collector, "mqtt_connected", 1), "connected again")
    wait_until(shows(collector, "mqtt_subscription_granted_qos", 0, "$SYS/#"), "subscribed")
    wait_until(shows(collector, "mosquitto_messages_received_total", 0), "values of the new broker")
    found = collect(collector)

    assert error is not None
    assert error.reason in {"unreachable", "refused"}
    assert while_gone["mqtt_up"] == {(): 0}
    assert while_gone["mosquitto_queued_messages"] == {(): 7}
    assert "mqtt_subscription_granted_qos" not in while_gone
    assert found["mqtt_up"] == {(): 1}
    assert found["mqtt_connects_total"] == {(): 2}
    assert found["mqtt_disconnects_total"]["unreachable",] == 1
    assert "mosquitto_bridge_up" not in found
    wait_until(shows(collector, "mosquitto_queued_messages", 0), "nothing queued")


def test_series_of_a_broker_that_is_gone_are_dropped(mosquitto: Mosquitto, start: Start) -> None:
    """Values older than stale_after are not emitted; metrics of the connection are."""
    collector = start(mosquitto.url, stale_after=3)
    collect(collector)
    mosquitto.kill()
    wait_until(lambda: not of_broker(look(collector)[0]), "series dropped")
    found, error = look(collector)

    assert error is not None
    assert error.reason == "refused"
    assert found["mqtt_up"] == {(): 0}
    assert found["mosquitto_sys_last_update_timestamp_seconds"][()] > 0


def test_frozen_broker_is_down_while_connected(mosquitto: Mosquitto, start: Start) -> None:
    """A hanging broker keeps connections open, but mqtt_up becomes 0."""
    collector = start(mosquitto.url, stale_after=4)
    collect(collector)
    mosquitto.freeze()
    wait_until(shows(collector, "mqtt_up", 0), "down")
    found, error = look(collector)

    assert error is not None
    assert (error.reason, found["mqtt_connected"]) == ("timeout", {(): 1})
    assert "no $SYS/broker/uptime" in str(error)
    assert of_broker(found) == []


def test_frozen_broker_is_disconnected_and_found_again(mosquitto: Mosquitto, start: Start) -> None:
    """Without replies to pings the connection is closed; the client reconnects when the broker continues."""
    collector = start(mosquitto.url, keepalive=1)
    collect(collector)
    mosquitto.freeze()
    wait_until(shows(collector, "mqtt_disconnects_total", 1, "timeout"), "given up")
    wait_until(fails(collector, "timeout"), "new connections are not answered")
    mosquitto.thaw()
    wait_until(shows(collector, "mqtt_up", 1), "up again")


def test_broker_that_comes_later_is_found(start_mosquitto: StartMosquitto, start: Start) -> None:
    """A broker that starts after the exporter is refused first, then connected."""
    broker = start_mosquitto()
    broker.kill()
    collector = start(broker.url)
    found, error = look(collector)
    broker.start()
    wait_until(shows(collector, "mqtt_up", 1), "up")

    assert error is not None
    assert (error.reason, found["mqtt_up"]) == ("refused", {(): 0})
    assert found["mqtt_connect_failures_total"]["refused",] >= 1


def test_wrong_password_is_auth(start_mosquitto: StartMosquitto, start: Start) -> None:
    """The message names the settings, and contains no password."""
    broker = start_mosquitto(anonymous=False, users={"mon": "right"})
    collector = start(f"mqtt://mon:wr0ng@127.0.0.1:{broker.port}")
    found, error = look(collector)

    assert error is not None
    assert (error.reason, found["mqtt_up"]) == ("auth", {(): 0})
    assert str(error).startswith(broker.url)
    assert "wr0ng" not in str(error)


def test_missing_password_is_auth(start_mosquitto: StartMosquitto, start: Start) -> None:
    """For brokers that do not allow anonymous clients."""
    broker = start_mosquitto(anonymous=False, users={"mon": "right"})

    assert fails(start(broker.url), "auth")()


def test_password_of_the_setting_is_used(start_mosquitto: StartMosquitto, start: Start) -> None:
    """The password may be separate from the address, where `!file` and `!env` work."""
    broker = start_mosquitto(anonymous=False, users={"mon": "right"})
    collector = start(f"mqtt://mon@127.0.0.1:{broker.port}", password=Secret("right"))

    assert collect(collector)["mqtt_up"] == {(): 1}


def test_documented_acl_is_enough(
    start_mosquitto: StartMosquitto, start: Start, tmp_path: Path
) -> None:
    """It allows to read all metrics, and nothing else."""
    acl = tmp_path / "acl"
    rules = DOCS.read_text().partition("## Permissions")[2].split("```")[1].strip()
    acl.write_text(rules)
    broker = start_mosquitto(f"acl_file {acl}", anonymous=False, users={"monitor": "right"})

    assert rules == "user monitor\ntopic read $SYS/#"
    assert collect(start(f"mqtt://monitor:right@127.0.0.1:{broker.port}"))["mqtt_up"] == {(): 1}


def test_acl_without_sys_is_noperm(
    start_mosquitto: StartMosquitto, start: Start, tmp_path: Path
) -> None:
    """With an ACL file, mosquitto grants the subscription and sends nothing: the message has the cure."""
    acl = tmp_path / "acl"
    acl.write_text("user app\ntopic readwrite bts/#\n")
    broker = start_mosquitto(f"acl_file {acl}", anonymous=False, users={"app": "right"})
    found, error = look(start(f"mqtt://app:right@127.0.0.1:{broker.port}"))

    assert error is not None
    assert (error.reason, found["mqtt_connected"], found["mqtt_up"]) == (
        "noperm",
        {(): 1},
        {(): 0},
    )
    assert "topic read $SYS/#" in str(error)
    assert of_broker(found) == []


def test_subscription_denied_by_a_role_is_noperm(
    start_mosquitto: StartMosquitto, start: Start, tmp_path: Path
) -> None:
    """Mosquitto's dynamic security denies in SUBACK: the granted QoS is -1 until a role allows it."""
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

    def order(*command: str) -> None:
        subprocess.run([*admin, *command], check=True, capture_output=True)

    order("createClient", "app", "-p", "pw")
    collector = start(f"mqtt://app:pw@127.0.0.1:{broker.port}")
    found, error = look(collector)
    order("createRole", "monitor")
    order("addRoleACL", "monitor", "subscribePattern", "$SYS/#", "allow")
    order("addRoleACL", "monitor", "publishClientReceive", "$SYS/#", "allow")
    order("addClientRole", "app", "monitor")
    wait_until(shows(collector, "mqtt_up", 1), "up with the role of the documentation")

    assert error is not None
    assert (error.reason, found["mqtt_connected"]) == ("noperm", {(): 1})
    assert found["mqtt_subscription_granted_qos"] == {("$SYS/#",): -1}


def test_killed_network_thread_is_restarted(
    mosquitto: Mosquitto, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error in the client library ends only one connection, and is counted."""
    collector = start(mosquitto.url)
    collect(collector)
    loop = paho.Client.loop

    def defect(client: paho.Client, timeout: float = 1.0) -> MQTTErrorCode:
        monkeypatch.setattr(paho.Client, "loop", loop)
        msg = "defect"
        raise RuntimeError(msg)

    monkeypatch.setattr(paho.Client, "loop", defect)
    wait_until(shows(collector, "mqtt_network_thread_restarts_total", 1), "restarted")
    wait_until(shows(collector, "mqtt_connects_total", 2), "connected again")
    wait_until(shows(collector, "mqtt_up", 1), "up again")


def test_bridge_is_shown_by_its_name(start_mosquitto: StartMosquitto, start: Start) -> None:
    """Its state is 1 while connected, and 0 when the other broker stops."""
    other = start_mosquitto()
    broker = start_mosquitto(
        "connection north",
        f"address 127.0.0.1:{other.port}",
        "topic bts/# out",
        "remote_clientid north",
        "restart_timeout 1",
    )
    collector = start(broker.url)
    wait_until(shows(collector, "mosquitto_bridge_up", 1, "north"), "bridge up")
    other.kill()
    wait_until(shows(collector, "mosquitto_bridge_up", 0, "north"), "bridge down")


def test_stop_disconnects(mosquitto: Mosquitto, start: Start) -> None:
    """The client sends DISCONNECT, and the thread ends."""
    collector = start(mosquitto.url)
    collect(collector)
    collector.stop()
    assert mosquitto.process
    log = mosquitto.process.log

    wait_until(lambda: "disconnected." in log.read_text(), "goodbye in the broker's log")
    assert look(collector)[0]["mqtt_up"] == {(): 0}


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """Return a self-signed certificate for 127.0.0.1, and its key."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    argv = [need("openssl", "openssl"), "req", "-x509", "-nodes", "-newkey", "ec"]
    argv += ["-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=localhost", "-days", "2"]
    argv += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(argv, check=True, capture_output=True)
    return cert, key


# paho leaves the socket of a failed handshake to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("trusted", [True, False])
def test_tls_connection_needs_a_trusted_certificate(
    start_mosquitto: StartMosquitto,
    start: Start,
    certificate: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    trusted: bool,
) -> None:
    """mqtts:// accepts a certificate that SSL_CERT_FILE trusts, and no other."""
    cert, key = certificate
    broker = start_mosquitto(f"certfile {cert}", f"keyfile {key}")
    monkeypatch.setenv("SSL_CERT_FILE", str(cert) if trusted else os.devnull)
    found, error = look(start(f"mqtts://127.0.0.1:{broker.port}"))

    assert (error.reason if error else None) == (None if trusted else "tls")
    assert found["mqtt_up"] == {(): int(trusted)}


def test_tls_port_without_tls_is_unreachable(
    start_mosquitto: StartMosquitto, start: Start, certificate: tuple[Path, Path]
) -> None:
    """A TLS port closes a plain connection: the message names mqtts://."""
    cert, key = certificate
    broker = start_mosquitto(f"certfile {cert}", f"keyfile {key}")
    _, error = look(start(broker.url))

    assert error is not None
    assert error.reason == "unreachable"
    assert "does the port speak TLS (mqtts://" in str(error)
