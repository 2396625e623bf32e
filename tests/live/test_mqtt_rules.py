"""Rules with a real broker: valid and invalid messages."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import indent

import pytest

from bts_collectors.mqtt.collector import Mqtt
from bts_exporter.collection.registry import Registry
from bts_exporter.settings.loader import load
from bts_exporter.testing import Samples, look
from servers import wait_until
from servers.exporter import StartExporter
from servers.mosquitto import Mosquitto

pytestmark = pytest.mark.live

Start = Callable[..., Mqtt]

#: As in config.yaml, in short.
RULES = """\
readings:
  topic: bts/{station}/{parameter}
  event_time: {path: reading_time}
  metrics:
    bts_reading: {path: value, map: {"999999": null}}
    bts_readings_total: {type: counter, labels: [parameter]}
alarms:
  topic: alarm/{station}/{datapoint}/{alarm}
  format: csv
  columns: [index, event_time, value, threshold, active]
  metrics: {bts_alarm_active: {path: active}}
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts a collector with rules in YAML."""
    started: list[Mqtt] = []

    def start_one(broker: Mosquitto, rules: str = RULES, protocol: str = "3.1.1") -> Mqtt:
        path = tmp_path / "config.yaml"
        path.write_text(settings(broker, rules, protocol))
        (block,) = load(path, Registry).blocks
        collector = Mqtt(block.config)
        started.append(collector)
        collector.start()
        wait_until(lambda: "mqtt_subscription_granted_qos" in shown(collector), "subscribed")
        return collector

    yield start_one
    for one in started:
        one.stop()


def settings(broker: Mosquitto, rules: str, protocol: str = "3.1.1") -> str:
    """Return settings for a broker."""
    head = f"collectors:\n  mqtt:\n    url: {broker.url}\n    protocol: {protocol}\n"
    return f"{head}    rules:\n{indent(rules, ' ' * 6)}"


def shown(collector: Mqtt) -> Samples:
    """Return the samples of a collection, even if it fails."""
    return look(collector)[0]


def after(collector: Mqtt, messages: int, rule: str = "readings") -> Samples:
    """Return the samples when a rule has received a number of messages."""
    found: Samples = {}

    def enough() -> bool:
        found.clear()
        found.update(shown(collector))
        return found["mqtt_received_messages_total"][rule,] >= messages

    wait_until(enough, f"{messages} messages of {rule}")
    return found


def test_readings_become_metrics(mosquitto: Mosquitto, start: Start) -> None:
    """JSON and CSV, values and counts, labels from the topic, and lag."""
    collector = start(mosquitto, RULES)
    for value in (12.5, 13, 999999):
        reading = {"value": value, "reading_time": time.time() - 2}
        mosquitto.publish("bts/7/122", json.dumps(reading))
    mosquitto.publish("alarm/7/122/310", "1,1700000000,31.5,30,1")
    after(collector, 1, "alarms")
    found = after(collector, 3)

    assert found["bts_reading"] == {("7", "122"): 13}
    assert found["bts_readings_total"] == {("122",): 3}
    assert found["bts_alarm_active"] == {("7", "122", "310"): 1}
    assert found["mqtt_message_lag_seconds"]["_count", "readings"] == 3
    assert found["mqtt_message_lag_seconds"]["_bucket", "readings", "1"] == 0
    assert set(found["mqtt_message_errors_total"].values()) == {0}


def test_invalid_messages_are_counted_and_valid_ones_served(
    mosquitto: Mosquitto, start: Start
) -> None:
    """By reason; the thread survives, and other metrics are unaffected."""
    collector = start(mosquitto, RULES)
    now = time.time()
    bad: list[tuple[bytes, str]] = [
        (b"\xff\xfe\x00", "malformed"),
        (b"[" * 100_000, "malformed"),
        (b'{"reading_time": %f, "value": NaN}' % now, "not_finite"),
        (b'{"reading_time": %f}' % now, "missing"),
        (b'{"reading_time": %f, "value": {}}' % now, "wrong_type"),
        (b'{"reading_time": %f, "value": "NaN"}' % now, "not_finite"),
        (b'{"reading_time": %f, "value": 1%s}' % (now, b"0" * 400), "not_finite"),
        (b'{"reading_time": "now", "value": 1}', "event_time"),
    ]
    for payload, _ in bad:
        mosquitto.publish("bts/7/122", payload)
    mosquitto.publish("bts/7/122", json.dumps({"reading_time": now + 3600, "value": 2}))
    found = after(collector, len(bad) + 1)
    expected = {reason: sum(r == reason for _, r in bad) for _, reason in bad}

    errors = found["mqtt_message_errors_total"]
    assert {r: n for (rule, r), n in errors.items() if rule == "readings" and n} == expected
    assert found["mqtt_message_clock_skew_total"] == {("readings",): 1}
    assert found["bts_reading"] == {("7", "122"): 2}
    assert found["mqtt_message_handling_errors_total"] == {(): 0}
    wait_until(lambda: shown(collector)["mqtt_up"] == {(): 1}, "up")


def test_payload_of_ten_megabytes_is_discarded(mosquitto: Mosquitto, start: Start) -> None:
    """It is counted, and later messages arrive."""
    collector = start(mosquitto, RULES)
    mosquitto.publish("bts/7/122", bytes(10_000_000))
    refused = {("payload",): 1, ("topic",): 0}
    # The broker may receive the end of it after a message of another client.
    wait_until(lambda: shown(collector)["mqtt_messages_refused_total"] == refused, "it is counted")
    mosquitto.publish("bts/7/122", '{"value": 1}')
    found = after(collector, 1)

    assert found["mqtt_messages_refused_total"] == refused
    assert found["bts_reading"] == {("7", "122"): 1}
    assert found["mqtt_connects_total"] == {(): 1}


def test_retained_messages_are_not_counted_again(mosquitto: Mosquitto, start: Start) -> None:
    """The broker sends them for each connection: they set the value, but are not counted."""
    mosquitto.publish("bts/7/122", '{"value": 5, "reading_time": 1}', retain=True)
    found = after(start(mosquitto, RULES), 1)

    assert found["bts_reading"] == {("7", "122"): 5}
    assert found["bts_readings_total"] == {("122",): 0}
    assert found["mqtt_message_lag_seconds"]["_count", "readings"] == 0


def test_flood_of_topics_meets_the_limit(mosquitto: Mosquitto, start: Start) -> None:
    """The number of series is bounded, dropped values are counted, and existing series continue."""
    rules = "flood:\n  topic: '{topic...}'\n  max_series: 10\n  metrics: {m: {path: $}}\n"
    collector = start(mosquitto, rules)
    for number in range(15):
        mosquitto.publish(f"flood/{number}", str(number))
    mosquitto.publish("flood/0", "100")
    found = after(collector, 16, "flood")

    assert len(found["m"]) == 10
    assert found["m"]["flood/0",] == 100
    assert found["mqtt_series_limit_dropped_total"] == {("flood",): 5}


def test_series_expires_when_its_topic_is_silent(mosquitto: Mosquitto, start: Start) -> None:
    """A sensor that was removed leaves no value behind."""
    rules = "r:\n  topic: bts/{station}\n  expire: 1s\n  metrics: {m: {path: $}}\n"
    collector = start(mosquitto, rules)
    mosquitto.publish("bts/7", "1")
    wait_until(lambda: shown(collector)["mqtt_series_expired_total"]["r",] == 1, "expired")

    assert "m" not in shown(collector)


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
def test_overlapping_rules_see_each_message_once(
    mosquitto: Mosquitto, start: Start, protocol: str
) -> None:
    """With MQTT 5, mosquitto sends a message for each matching subscription: ours do not overlap."""
    rules = """\
a: {topic: "tele/{device}/SENSOR", metrics: {a_total: {type: counter}}}
b: {topic: "tele/lamp/{what}", metrics: {b_total: {type: counter}}}
c: {topic: "tele/#", metrics: {c_total: {type: counter}}}
"""
    collector = start(mosquitto, rules, protocol)
    mosquitto.publish("tele/lamp/SENSOR", "{}", count=3)
    mosquitto.publish("tele/end", "{}")
    found = after(collector, 4, "c")

    assert found["a_total"] == {("lamp",): 3}
    assert found["b_total"] == {("SENSOR",): 3}
    assert found["c_total"] == {(): 4}


def test_values_of_rules_are_on_the_page(mosquitto: Mosquitto, exporter: StartExporter) -> None:
    """From settings and broker to the page; `metrics` lists them without a broker."""
    server = exporter(settings(mosquitto, RULES))

    def subscribed() -> bool:
        return server.value("mqtt_subscription_granted_qos", filter="bts/+/+") == 0

    wait_until(subscribed, "subscribed")
    mosquitto.publish("bts/7/122", '{"value": 12.5}')
    wait_until(lambda: server.value("bts_reading", station="7", parameter="122") == 12.5, "reading")
    status, text = server.get("/metrics")

    assert status == 200
    assert "# TYPE bts_readings counter" in text or "# TYPE bts_readings_total counter" in text
