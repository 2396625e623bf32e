"""RabbitMQ's MQTT plug-in: a broker without `$SYS`, with different permissions and queues."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers import free_port, listens, need, rabbitmq, wait_until
from servers.exporter import StartExporter
from servers.rabbitmq import RabbitMQ

pytestmark = pytest.mark.live

CONFIG = """\
mqtt.listeners.tcp.1 = 127.0.0.1:{plain}
web_mqtt.tcp.ip = 127.0.0.1
web_mqtt.tcp.port = {web}
mqtt.allow_anonymous = false
"""


class Plugin:
    """A RabbitMQ with MQTT over TCP and WebSocket."""

    def __init__(self, folder: Path) -> None:
        self.plain, self.web = free_port(), free_port()
        self.rabbit = RabbitMQ(folder, CONFIG.format(plain=self.plain, web=self.web))
        wait_until(lambda: listens(self.plain) and listens(self.web), "MQTT", 60)

    def publish(self, topic: str, payload: str) -> None:
        """Publish as guest."""
        argv = [need("mosquitto_pub", "mosquitto-clients"), "-p", str(self.plain), "-q", "1"]
        argv += ["-u", "guest", "-P", "guest", "-t", topic, "-m", payload]
        subprocess.run(argv, check=True, capture_output=True, timeout=20)


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plugin]:
    """Return a running broker."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            rabbitmq, "PLUGINS", (*rabbitmq.PLUGINS, "rabbitmq_mqtt", "rabbitmq_web_mqtt")
        )
        broker = Plugin(tmp_path_factory.mktemp("rabbitmq"))
    yield broker
    broker.rabbit.stop()


def settings(url: str, user: str = "guest", more: str = "") -> str:
    """Return settings with a rule."""
    return f"""\
plugins: none
collectors:
  mqtt:
    url: {url.replace("://", f"://{user}@")}
    password: guest
    rules:
      readings: {{topic: "bts/{{station}}", metrics: {{bts_reading: {{path: value}}}}}}
{more}"""


@pytest.mark.parametrize("scheme", ["mqtt", "ws"])
def test_rules_and_canary_work_without_sys(
    plugin: Plugin, exporter: StartExporter, scheme: str
) -> None:
    """The broker has no $SYS topics, and the collection succeeds."""
    port, path = (plugin.web, "/ws") if scheme == "ws" else (plugin.plain, "")
    server = exporter(settings(f"{scheme}://127.0.0.1:{port}{path}", more="    canary: {}\n"))
    wait_until(lambda: server.value("mqtt_up") == 1, "up")
    wait_until(
        lambda: (server.value("mqtt_canary_received_total", qos="0") or 0) >= 1, "a canary back"
    )
    plugin.publish("bts/7", '{"value": 21.5}')
    wait_until(lambda: server.value("bts_reading", station="7") == 21.5, "a reading")

    assert server.value("bts_exporter_collector_success", collector="mqtt", target="") == 1
    assert server.value("mosquitto_uptime_seconds") is None


def test_wrong_password_is_named(plugin: Plugin, exporter: StartExporter) -> None:
    """As in the standard, with the settings to correct."""
    server = exporter(settings(f"mqtt://127.0.0.1:{plugin.plain}", user="nobody"))
    words = "CONNECT refused: Bad user name or password (134); set the user in url"
    wait_until(lambda: words in server.log.read_text(), words)


def test_denied_topic_affects_only_its_rule(plugin: Plugin, exporter: StartExporter) -> None:
    """It is named; the other rule receives its messages."""
    plugin.rabbit.user("monitor", "guest", "")
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    plugin.rabbit.api("permissions/%2F/monitor", "PUT", everything)
    readable = {"exchange": "amq.topic", "write": ".*", "read": r"^bts\..*"}
    plugin.rabbit.api("topic-permissions/%2F/monitor", "PUT", readable)
    more = "      secret: {topic: 'secret/{x}', metrics: {secret: {path: value}}}\n"
    server = exporter(settings(f"mqtt://127.0.0.1:{plugin.plain}", "monitor", more))
    wait_until(
        lambda: server.value("mqtt_subscription_granted_qos", filter="bts/+") == 0, "granted", 60
    )
    wait_until(
        lambda: server.value("mqtt_subscription_granted_qos", filter="secret/+") == -1, "denied", 60
    )

    def has_reading() -> bool:
        # RabbitMQ may close the connection of the denied client: a message of that time is lost.
        plugin.publish("bts/8", '{"value": 2}')
        return server.value("bts_reading", station="8") == 2

    wait_until(has_reading, "a reading", 60)

    assert server.value("mqtt_up") == 1
    wait_until(lambda: "secret/+" in server.log.read_text(), "the line in the log")


def test_port_of_amqp_is_named(plugin: Plugin, exporter: StartExporter) -> None:
    """For mqtt:// to RabbitMQ's AMQP port."""
    server = exporter(settings(f"mqtt://127.0.0.1:{plugin.rabbit.amqp}"))
    wait_until(lambda: "the server speaks AMQP" in server.log.read_text(), "named in the log")


def test_http_port_of_websockets_is_named(plugin: Plugin, exporter: StartExporter) -> None:
    """For mqtt:// to the port for ws://."""
    server = exporter(settings(f"mqtt://127.0.0.1:{plugin.web}"))
    wait_until(lambda: "the server speaks HTTP" in server.log.read_text(), "named in the log")
