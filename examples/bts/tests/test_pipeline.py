"""The whole pipeline on real brokers."""

from __future__ import annotations

import pytest
from bts_stack import Listener, Stack

from bts import results, topology
from bts.readings import GRID_LOAD
from servers import wait_until

pytestmark = pytest.mark.live


def ids_in_stream(stack: Stack) -> set[str]:
    """Return the ids of readings that have a prediction in Redis."""
    client = results.connect(stack.redis.url)
    with client:
        return {prediction.id for prediction in results.latest(client, 100_000)}


def test_killed_processes_lose_no_reading(stack: Stack, listener: Listener) -> None:
    """Bridge and worker are killed while readings flow; each grid load has a prediction in the end."""
    stack.start("bridge")
    stack.start("worker")
    sensors = stack.start("sensors", "--rate=500", "--count=3000", "--stations=20")
    for killed in ("worker", "bridge", "worker"):
        seen = len(ids_in_stream(stack))
        wait_until(lambda seen=seen: len(ids_in_stream(stack)) > seen + 100, "predictions")
        stack.processes[killed].kill()
        stack.start(killed)
    assert sensors.popen.wait(60) == 0

    wait_until(lambda: len(listener.readings) == 3000, "readings")
    loads = {reading["id"] for reading in listener.readings if reading["parameter_id"] == GRID_LOAD}
    wait_until(lambda: loads <= ids_in_stream(stack), "a prediction for each load")
    assert ids_in_stream(stack) == loads


def test_brokers_that_restart_lose_no_reading(stack: Stack, listener: Listener) -> None:
    """RabbitMQ is killed and started again; the bridge publishes again what was not confirmed."""
    stack.start("bridge")
    stack.start("worker")
    sensors = stack.start("sensors", "--rate=300", "--count=1500", "--stations=20")
    wait_until(lambda: len(ids_in_stream(stack)) > 100, "predictions")
    stack.rabbitmq.restart()
    assert sensors.popen.wait(60) == 0

    loads = {reading["id"] for reading in listener.readings if reading["parameter_id"] == GRID_LOAD}
    wait_until(lambda: loads <= ids_in_stream(stack), "a prediction for each load", 20)


def test_what_is_not_a_reading_ends_in_the_dead_letters(stack: Stack) -> None:
    """A payload that is not JSON is counted, and kept in bts.readings.dead for a person to look at."""
    # A session that exists receives what is published before the bridge is ready.
    stack.mosquitto.subscribe_and_leave("bts-bridge", "bts/+/+")
    for payload in ("{broken", '{"id": 1}', "999"):
        stack.mosquitto.publish("bts/1/122", payload)
    stack.start("bridge")
    stack.start("worker")

    wait_until(lambda: messages(stack, topology.DEAD) == 3, "dead letters")
    series = 'bts_readings_total{parameter="unknown",quality="malformed"}'
    assert stack.value("worker", series) == 3


def messages(stack: Stack, queue: str) -> int:
    """Return how many messages a queue holds."""
    queues = {item["name"]: item.get("messages", 0) for item in stack.rabbitmq.api("queues")}
    return int(queues.get(queue, 0))


def test_sensors_count_what_they_cannot_keep(stack: Stack) -> None:
    """Without the MQTT broker they keep 10,000 readings, and count each further one as lost."""
    stack.mosquitto.kill()
    stack.start("sensors", "--rate=20000", "--stations=5")

    wait_until(lambda: (stack.value("sensors", "bts_sensors_dropped_total") or 0) > 0, "losses")
    assert stack.value("sensors", "bts_sensors_published_total") == 10_000
