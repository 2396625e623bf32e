"""The whole way: three brokers, the exporter, Debian's Prometheus."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from servers import wait_until
from servers.exporter import StartExporter
from servers.mosquitto import Mosquitto
from servers.prometheus import Prometheus, promtool_check_metrics
from servers.rabbitmq import RabbitMQ
from servers.redis import RedisServer

pytestmark = pytest.mark.live

SETTINGS = """\
collectors:
  host:
  rabbitmq: {{url: "http://guest:guest@127.0.0.1:{rabbitmq}"}}
  redis: {{url: "{redis}", streams: ["bts:*"], queues: {{lists: ["jobs"]}}}}
  mqtt: {{url: "{mqtt}"}}
"""

#: What promtool says of names that are other exporters' and that dashboards ask for as they are.
FOREIGN = re.compile(r"(node|redis|rabbitmq|mosquitto)_")


@pytest.fixture
def settings(rabbitmq: RabbitMQ, redis_server: RedisServer, mosquitto: Mosquitto) -> str:
    """Return settings for three running brokers that hold messages."""
    rabbitmq.queue("e2e.readings")
    rabbitmq.publish("e2e.readings", 7)
    for number in range(5):
        redis_server.client.xadd("bts:predictions", {"n": number})
    redis_server.client.xgroup_create("bts:predictions", "bts-api", id="0")
    redis_server.client.xreadgroup("bts-api", "worker", {"bts:predictions": ">"}, count=2)
    redis_server.client.rpush("jobs", "a", "b", "c")
    return SETTINGS.format(rabbitmq=rabbitmq.mgmt, redis=redis_server.url, mqtt=mosquitto.url)


def test_prometheus_stores_the_backlog_of_every_broker(
    settings: str,
    exporter: StartExporter,
    prometheus: Callable[[Sequence[str]], Prometheus],
) -> None:
    """A real Prometheus has `up == 1`, host metrics, and each broker's backlog to the message."""
    server = prometheus([exporter(settings).address])
    server.wait_for_target_up()

    def backlog(system: str, destination: str) -> list[float]:
        query = f'messaging_backlog_messages{{system="{system}",destination="{destination}"}}'
        return [value for _, value in server.query(query)]

    wait_until(lambda: backlog("rabbitmq", "e2e.readings") == [7], "7 messages in the queue")
    wait_until(lambda: backlog("redis", "bts:predictions") == [3], "3 entries behind")
    wait_until(lambda: backlog("redis", "jobs") == [3], "3 jobs")
    wait_until(lambda: backlog("mqtt", "") == [0], "nothing held by the MQTT broker")
    assert server.query("sum(node_cpu_seconds_total) > 0")
    assert server.query("min(bts_exporter_collector_success) == 1")
    in_flight = server.query('messaging_in_flight_messages{system="redis",group="bts-api"}')
    assert [value for _, value in in_flight] == [2]


def test_promtool_has_no_complaint_about_our_own_families(
    settings: str, exporter: StartExporter
) -> None:
    """`promtool check metrics` accepts the page, and every name that only we have."""
    status, text = exporter(settings).get("/metrics")

    assert status == 200
    ours = [line for line in promtool_check_metrics(text) if not FOREIGN.match(line)]
    assert ours == []


def test_the_whole_page_is_valid_openmetrics(settings: str, exporter: StartExporter) -> None:
    """The strict parser of the reference library reads every family of a full scrape."""
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    status, text = exporter(settings).get("/metrics", accept)

    assert status == 200
    names = {family.name for family in text_string_to_metric_families(text)}
    assert {"node_load1", "redis_up", "rabbitmq_up", "mqtt_up"} <= names


def test_a_frozen_broker_costs_its_own_metrics_only(
    rabbitmq: RabbitMQ,
    mosquitto: Mosquitto,
    make_redis: Callable[..., RedisServer],
    exporter: StartExporter,
) -> None:
    """With Redis stopped in its tracks the scrape ends in time with everybody else's samples."""
    redis_server = make_redis()
    server = exporter(
        SETTINGS.format(rabbitmq=rabbitmq.mgmt, redis=redis_server.url, mqtt=mosquitto.url)
    )
    assert server.value("redis_up") == 1
    redis_server.freeze()

    patience = {"X-Prometheus-Scrape-Timeout-Seconds": "2"}
    status, text = server.get("/metrics", patience)

    assert status == 200
    assert "\nredis_up 0\n" in text
    assert "\nrabbitmq_up 1\n" in text
    assert "\nnode_load1 " in text
    assert 'bts_exporter_collector_success{collector="redis",target=""} 0\n' in text
    redis_server.thaw()
    wait_until(lambda: server.value("redis_up") == 1, "Redis is back")


def test_every_broker_gone_leaves_the_host(exporter: StartExporter) -> None:
    """With nothing listening anywhere the host is served and each broker is said to be down."""
    server = exporter(
        SETTINGS.format(rabbitmq=1, redis="redis://127.0.0.1:1", mqtt="mqtt://127.0.0.1:1")
    )

    assert server.value("node_load1") is not None
    for name in ("redis_up", "rabbitmq_up", "mqtt_up"):
        assert server.value(name) == 0, name
