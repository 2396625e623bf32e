from __future__ import annotations

import pytest

from bts_collectors.mqtt.collector import Mqtt
from bts_collectors.mqtt.config import MqttConfig
from bts_collectors.mqtt.metrics import address_of
from bts_exporter import Url
from bts_exporter.testing import look


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("mqtt://Broker.Example.", "broker.example:1883"),
        ("mqtts://user:hush@10.0.0.1", "10.0.0.1:8883"),
        ("mqtt://[2001:db8::1]:1884", "[2001:db8::1]:1884"),
        ("mqtt://127.0.0.2", None),
        ("mqtt://[::1]", None),
        ("mqtt://localhost", None),
        ("unix:///run/mosquitto", None),
    ],
)
def test_address_is_that_of_other_machines(url: str, expected: str | None) -> None:
    """The address has the default port and no user; one that other machines cannot use is none."""
    assert address_of(Url.from_setting(url)) == expected


def test_broker_that_is_down_has_its_address() -> None:
    """The address is served even if nothing answers there."""
    collector = Mqtt(MqttConfig(url=Url.from_setting("mqtt://broker.invalid:1")))

    try:
        found, error = look(collector, 1)
    finally:
        collector.stop()

    assert error is not None
    assert found["mqtt_broker_info"] == {("broker.invalid:1",): 1}
