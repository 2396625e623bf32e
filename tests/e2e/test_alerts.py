from __future__ import annotations

import math
import time
from collections.abc import Iterator

import pytest

from servers import wait_until
from servers.alertmanager import Alertmanager, write_fast_rules
from servers.monitored import MonitoredStack, start_stack

pytestmark = pytest.mark.live

#: What is late if all consumers stop: a queue, a group and a pipeline.
LATE = (
    {"system": "rabbitmq", "destination": "bts.readings"},
    {"system": "redis", "destination": "bts:predictions", "group": "bts-api"},
    {"system": "mqtt", "destination": "prediction"},
)

#: RabbitMQ's consumers are detached, which has an alert of its own if it lasts. On a busy machine, scrapes
#: with a timeout of a second fail at times.
POSSIBLE = {
    "BacklogWithoutConsumer",
    "BtsExporterFlapping",
    "CollectorFailing",
    "CollectorFlapping",
}


@pytest.fixture(scope="module")
def alertmanager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alertmanager]:
    """Return an Alertmanager that delivers to a webhook."""
    server = Alertmanager(tmp_path_factory.mktemp("alertmanager"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def stack(
    tmp_path_factory: pytest.TempPathFactory, alertmanager: Alertmanager
) -> Iterator[MonitoredStack]:
    """Return a healthy stack with the shipped rules, whose alerts go to `alertmanager`."""
    rules = write_fast_rules(tmp_path_factory.mktemp("rules"))
    with start_stack(
        tmp_path_factory,
        troubled=False,
        rule_files=rules,
        alertmanagers=[alertmanager.address],
    ) as stack:
        yield stack


def firing(stack: MonitoredStack) -> set[str]:
    """Return the names of the alerts that fire."""
    found = stack.prometheus.query('count by (alertname) (ALERTS{alertstate="firing"})')
    return {labels["alertname"] for labels, _ in found}


def fired(stack: MonitoredStack, since: float) -> set[str]:
    """Return the names of the alerts that fired at any time since a Unix time."""
    window = f"{math.floor(time.time() - since)}s"
    found = stack.prometheus.query(
        f'count by (alertname) (count_over_time(ALERTS{{alertstate="firing"}}[{window}]))'
    )
    return {labels["alertname"] for labels, _ in found}


def is_silenced(alertmanager: Alertmanager, alertname: str, **labels: str) -> bool:
    """Return whether there is such an alert, and another one silences each of them."""
    wanted = {"alertname": alertname, **labels}.items()
    states = {
        state
        for state in ("active", "suppressed")
        for found in alertmanager.alerts(state)
        if wanted <= found.items()
    }
    return states == {"suppressed"}


def test_one_rule_fires_for_every_broker_and_resolves(
    stack: MonitoredStack, alertmanager: Alertmanager
) -> None:
    """ConsumerBehind is delivered for a queue, a Redis group and an MQTT pipeline, and its end, too."""
    loads = (stack.rabbitmq_load, stack.redis_load, stack.mqtt_load)
    webhook = alertmanager.webhook
    consumed = "count(increase(messaging_consumed_messages_total[5m]) > 5) >= 4"
    wait_until(lambda: stack.prometheus.query(consumed), "messages are consumed", 60)
    wait_until(lambda: firing(stack) <= POSSIBLE, "nothing fires")
    began = time.time()

    for load in loads:
        load.stop_consumers()

    for late in LATE:
        wait_until(
            lambda late=late: webhook.delivered("firing", "ConsumerBehind", **late),
            f"delivered: {late}",
            60,
        )
    for load in loads:
        load.resume_consumers()
    for late in LATE:
        wait_until(
            lambda late=late: webhook.delivered("resolved", "ConsumerBehind", **late),
            f"resolved: {late}",
            60,
        )
    wait_until(lambda: firing(stack) <= POSSIBLE, "nothing fires", 60)
    assert fired(stack, began) - POSSIBLE == {"ConsumerBehind"}


def test_dead_broker_silences_its_own_alerts_only(
    stack: MonitoredStack, alertmanager: Alertmanager
) -> None:
    """BrokerDown of RabbitMQ silences the alerts of its queues and its collector; those of Redis stay."""
    webhook = alertmanager.webhook
    webhook.alerts.clear()
    stack.rabbitmq_load.stop_consumers()
    stack.redis_load.stop_consumers()
    for queue in ("bts.readings", "bts.results"):
        for alertname in ("ConsumerBehind", "BacklogWithoutConsumer"):
            wait_until(
                lambda name=alertname, queue=queue: webhook.delivered(
                    "firing", name, destination=queue
                ),
                f"delivered: {alertname} of {queue}",
                60,
            )
    wait_until(lambda: webhook.delivered("firing", "ConsumerBehind", **LATE[1]), "Redis", 60)
    webhook.alerts.clear()

    stack.rabbitmq.process.kill()

    wait_until(
        lambda: webhook.delivered("firing", "BrokerDown", broker="rabbitmq"),
        "delivered: BrokerDown",
        60,
    )
    for alertname in ("ConsumerBehind", "CollectorFailing"):
        wait_until(
            lambda name=alertname: is_silenced(alertmanager, name, broker="rabbitmq"),
            f"{alertname} is silenced",
        )
    behind = {"alertname": "ConsumerBehind", **LATE[1]}.items()
    assert any(behind <= alert.items() for alert in alertmanager.alerts("active"))
    about = [alert["labels"] for alert in webhook.alerts]
    assert {a["alertname"] for a in about if a.get("broker") == "rabbitmq"} == {"BrokerDown"}


def test_dead_exporter_silences_everything_of_its_machine(
    stack: MonitoredStack, alertmanager: Alertmanager
) -> None:
    """BtsExporterDown is delivered, and silences the alerts about Redis, which lasted until then."""
    stack.exporter.kill()

    wait_until(
        lambda: is_silenced(alertmanager, "ConsumerBehind", broker="redis"), "Redis is silenced"
    )
    wait_until(lambda: alertmanager.webhook.delivered("firing", "BtsExporterDown"), "delivered")
