from __future__ import annotations

from collections.abc import Iterator

import pytest

from servers import wait_until
from servers.alertmanager import Alertmanager

pytestmark = pytest.mark.live

QUEUE = {"instance": "a", "broker": "rabbitmq", "system": "rabbitmq", "destination": "q"}
DISK = {"instance": "a", "mountpoint": "/"}
COLLECTOR = {"instance": "a", "collector": "redis", "broker": "redis"}
DOWN = {"alertname": "BrokerDown", "instance": "a", "broker": "rabbitmq"}
EXPORTER = {"alertname": "BtsExporterDown", "instance": "a", "job": "bts-exporter"}

#: (the alert that fires, alerts that it silences, alerts that it does not)
CASES = {
    "dead broker": (
        DOWN,
        [
            {"alertname": "ConsumerBehind", **QUEUE},
            {"alertname": "RabbitMQNodeDown", "instance": "a", "broker": "rabbitmq", "node": "n"},
            {**COLLECTOR, "alertname": "CollectorFailing", "broker": "rabbitmq"},
        ],
        [
            {**QUEUE, "alertname": "ConsumerBehind", "instance": "b"},
            {**QUEUE, "alertname": "ConsumerBehind", "target": "mail"},
            {**QUEUE, "alertname": "ConsumerBehind", "broker": "redis", "system": "redis"},
            {**DOWN, "broker": "mqtt"},
            {"alertname": "HostDiskFull", **DISK},
        ],
    ),
    "one of two dead brokers of a type": (
        {**DOWN, "target": "mail"},
        [{**QUEUE, "alertname": "ConsumerStalled", "target": "mail"}],
        [
            {**QUEUE, "alertname": "ConsumerStalled", "target": "orders"},
            {"alertname": "ConsumerStalled", **QUEUE},
        ],
    ),
    "dead exporter": (
        EXPORTER,
        [
            DOWN,
            {"alertname": "ConsumerBehind", **QUEUE},
            {"alertname": "HostDiskFull", **DISK},
            {"alertname": "CollectorFailing", "instance": "a", "collector": "cpu"},
        ],
        [
            {**EXPORTER, "instance": "b"},
            {**DOWN, "instance": "c"},
            {"alertname": "TargetMonitoredTwice", "broker": "redis", "run_id": "r"},
        ],
    ),
    "site that is cut off": (
        {"alertname": "SiteUnreachable", "site": "north"},
        [{**EXPORTER, "site": "north"}],
        [{**EXPORTER, "site": "south"}, EXPORTER, {"alertname": "HostDiskFull", "site": "north"}],
    ),
    "failing collector": (
        {"alertname": "CollectorFailing", **COLLECTOR},
        [{"alertname": name, **COLLECTOR} for name in ("CollectorSlow", "CollectorFlapping")],
        [{**COLLECTOR, "alertname": "CollectorSlow", "target": "cache"}],
    ),
    "absent target": (
        {"alertname": "OptionalTargetAbsent", "instance": "a", "collector": "mqtt"},
        [{"alertname": "OptionalTargetNotFound", "instance": "a", "collector": "mqtt"}],
        [{"alertname": "OptionalTargetNotFound", "instance": "a", "collector": "redis"}],
    ),
    "late queue": (
        {"alertname": "ConsumerBehind", **QUEUE},
        [{"alertname": "BacklogGrowing", **QUEUE}],
        [{**QUEUE, "alertname": "BacklogGrowing", "destination": "r"}],
    ),
    "full disk": (
        {"alertname": "HostDiskFull", **DISK},
        [{"alertname": "HostDiskFilling", **DISK}],
        [{**DISK, "alertname": "HostDiskFilling", "mountpoint": "/var"}],
    ),
}


@pytest.fixture(scope="module")
def alertmanager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alertmanager]:
    """Return an Alertmanager with the shipped settings."""
    server = Alertmanager(tmp_path_factory.mktemp("alertmanager"))
    yield server
    server.stop()


@pytest.mark.parametrize("case", CASES)
def test_cause_silences_its_effects_and_nothing_else(case: str, alertmanager: Alertmanager) -> None:
    """An alert silences those of the same broker, collector, queue or machine, and not their neighbours'."""
    # Instances of its own for each case: the alerts of all cases are active together.
    cause, silenced, others = (
        [
            {**alert, "case": case, "instance": f"{alert['instance']} {case}"}
            if "instance" in alert
            else alert
            for alert in alerts
        ]
        for alerts in ([CASES[case][0]], *CASES[case][1:])
    )

    alertmanager.post(*cause, *silenced, *others)

    wait_until(
        lambda: all(alert in alertmanager.alerts("suppressed") for alert in silenced),
        f"{silenced} are silenced",
    )
    active = alertmanager.alerts("active")
    assert [alert for alert in [*cause, *others] if alert not in active] == []


def test_critical_and_warning_alerts_are_delivered(alertmanager: Alertmanager) -> None:
    """Alerts reach the receiver, except those with the severity info, which only Alertmanager shows."""
    alertmanager.post(
        {"alertname": "A", "severity": "info"},
        {"alertname": "B", "severity": "warning"},
        {"alertname": "C", "severity": "critical"},
    )

    for name in ("B", "C"):
        wait_until(lambda name=name: alertmanager.webhook.delivered("firing", name), name)
    assert {"alertname": "A", "severity": "info"} in alertmanager.alerts("active")
    assert not alertmanager.webhook.delivered("firing", "A")


def test_alerts_about_one_broker_arrive_together(alertmanager: Alertmanager) -> None:
    """One message has the alerts about a broker; those about the machine have a message of their own."""
    late = [{**QUEUE, "alertname": "ConsumerStalled", "destination": name} for name in ("x", "y")]
    disk = {"alertname": "HostDiskFull", **DISK}
    alerts = [{**alert, "instance": "grouped", "severity": "warning"} for alert in (*late, disk)]

    alertmanager.post(*alerts)

    def messages() -> list[list[str]]:
        found = [
            sorted(alert["labels"]["alertname"] for alert in message)
            for message in list(alertmanager.webhook.notifications)
            if message[0]["labels"].get("instance") == "grouped"
        ]
        return sorted(found)

    expected = [["ConsumerStalled", "ConsumerStalled"], ["HostDiskFull"]]
    wait_until(lambda: messages() == expected, "two messages")
