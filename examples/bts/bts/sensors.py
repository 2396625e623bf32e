"""The sensors: simulated stations that publish readings by MQTT, QoS 1."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator
from dataclasses import replace

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from prometheus_client import CollectorRegistry, start_http_server

from bts.faults import BURST_FACTOR, DRIFT_AMPERE, ActiveFaults
from bts.generator import Station
from bts.metrics import SensorMetrics
from bts.readings import GRID_LOAD, Reading, encode
from bts.settings import Settings, parser, settings_of

TICK_SECONDS = 0.05
#: Readings that the sensors keep while the MQTT broker is down.
MAX_QUEUED = 10_000
#: What a broken sensor sends; None is a message that is not JSON.
BROKEN_VALUES = (999999.0, 999991.0, -500.0, None)
FIRST_STATION = 1161114001


class Sensors:
    """All stations of a run; the same seed gives the same readings."""

    def __init__(self, faults: ActiveFaults, stations: int, seed: int) -> None:
        self._faults = faults
        self._stations = [Station(FIRST_STATION + number, seed) for number in range(stations)]
        self._random = random.Random(seed)

    def read(self, now: float) -> tuple[Reading, bytes] | None:
        """Return the next reading of some station and its payload; None where the station is silent."""
        index = self._random.randrange(len(self._stations))
        reading = self._stations[index].read(now)
        in_quarter = index < len(self._stations) / 4
        if "silent-stations" in self._faults and in_quarter:
            return None
        drifts = "drift" in self._faults or ("drift-partial" in self._faults and in_quarter)
        if drifts and reading.parameter_id == GRID_LOAD:
            reading = replace(reading, value=reading.value + DRIFT_AMPERE)
        if "bad-data" in self._faults and self._random.random() < 1 / 3:
            return self._broken(reading)
        return reading, encode(reading)

    def _broken(self, reading: Reading) -> tuple[Reading, bytes]:
        value = self._random.choice(BROKEN_VALUES)
        if value is None:
            return reading, b"{broken"
        broken = replace(reading, value=value)
        return broken, encode(broken)


def pace(faults: ActiveFaults, rate: float) -> Iterator[int]:
    """Yield how many readings are due at each tick, `rate` a second; a late tick makes up for the time."""
    due, last = 0.0, time.monotonic()
    while True:
        time.sleep(TICK_SECONDS)
        now = time.monotonic()
        due += (now - last) * rate * (BURST_FACTOR if "burst" in faults else 1)
        last = now
        yield int(due)
        due -= int(due)


def connect(settings: Settings) -> mqtt.Client:
    """Return a client that connects, and connects again, in the background."""
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="bts-sensors", clean_session=False)
    # More than that is lost while the broker is down, and its queue for the bridge has room for the rest.
    client.max_queued_messages_set(MAX_QUEUED)
    client.max_inflight_messages_set(1000)
    client.reconnect_delay_set(1, 5)
    client.connect_async(settings.mqtt_host, settings.mqtt_port)
    client.loop_start()
    return client


def main() -> None:
    """Publish readings until stopped, or until `--count` have been published and acknowledged."""
    command = parser("sensors", "Publish simulated readings.", 8100)
    command.add_argument("--rate", type=float, default=200, help="readings a second (%(default)s)")
    command.add_argument("--stations", type=int, default=100, help="(%(default)s)")
    command.add_argument("--seed", type=int, default=1, help="(%(default)s)")
    command.add_argument("--count", type=int, help="stop after this many readings")
    options = command.parse_args()
    settings = settings_of(options)

    registry = CollectorRegistry()
    metrics = SensorMetrics(registry)
    start_http_server(settings.metrics_port, "127.0.0.1", registry)
    faults = ActiveFaults(settings.faults_file)
    sensors = Sensors(faults, options.stations, options.seed)
    client = connect(settings)
    ticks = (number for due in pace(faults, options.rate) for number in range(due))
    for _ in itertools.islice(ticks, options.count):
        if (taken := sensors.read(time.time())) is not None:
            reading, payload = taken
            message = client.publish(reading.topic, payload, qos=1)
            if message.rc == mqtt.MQTT_ERR_QUEUE_SIZE:
                metrics.dropped.inc()
            else:
                metrics.published.inc()
    message.wait_for_publish(30)
    client.disconnect()
    client.loop_stop()


if __name__ == "__main__":
    main()
