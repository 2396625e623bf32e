from __future__ import annotations

from time import monotonic

import pytest

from bts_collectors.rabbitmq.api.models import NODES
from bts_collectors.rabbitmq.metrics import nodes
from bts_collectors.rabbitmq.metrics.health import Alarms, read_alarms
from bts_exporter import Scrape


def emitted(body: bytes, alarms: Alarms | None = None, answering: str | None = None) -> Scrape:
    """Return the samples that nodes give."""
    scrape = Scrape(monotonic() + 10)
    nodes.emit_nodes(scrape, NODES.decode(body), alarms, answering)
    assert scrape.losses == []
    return scrape


def test_a_node_that_is_down_shows_as_such_and_has_no_other_values() -> None:
    """A node that is down has only rabbitmq_node_running 0."""
    samples = emitted(b'[{"name": "rabbit@two", "type": "disc", "running": false}]').samples

    assert {metric.name: values for metric, values in samples.items()} == {
        "rabbitmq_node_running": {("rabbit@two",): 0}
    }


def test_the_alarm_of_file_descriptors_is_that_of_the_answering_node() -> None:
    """Nodes do not report this alarm to each other: it is unknown for the other node."""
    body = b'[{"name": "a", "running": true}, {"name": "b", "running": true}]'
    alarms = read_alarms(
        b'{"alarms": [{"node": "a", "resource": "file descriptors"}]}', passes=False
    )

    for active, expected in ((alarms, 1), (frozenset(), 0)):
        assert emitted(body, active, "a").samples[nodes.FD_ALARM] == {("a",): expected}
    assert nodes.FD_ALARM not in emitted(body, None, "a").samples
    assert nodes.FD_ALARM not in emitted(body, frozenset()).samples


def test_connections_of_nodes_are_up_or_down() -> None:
    """Each running node has a series for each other member; command-line tools are not members.

    A connection to a node that is not running is down even if it is listed.
    """
    members = NODES.decode(
        b'[{"name": "a", "running": true, "cluster_links": [{"name": "b"}, {"name": "d"}, {"name": "cli-7"}]},'
        b'{"name": "b", "running": true, "cluster_links": [{"name": "a"}, {"name": "c"}]},'
        b'{"name": "c", "running": true}, {"name": "d", "running": false, "cluster_links": []}]'
    )
    scrape = Scrape(monotonic() + 10)

    nodes.emit_links(scrape, members[:3], members, "shop")

    assert scrape.samples[nodes.LINK] == {
        ("a", "b", "shop"): 3,
        ("a", "c", "shop"): 0,
        ("a", "d", "shop"): 0,
        ("b", "a", "shop"): 3,
        ("b", "c", "shop"): 3,
        ("b", "d", "shop"): 0,
    }


@pytest.mark.parametrize(("links", "expected"), [("[]", {("a", "a", "shop"): 3}), ("null", None)])
def test_the_only_node_of_a_cluster_is_connected_to_itself(links: str, expected: object) -> None:
    """Rules find a series if there is one node; without statistics nothing is known."""
    members = NODES.decode(f'[{{"name": "a", "running": true, "cluster_links": {links}}}]'.encode())
    scrape = Scrape(monotonic() + 10)

    nodes.emit_links(scrape, members, members, "shop")

    assert scrape.samples.get(nodes.LINK) == expected


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
