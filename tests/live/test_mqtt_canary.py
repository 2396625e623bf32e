from collections.abc import Callable
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from bts_collectors.mqtt.client.topics import Pattern
from bts_collectors.mqtt.collector import Mqtt
from bts_collectors.mqtt.probes.canary import CanaryConfig
from bts_collectors.mqtt.probes.pipeline import PipelineConfig
from bts_collectors.mqtt.rules.payloads import Path as PayloadPath
from bts_exporter import Duration
from bts_exporter.testing import collect, look
from servers import wait_until
from servers.mosquitto import Mosquitto, StartMosquitto
from servers.mqtt import Start

pytestmark = pytest.mark.live

DOCS = Path(__file__).parents[2] / "docs/collectors/mqtt.md"
LOST, RECEIVED, SENT = (f"mqtt_canary_{what}_total" for what in ("lost", "received", "sent"))
BRISK = CanaryConfig(interval=Duration(1), timeout=Duration(2))
PIPELINE = PipelineConfig(
    in_topic=Pattern.from_setting("bts/{station}/{parameter}"),
    out_topic=Pattern.from_setting("predict/{station}"),
    in_id=PayloadPath.from_setting("id"),
    out_id=PayloadPath.from_setting("for"),
)


def at_least(collector: Mqtt, metric: str, value: float, *labels: str) -> Callable[[], bool]:
    """Return a condition to wait for: a collection has this sample or a larger one."""
    return lambda: look(collector)[0].get(metric, {}).get(labels, 0) >= value


def up(collector: Mqtt, expected: int) -> Callable[[], bool]:
    """Return a condition to wait for: mqtt_up has this value."""
    return lambda: look(collector)[0]["mqtt_up"] == {(): expected}


def test_round_trip_is_measured_for_each_qos(mosquitto: Mosquitto, start: Start) -> None:
    """Each QoS has its own subscription, and its messages come back."""
    config = CanaryConfig(qos=(0, 1, 2), interval=Duration(1), timeout=Duration(60))
    collector = start(mosquitto.url, canary=config)
    for qos in ("0", "1", "2"):
        wait_until(at_least(collector, RECEIVED, 2, qos), f"two of QoS {qos} back")
    found = collect(collector)

    for qos in (0, 1, 2):
        label = str(qos)
        trips = found["mqtt_canary_round_trip_seconds"]
        assert trips["_count", label] == found[RECEIVED][label,]
        assert 0 < trips["_sum", label] < 60
        assert found[LOST][label,] == 0
    granted = {name: qos for (name,), qos in found["mqtt_subscription_granted_qos"].items()}
    assert sorted(granted.values()) == [0, 0, 1, 2]


def test_frozen_broker_loses_the_canary(mosquitto: Mosquitto, start: Start) -> None:
    """Long before the keepalive ends the connection; later messages come back again."""
    collector = start(mosquitto.url, canary=BRISK, keepalive=Duration(3600))
    wait_until(at_least(collector, RECEIVED, 1, "0"), "first one back")
    mosquitto.freeze()
    wait_until(at_least(collector, LOST, 2, "0"), "two lost")
    lost, _ = look(collector)
    mosquitto.thaw()
    wait_until(at_least(collector, RECEIVED, lost[RECEIVED]["0",] + 1, "0"), "back again")

    assert lost["mqtt_connected"] == {(): 1}


def test_restarted_broker_has_the_canary_again(mosquitto: Mosquitto, start: Start) -> None:
    """The new connection subscribes and publishes; nothing is sent while disconnected."""
    collector = start(mosquitto.url, canary=BRISK)
    wait_until(at_least(collector, RECEIVED, 1, "0"), "first one back")
    mosquitto.kill()
    wait_until(lambda: look(collector)[0]["mqtt_connected"] == {(): 0}, "connection lost")
    sent = look(collector)[0][SENT]
    mosquitto.start()
    wait_until(at_least(collector, RECEIVED, sent["0",] + 1, "0"), "back again")
    found = collect(collector)

    assert 0 <= found[SENT]["0",] - found[RECEIVED]["0",] - found[LOST]["0",] <= 3


def test_broker_without_sys_is_up_by_its_canary(
    start_mosquitto: StartMosquitto, start: Start
) -> None:
    """With sys_interval 0, as for other brokers; a hang is still detected."""
    broker = start_mosquitto("sys_interval 0")
    collector = start(broker.url, canary=BRISK, stale_after=Duration(4), keepalive=Duration(3600))
    wait_until(up(collector, 1), "up")
    found = collect(collector)
    broker.freeze()
    wait_until(up(collector, 0), "down")
    _, error = look(collector)

    assert [name for name in found if name.startswith("mosquitto_")] == []
    assert error is not None
    assert (error.reason, "no canary message came back" in str(error)) == ("timeout", True)


def acl(heading: str) -> str:
    """Return the ACL below a heading of the documentation."""
    return DOCS.read_text().partition(f"\n### {heading}\n")[2].split("```")[1].strip()


@pytest.mark.parametrize("allowed", [True, False])
def test_canary_needs_the_documented_acl(
    start_mosquitto: StartMosquitto, start: Start, tmp_path: Path, allowed: bool
) -> None:
    """Without it messages are lost, but all other metrics are served."""
    rules = acl("Permissions of a canary")
    assert "topic readwrite bts-exporter/canary/#" in rules
    file = tmp_path / "acl"
    file.write_text(rules if allowed else rules.replace("topic readwrite bts-exporter", "#"))
    broker = start_mosquitto(f"acl_file {file}", anonymous=False, users={"monitor": "pw"})
    patience = Duration(60 if allowed else 1)
    config = CanaryConfig(interval=Duration(1), timeout=patience)
    collector = start(f"mqtt://monitor:pw@127.0.0.1:{broker.port}", canary=config)
    wait_until(at_least(collector, RECEIVED if allowed else LOST, 2, "0"), "two known")
    wait_until(up(collector, 1), "up")
    found = collect(collector)

    assert found[LOST if allowed else RECEIVED] == {("0",): 0}
    assert "mosquitto_clients" in found


def test_latency_of_a_pipeline_is_measured(mosquitto: Mosquitto, start: Start) -> None:
    """Between readings and the predictions of a service, by an id in both."""
    collector = start(mosquitto.url, pipelines={"predict": PIPELINE})
    wait_until(up(collector, 1), "up")
    wait_until(
        lambda: (
            "predict/+" in {name for (name,) in look(collector)[0]["mqtt_subscription_granted_qos"]}
        ),
        "subscribed",
    )
    service = paho.Client(CallbackAPIVersion.VERSION2)

    def predict(client: paho.Client, _userdata: object, message: paho.MQTTMessage) -> None:
        number = message.payload.decode().removeprefix('{"id": ').removesuffix("}")
        client.publish("predict/1", f'{{"for": {number}, "value": 20.5}}')

    service.on_message = predict
    service.connect("127.0.0.1", mosquitto.port)
    subscribed: list[int] = []
    service.on_subscribe = lambda *_: subscribed.append(1)
    service.subscribe("bts/+/+", qos=1)
    service.loop_start()
    wait_until(lambda: subscribed, "the service listens")
    for number in (1, 2, 3):
        mosquitto.publish("bts/1/122", f'{{"id": {number}}}')
    wait_until(
        at_least(collector, "mqtt_pipeline_latency_seconds", 3, "_count", "predict"), "three pairs"
    )
    service.loop_stop()
    service.disconnect()
    mosquitto.publish("bts/1/122", '{"id": 4}')
    wait_until(at_least(collector, "mqtt_pipeline_pending_messages", 1, "predict"), "one waits")
    found = collect(collector)

    assert 0 < found["mqtt_pipeline_latency_seconds"]["_sum", "predict"] < 60
    assert found["messaging_backlog_messages"]["mqtt", "predict", ""] == 1
    assert found["messaging_lag_seconds"]["mqtt", "predict", ""] > 0
    assert found["messaging_published_messages_total"]["mqtt", "predict", ""] == 4
