"""Lower bounds of the lag where other messages may have replaced those that were counted.

The examples are from the random histories, where each lower bound exceeded the truth once.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from bts_collectors.rabbitmq.api.models import Arguments, MessageStats, Queue
from bts_collectors.rabbitmq.metrics.lag import Lags
from bts_exporter.backlog import Age

DROP_HEAD = Arguments(max_length=10, max_priority=10)
REJECT = Arguments(max_length=100, overflow="reject-publish")
PRIORITIES = Arguments(max_priority=10)

#: Published, delivered and ready messages at a scrape, five seconds after the one before.
Scrape = tuple[int, int, int]


class Example(NamedTuple):
    """Scrapes of a queue, and the true age of its oldest message at the last one."""

    scrapes: list[Scrape]
    truth: float
    arguments: Arguments = Arguments()
    gap: float = 4.99


REPLACED = {
    "restarted, emptied, dead letters": Example(
        [
            *[(82, 0, 68), (182, 0, 168), (260, 0, 260), (260, 20, 243), (260, 45, 218)],
            *[(0, 2, 193), (0, 102, 102), (0, 190, 2), (0, 190, 15), (0, 190, 15)],
        ],
        10.8,
    ),
    "restarted, publications lost": Example(
        [(102, 0, 78), (1, 2, 154), (1, 100, 83), (1, 100, 61), (1, 100, 61)], 18.9
    ),
    "restarted, deliveries lost": Example(
        [
            (5, 0, 0),
            (10, 0, 5),
            (15, 0, 10),
            (21, 1, 15),
            (4, 1, 12),
            (9, 1, 24),
            (14, 1, 29),
            (19, 1, 34),
        ],
        22.5,
    ),
    "restarted, emptied, dead letters and publications": Example(
        [
            *[(42, 0, 28), (142, 0, 128), (240, 0, 228), (240, 15, 228), (240, 40, 203)],
            *[(240, 65, 178), (3, 62, 119), (8, 162, 24), (9, 174, 15), (9, 174, 15)],
        ],
        9.8,
    ),
    "purged between publications, dead letters": Example(
        [
            *[(0, 0, 15), (0, 0, 15), (0, 3, 29), (0, 5, 25), (0, 5, 25), (2, 5, 25)],
            *[(102, 5, 68), (202, 5, 168), (260, 5, 275)],
        ],
        18.2,
        gap=5.0,
    ),
    "emptied by priorities, dead letters": Example(
        [
            *[(0, 0, 0), (82, 0, 38), (182, 0, 138), (282, 0, 238), (300, 0, 300)],
            *[(300, 246, 186), (300, 300, 15), (300, 300, 15)],
        ],
        10.5,
        PRIORITIES,
    ),
    "purged, dead letters": Example(
        [(5, 0, 4), (10, 0, 9), (15, 0, 14), (20, 0, 19), (20, 0, 15), (20, 0, 15)], 11.3
    ),
    "pushed out by dead letters": Example(
        [(5, 0, 0), (10, 0, 5), (15, 0, 10), (19, 0, 10), (19, 0, 10), (19, 0, 10)], 13.1, DROP_HEAD
    ),
    "purged, refilled by publishers": Example(
        [(102, 0, 10), (202, 0, 100), (466, 0, 100), (766, 0, 100)], 10.1, REJECT
    ),
    "delivered before the first depth": Example([(0, 10, 11), (0, 15, 15), (0, 15, 15)], 8.7),
}


@pytest.mark.parametrize("example", REPLACED.values(), ids=REPLACED)
def test_messages_that_may_be_other_ones_are_not_called_old(example: Example) -> None:
    """A lower bound counts from the last moment at which all messages may have been replaced."""
    age = ages(example.scrapes, example.gap, arguments=example.arguments)[-1]

    assert age is None or age.method == "lower_bound"
    assert age is None or age.seconds <= example.truth


def test_after_a_restart_a_kept_queue_has_a_lower_bound_again() -> None:
    """Messages that are still ready are at least as old as the restart."""
    scrapes = [(50, 0, 50), (100, 0, 100), (100, 0, 100), (100, 0, 100)]
    restarted = [(5, 0, 100), (5, 0, 105), (5, 0, 105), (5, 0, 105), (5, 0, 105)]

    assert ages(scrapes + restarted)[-1] == Age(pytest.approx(19.96), "lower_bound")


def test_other_counts_end_a_standstill() -> None:
    """With the depth of before, counts that are neither the same nor lost are those of other messages."""
    lags, looks = start()
    looks.look(lags, MessageStats(publish=102, deliver_get=102), 15)
    for _ in range(2):
        looks.look(lags, None, 15)

    assert looks.look(lags, MessageStats(deliver_get=1), 15) is None


def test_without_counts_messages_of_a_consumer_may_have_left() -> None:
    """A consumer that leaves while counts are missing leaves other messages than the last counts show."""
    counted = [(0, 0, 0), (0, 0, 0), (20, 4, 4), (45, 9, 24), (55, 26, 44), (55, 36, 20)]
    lags, looks = start()
    for published, delivered, ready in [*counted, (75, 36, 23)]:
        looks.look(lags, MessageStats(publish=published, deliver_get=delivered), ready)
    looks.look(lags, None, 48)
    looks.look(lags, None, 39)

    found = [looks.look(lags, None, 39, consumers=0) for _ in range(3)]
    assert found == [None, None, Age(pytest.approx(14.97), "lower_bound")]


def test_messages_that_were_ready_at_the_first_scrape_have_a_lower_bound() -> None:
    """Without publications, only the deliveries of the first ten seconds are in doubt."""
    assert ages([(0, 10 + gone, 50 - gone) for gone in range(4)])[-1] == Age(
        pytest.approx(14.97), "lower_bound"
    )


def test_a_lower_bound_continues_from_before_the_standstill() -> None:
    """When the statistics are lost, a message is as old as its count, not only as the standstill."""
    counted = [(0, 0, 0), *[(50, 0, 50)] * 6, *[(50, 10, 40)] * 4]

    assert ages([*counted, (0, 0, 40)])[-1] == Age(pytest.approx(49.9), "lower_bound")


def test_a_restarted_queue_is_not_taken_for_a_new_one() -> None:
    """Without publications since the reset, the position in the queue is not certain."""
    example = REPLACED["restarted, emptied, dead letters"]

    assert ages(example.scrapes, gap=5.0)[-1] is None


class Looks:
    """Scrapes of a queue, `gap` seconds apart."""

    def __init__(self, gap: float) -> None:
        self.now = 0.0
        self.gap = gap

    def look(self, lags: Lags, stats: MessageStats | None, ready: int, **fields: Any) -> Age | None:
        """Return the age at the next scrape."""
        self.now += self.gap
        queue = Queue(
            **{"name": "q", "vhost": "/", "type": "classic", "state": "running", "consumers": 1}
            | {"messages_ready": ready, "messages_unacknowledged": 0, "message_stats": stats}
            | fields
        )
        return lags.observe([queue], 1_700_000_000 + self.now)["/", "q"].age


def start(gap: float = 4.99) -> tuple[Lags, Looks]:
    """Return lags without looks, and their scrapes."""
    looks = Looks(gap)
    return Lags(lambda: looks.now), looks


def ages(scrapes: list[Scrape], gap: float = 4.99, **fields: Any) -> list[Age | None]:
    """Return the age at each scrape."""
    lags, looks = start(gap)
    return [
        looks.look(lags, MessageStats(publish=published, deliver_get=delivered), ready, **fields)
        for published, delivered, ready in scrapes
    ]
