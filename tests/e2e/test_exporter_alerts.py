from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from servers import wait_until
from servers.alertmanager import write_fast_rules
from servers.exporter import Exporter
from servers.prometheus import Prometheus
from servers.redis import RedisServer

pytestmark = pytest.mark.live

#: As in the settings that we ship, brokers are optional. Nothing listens at MQTT's address.
SETTINGS = """\
collectors:
  redis: {{url: "{redis}", optional: true}}
  mqtt: {{url: "mqtt://127.0.0.1:1", optional: true}}
"""


class Scene(NamedTuple):
    """An exporter that is scraped under two names, and a Redis server that is there at first."""

    redis: RedisServer
    exporter: Exporter
    prometheus: Prometheus

    def fires(self, alertname: str, **labels: str) -> bool:
        """Return whether an alert with these labels fires."""
        wanted = {"alertname": alertname, **labels}.items()
        return any(
            alert["state"] == "firing" and wanted <= alert["labels"].items()
            for alert in self.prometheus.alerts()
        )


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Return the scene, with rules that fire within seconds."""
    folder: Callable[[str], Path] = tmp_path_factory.mktemp
    redis = RedisServer(folder("redis"))
    exporter = Exporter(folder("exporter"), SETTINGS.format(redis=redis.url))
    prometheus = Prometheus(
        folder("prometheus"),
        [exporter.address, f"localhost:{exporter.port}"],
        job="bts-exporter",
        rule_files=write_fast_rules(folder("rules")),
    )
    yield Scene(redis, exporter, prometheus)
    for stop in (prometheus.stop, exporter.kill, redis.kill):
        stop()


def test_broker_that_was_never_there_is_reported(scene: Scene) -> None:
    """An optional broker that is down since the exporter's first start raises an alert."""
    wait_until(
        lambda: scene.fires("OptionalTargetNotFound", collector="mqtt"), "MQTT is reported", 60
    )

    assert not scene.fires("OptionalTargetNotFound", collector="redis")
    assert not scene.fires("BrokerDown", broker="mqtt")


def test_exporter_that_is_scraped_twice_is_reported(scene: Scene) -> None:
    """One process under two addresses is recognized by its start time."""
    wait_until(lambda: scene.fires("BtsExporterScrapedTwice"), "the exporter is reported", 60)


def test_optional_broker_that_is_down_when_the_exporter_starts_is_reported(scene: Scene) -> None:
    """The exporter forgets that Redis was there, and Prometheus does not: BrokerDown fires."""
    known = 'bts_exporter:optional_target_supported{collector="redis"} == 1'
    wait_until(lambda: scene.prometheus.query(known), "Redis was seen", 60)

    scene.redis.kill()
    scene.exporter.restart()

    wait_until(lambda: scene.fires("BrokerDown", broker="redis"), "Redis is reported", 60)
    assert scene.exporter.value("redis_up") is None  # its absence is no failure
    assert not scene.fires("OptionalTargetNotFound", collector="redis")
