from __future__ import annotations

from time import monotonic

import pytest

from bts_collectors.rabbitmq.api.models import OVERVIEW, MessageStats
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


@pytest.mark.parametrize("counts", ["[]", "{}", '{"publish": 3}'])
def test_counters_start_at_zero_where_messages_are_counted(counts: str) -> None:
    """Counts that RabbitMQ leaves out are 0 if it counts messages: rules see the first unroutable one."""
    counting = '"disable_stats": false, "rates_mode": "basic"'
    samples = emitted(f'{{{counting}, "message_stats": {counts}}}'.encode()).samples

    assert samples.keys() >= {*overview.IN.values(), *overview.OUT.values()}
    for metric in overview.UNROUTABLE.values():
        assert samples[metric] == {(): 0}


def test_dashboards_of_older_versions_find_their_names() -> None:
    """Each name of a sum over channels has the value of the name that replaced it."""
    counts = ",".join(
        f'"{field}": {number}' for number, field in enumerate(MessageStats.__struct_fields__, 1)
    )
    totals = '"object_totals": {"consumers": 3}, "queue_totals": {"messages_unacknowledged": 4}'
    samples = emitted(f'{{{totals}, "message_stats": {{{counts}}}}}'.encode()).samples

    newer = {**overview.IN, **overview.OUT}
    for field, metric in {**overview.CHANNEL, **overview.UNROUTABLE}.items():
        assert newer[field].name in metric.help
        assert [*samples[metric].values()] == [*samples[newer[field]].values()]
    assert (
        len(overview.CHANNEL) + len(overview.UNROUTABLE) == len(MessageStats.__struct_fields__) - 1
    )
    assert samples[overview.CHANNEL_CONSUMERS] == {(): 3}
    assert samples[overview.CHANNEL_UNACKED] == {(): 4}


@pytest.mark.parametrize(
    "fields",
    [
        '"disable_stats": true, "rates_mode": "basic", "message_stats": {}',
        '"disable_stats": false, "rates_mode": "none", "message_stats": {}',
        '"disable_stats": false, "message_stats": {}',
        '"disable_stats": false, "rates_mode": "basic"',
    ],
)
def test_counters_are_absent_where_messages_may_not_be_counted(fields: str) -> None:
    """Without statistics, or if the reply has no counts, the counters are unknown and not 0."""
    samples = emitted(f"{{{fields}}}".encode()).samples

    assert not samples.keys() & {*overview.UNROUTABLE.values(), *overview.IN.values()}


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
