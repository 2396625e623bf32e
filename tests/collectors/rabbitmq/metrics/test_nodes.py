from __future__ import annotations

from time import monotonic

from bts_collectors.rabbitmq.api.models import NODES
from bts_collectors.rabbitmq.metrics import nodes
from bts_collectors.rabbitmq.metrics.health import Alarms
from bts_exporter import Scrape


def emitted(body: bytes, alarms: Alarms | None = None) -> Scrape:
    """Return the samples that nodes give."""
    scrape = Scrape(monotonic() + 10)
    nodes.emit_nodes(scrape, NODES.decode(body), alarms)
    assert scrape.losses == []
    return scrape


def test_a_node_that_is_down_shows_as_such_and_has_no_other_values() -> None:
    """A node that is down has only rabbitmq_node_running 0."""
    samples = emitted(b'[{"name": "rabbit@two", "type": "disc", "running": false}]').samples

    assert {metric.name: values for metric, values in samples.items()} == {
        "rabbitmq_node_running": {("rabbit@two",): 0}
    }


def test_uptime_is_in_seconds() -> None:
    """The API's milliseconds are converted to seconds."""
    samples = emitted(b'[{"name": "a", "uptime": 61500}]').samples

    assert samples[nodes.UPTIME] == {("a",): 61.5}


def test_alarms_are_numbers() -> None:
    """An active alarm is 1."""
    body = b'[{"name": "a", "mem_alarm": true, "disk_free_alarm": false}]'
    samples = emitted(body).samples

    assert samples[nodes.ALARMS["memory"]] == {("a",): 1}
    assert samples[nodes.ALARMS["disk"]] == {("a",): 0}


def test_alarms_of_the_health_check_are_newer_than_the_statistics() -> None:
    """Alarms of the health check replace those of /api/nodes, for running nodes."""
    body = b'[{"name": "a", "running": true, "mem_alarm": false, "disk_free_alarm": true},'
    body += b'{"name": "b", "running": true}, {"name": "c", "running": false}]'
    samples = emitted(body, frozenset({("a", "memory")})).samples

    assert samples[nodes.ALARMS["memory"]] == {("a",): 1, ("b",): 0}
    assert samples[nodes.ALARMS["disk"]] == {("a",): 0, ("b",): 0}


def test_partitions_are_counted() -> None:
    """Partitions are counted by node; an empty list is 0."""
    body = b'[{"name": "a", "partitions": ["b", "c"]}, {"name": "d", "partitions": []}]'

    assert emitted(body).samples[nodes.PARTITIONS] == {("a",): 2, ("d",): 0}
