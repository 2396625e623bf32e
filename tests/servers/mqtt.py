"""Collectors of MQTT brokers that are stopped when their test has ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from bts_collectors.mqtt.collector import Mqtt
from bts_collectors.mqtt.config import MqttConfig
from bts_exporter import Url
from bts_exporter.testing import look

Start = Callable[..., Mqtt]


@pytest.fixture
def start() -> Iterator[Start]:
    """Return a function that starts a collector for an address, with more settings if need be."""
    started: list[Mqtt] = []

    def start_one(url: str, **settings: object) -> Mqtt:
        started.append(Mqtt(MqttConfig(url=Url.from_setting(url), **settings)))  # type: ignore[arg-type]
        started[-1].start()
        return started[-1]

    yield start_one
    for one in started:
        one.stop()


def shows(collector: Mqtt, metric: str, value: float, *labels: str) -> Callable[[], bool]:
    """Return whether a collection has this sample, as a condition to wait for."""
    return lambda: look(collector)[0].get(metric, {}).get(labels) == value
