"""Alert and recording rules that people use today, on a real Prometheus that scrapes real brokers through us.

Their licenses do not let us publish them: the test looks for them next to the repository, or at BTS_PUBLIC_RULES.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pika
import pytest

from compatibility import (
    JOB,
    KBUDDE,
    MANAGEMENT,
    Measured,
    measure_all,
    objects_of_rules,
    unexplained,
)
from public_rules import Rule, immediate, read_rules, rule_file, without_comparisons
from servers import wait_until
from servers.exporter import Exporter
from servers.link import link_with_speed
from servers.monitored import MonitoredStack
from servers.prometheus import Prometheus
from servers.rabbitmq import RabbitMQ

REPOSITORY = Path(__file__).parents[2]
FILE = Path(
    os.environ.get("BTS_PUBLIC_RULES", REPOSITORY.parent / "shared/conformance/queries/rules.json")
)

pytestmark = pytest.mark.skipif(not FILE.exists(), reason=f"{FILE} with public rules is absent")


@pytest.fixture(scope="module")
def rules() -> list[Rule]:
    """Return the public rules, with our job in place of others."""
    return read_rules(FILE, JOB)


@pytest.fixture(scope="module")
def measured(
    monitored: MonitoredStack, rules: list[Rule], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Measured]:
    """Return which rules return data."""
    with link_with_speed(), objects_of_rules(monitored):
        folder = tmp_path_factory.mktemp("rules")
        yield measure_all(monitored, rules, folder, (MANAGEMENT, KBUDDE))


def test_every_public_rule_returns_data_or_cannot(measured: Measured) -> None:
    """Rules without data ask for hardware that is not here, or for names of programs that we do not replace."""
    assert [(one.rule.name, one.absent) for one in unexplained(measured)] == []
    assert any(one.returns_data for results in measured.by_source.values() for one in results)


class Alarmed:
    """A new broker, and a Prometheus with public alerts that fire as soon as their condition holds."""

    def __init__(self, folders: pytest.TempPathFactory, rules: list[Rule], ends: ExitStack) -> None:
        self.rabbitmq = RabbitMQ(folders.mktemp("rabbitmq"))
        ends.callback(self.rabbitmq.stop)
        address = f"http://guest:guest@127.0.0.1:{self.rabbitmq.mgmt}"
        settings = f'collectors: {{rabbitmq: {{url: "{address}"}}}}'
        exporter = Exporter(folders.mktemp("exporter"), settings)
        ends.callback(exporter.kill)
        folder = folders.mktemp("prometheus")
        file = folder / "rules.yml"
        file.write_text(rule_file([immediate(rule) for rule in rules if rule.kind == "alert"]))
        self.prometheus = Prometheus(folder, [exporter.address], job=JOB, rule_files=[file])
        ends.callback(self.prometheus.stop)

    def firing(self, **labels: str) -> set[str]:
        """Return the names of the alerts that fire, with these labels."""
        return {
            alert["labels"]["alertname"]
            for alert in self.prometheus.alerts()
            if alert["state"] == "firing" and alert["labels"].items() >= labels.items()
        }


@pytest.fixture(scope="module")
def alarmed(rules: list[Rule], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alarmed]:
    """Return a broker that has never had a message, with the alerts."""
    with ExitStack() as ends:
        yield Alarmed(tmp_path_factory, rules, ends)


def test_the_first_unroutable_messages_fire_public_alerts(
    alarmed: Alarmed, rules: list[Rule]
) -> None:
    """Alerts on unroutable messages fire although the broker has had no message before."""
    about = {rule.name: rule for rule in rules if "unroutable" in rule.expression}
    query = alarmed.prometheus.query
    for rule in about.values():
        calm = without_comparisons(rule.expression)
        wait_until(lambda calm=calm: query(calm), f"{rule.name} has data", 60)
    assert not alarmed.firing() & about.keys()

    with alarmed.rabbitmq.channel() as channel:
        for mandatory in (True, False):
            for _ in range(5):
                try:
                    channel.basic_publish("", "nowhere", b"x", mandatory=mandatory)
                except pika.exceptions.UnroutableError:
                    assert mandatory

        wait_until(lambda: alarmed.firing() >= about.keys(), f"{sorted(about)} fire", 60)
    assert len(about) >= 3


def test_a_queue_without_consumer_fires_public_alerts(alarmed: Alarmed, rules: list[Rule]) -> None:
    """Alerts on queues without consumers fire for such a queue, and end when it has one."""
    queue = "public.orders"
    conditions = {"rabbitmq_queue_consumers == 0", "rabbitmq_queue_consumers < 1"}
    about = {rule.name for rule in rules if rule.expression in conditions}
    assert len(about) == 2

    alarmed.rabbitmq.queue(queue)

    wait_until(lambda: alarmed.firing(queue=queue, job=JOB) >= about, f"{sorted(about)} fire", 60)
    with alarmed.rabbitmq.channel() as channel:
        channel.basic_consume(queue, lambda *_: None)
        wait_until(lambda: not alarmed.firing(queue=queue) & about, "they end", 60)
