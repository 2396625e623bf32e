from __future__ import annotations

from pathlib import Path

from bts_collectors.rabbitmq.api.models import MessageStats, Queue
from bts_collectors.rabbitmq.prometheus.queues import DETAILED_PATH, may_be_stream, queues_of
from bts_exporter import prometheus_text

PAGES = Path(__file__).parents[1] / "responses" / "native"


def queues_by_name(version: str) -> dict[str, Queue]:
    """Return the queues of a page by name."""
    page = (PAGES / f"{version}-detailed.txt").read_text()
    return {queue.name: queue for queue in queues_of(prometheus_text.parse(page, strict=False))}


def test_a_page_of_3_10_gives_depths_and_no_types() -> None:
    """Before 4.0, counts by channel are left out, and types are unknown."""
    queues = queues_by_name("3.10")

    assert list(queues) == ["cq", "sq", 'we"ird\\q/ü', "qq"]
    orders = queues["cq"]
    assert (orders.vhost, orders.messages_ready, orders.messages_unacknowledged) == ("/", 2, 3)
    assert (orders.message_bytes_ready, orders.memory, orders.consumers) == (2, 55944, 1)
    assert orders.type is None
    assert orders.message_stats is None
    assert orders.head_message_timestamp is None  # NaN on the page


def test_a_page_of_4_1_gives_types_and_counts() -> None:
    """Published messages are summed over exchanges, delivered ones over ways of delivery."""
    orders = queues_by_name("4.1")["orders"]

    assert orders.type == "classic"
    assert orders.head_message_timestamp == 1_700_000_000
    assert orders.message_stats == MessageStats(
        publish=18, deliver=10, get=3, deliver_get=13, ack=11
    )


def test_names_and_virtual_hosts_are_as_the_broker_has_them() -> None:
    """Escape sequences in names are decoded."""
    queues = queues_by_name("4.1")

    assert queues['say "hi" \\ there'].type == "quorum"
    assert queues["log"].vhost == "prod"


def test_what_may_be_a_stream_is_not_a_backlog() -> None:
    """Where types are unknown, a queue that may be a stream has no backlog."""
    assert {name for name, queue in queues_by_name("4.1").items() if may_be_stream(queue)} == {
        "log"
    }
    assert {name for name, queue in queues_by_name("3.10").items() if may_be_stream(queue)} == {
        "sq"
    }


def test_only_what_is_used_is_requested() -> None:
    """Only the used families of the detailed page are requested."""
    assert DETAILED_PATH.startswith("/metrics/detailed?family=queue_coarse_metrics&")
    assert "channel" not in DETAILED_PATH
