from __future__ import annotations

from time import monotonic

import pytest

from bts_collectors.rabbitmq.api.models import OVERVIEW
from bts_collectors.rabbitmq.metrics import overview
from bts_exporter import Scrape


def emitted(body: bytes) -> Scrape:
    """Return the samples that an overview gives."""
    scrape = Scrape(monotonic() + 10)
    overview.emit_overview(scrape, OVERVIEW.decode(body))
    assert scrape.losses == []
    return scrape


@pytest.mark.parametrize(
    ("body", "node", "cluster"),
    [(b"{}", "", ""), (b'{"node": "rabbit@one", "cluster_name": "shop"}', "rabbit@one", "shop")],
)
def test_there_is_one_identity_whatever_the_overview_holds(
    body: bytes, node: str, cluster: str
) -> None:
    """There is exactly one identity, whatever the overview contains."""
    assert emitted(body).samples[overview.IDENTITY] == {(node, cluster, "", "management"): 1}


def test_a_cluster_without_messages_so_far_counts_none() -> None:
    """Before the first message, counters are absent."""
    samples = emitted(b'{"message_stats": {}}').samples

    assert not samples.keys() & {*overview.IN.values(), *overview.OUT.values()}


def test_a_count_that_is_there_is_emitted_although_others_are_not() -> None:
    """Each counter appears with its first event."""
    samples = emitted(
        b'{"message_stats": {"publish": 3, "publish_details": {"rate": 1.5}}}'
    ).samples

    assert samples[overview.IN["publish"]] == {("amqp091",): 3}
    assert overview.IN["confirm"] not in samples


def test_disabled_statistics_show() -> None:
    """Disabled statistics are visible as a metric."""
    assert emitted(b'{"disable_stats": true}').samples[overview.STATS_DISABLED] == {(): 1}
    assert emitted(b'{"disable_stats": false}').samples[overview.STATS_DISABLED] == {(): 0}


def test_what_is_the_clusters_is_not_shown_for_a_node() -> None:
    """With `scope: node`, metrics of the cluster are left out."""
    body = b'{"node": "a", "object_totals": {"queues": 3}, "message_stats": {"publish": 3}}'
    scrape = Scrape(monotonic() + 10)
    overview.emit_overview(scrape, OVERVIEW.decode(body), cluster=False)

    assert {metric.name for metric in scrape.samples} == {"rabbitmq_identity_info"}
