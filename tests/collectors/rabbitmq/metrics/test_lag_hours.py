"""The lag of a consumer that is slow for hours: thinned-out observations are not a gap."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bts_collectors.rabbitmq.api.models import Arguments, MessageStats, Queue
from bts_collectors.rabbitmq.metrics.lag import Lags
from bts_exporter.backlog import Age

HOURS = 4
#: Messages published and delivered each second.
PUBLISHED, DELIVERED = 100, 20


def ages(interval: int, arguments: Arguments, begin: int = 0) -> Iterator[tuple[int, Age | None]]:
    """Yield each time of a scrape, in seconds since the first message, and the age at that time."""
    now = 0.0
    lags = Lags(lambda: now)
    for second in range(begin, HOURS * 3600 + 1, interval):
        now = second
        queue = Queue(
            name="q",
            vhost="/",
            type="classic",
            state="running",
            consumers=1,
            arguments=arguments,
            messages_ready=(PUBLISHED - DELIVERED) * second,
            messages_unacknowledged=0,
            message_stats=MessageStats(publish=PUBLISHED * second, deliver_get=DELIVERED * second),
        )
        yield second, lags.observe([queue], 1_700_000_000.0 + second)["/", "q"].age


@pytest.mark.parametrize("interval", [15, 60])
def test_lag_of_a_slow_consumer_grows_for_hours(interval: int) -> None:
    """Four fifths of a steady flow wait, and the oldest message is as old as it is."""
    for second, age in ages(interval, Arguments()):
        if second:
            assert age is not None
            assert age.method == "interpolation"
            assert age.seconds == pytest.approx(0.8 * second, rel=0.02)


def test_bound_of_a_slow_consumer_grows_for_hours() -> None:
    """The same with priorities, and messages that waited before the first scrape."""
    *_, (_, age) = ages(15, Arguments(max_priority=5), begin=15)

    assert age is not None
    assert age.method == "lower_bound"
    assert age.seconds == pytest.approx(0.8 * HOURS * 3600, abs=120)
