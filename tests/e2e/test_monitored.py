from __future__ import annotations

from collections.abc import Iterator

import pytest

from servers import wait_until
from servers.monitored import JOB, MonitoredStack, start_stack

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MonitoredStack]:
    """Return a stack without troubles that these tests may stop parts of."""
    with start_stack(tmp_path_factory, troubled=False) as stack:
        yield stack


def test_every_collector_of_the_stack_has_data(monitored: MonitoredStack) -> None:
    """All four collectors succeed, and the messages of each broker are produced and consumed."""
    prometheus = monitored.prometheus

    assert prometheus.query(f'up{{job="{JOB}"}} == 1')
    consumed = "count by (system) (rate(messaging_consumed_messages_total[30s]) > 0)"
    wait_until(lambda: len(prometheus.query(consumed)) == 3, "messages of three brokers consumed")


def test_stopped_consumers_are_late_until_they_resume(healthy: MonitoredStack) -> None:
    """Each broker's messages wait while its consumers are stopped, and are consumed afterwards."""
    prometheus = healthy.prometheus
    loads = (healthy.rabbitmq_load, healthy.redis_load, healthy.mqtt_load)

    for load in loads:
        load.stop_consumers()

    late = "count by (system) (messaging_lag_seconds > 3)"
    wait_until(lambda: len(prometheus.query(late)) == 3, "three brokers are late", 60)
    for load in loads:
        load.resume_consumers()
    wait_until(lambda: not prometheus.query("messaging_lag_seconds > 2"), "none is late", 60)


def test_loads_resume_after_a_restart_of_their_brokers(healthy: MonitoredStack) -> None:
    """Producers and consumers reconnect to brokers that were ended and started again."""
    healthy.redis.kill()
    healthy.mosquitto.kill()
    wait_until(lambda: healthy.prometheus.query("redis_up == 0 and mqtt_up == 0"), "both down")

    healthy.redis.restart()
    healthy.mosquitto.start()
    healthy.rabbitmq.restart()

    consumed = "count by (system) (rate(messaging_consumed_messages_total[5s]) > 0)"
    wait_until(lambda: len(healthy.prometheus.query(consumed)) == 3, "all brokers are back", 90)
