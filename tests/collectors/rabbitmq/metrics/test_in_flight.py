from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from bts_collectors.rabbitmq.api.models import MessageStats, Queue
from bts_collectors.rabbitmq.metrics.lag import Lags
from bts_exporter import Restored
from bts_exporter.backlog import Age

KEY = ("/", "q")


class Watch:
    """A queue that is looked at now and then."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.lags = Lags(lambda: self.now)
        self.stats: dict[str, int] = {}

    def look(
        self, after: float, unacked: int | None, stats: Mapping[str, int] | None = None
    ) -> Age | None:
        """Let seconds pass and return the age of the oldest delivery; `stats` stay until the next ones."""
        self.now += after
        self.stats = dict(self.stats if stats is None else stats)
        fields: dict[str, Any] = {"message_stats": MessageStats(**self.stats)}
        queue = Queue(
            name="q",
            vhost="/",
            type="classic",
            state="running",
            consumers=1,
            messages_ready=0,
            messages_unacknowledged=unacked,
            **fields,
        )
        return self.lags.observe([queue], 1_700_000_000 + self.now)[KEY].in_flight


@pytest.fixture
def watch() -> Watch:
    """Return a queue seen before anything was delivered."""
    made = Watch()
    made.look(0, 0)
    return made


def test_a_held_message_has_the_age_of_its_delivery(watch: Watch) -> None:
    """While no message delivered since the queue had none open is acknowledged, the age is exact."""
    watch.look(15, 4, {"deliver": 4})

    ages = [watch.look(15, 4), watch.look(15, 4)]

    assert ages == [Age(30, "interpolation"), Age(45, "interpolation")]


def test_nothing_held_is_age_0(watch: Watch) -> None:
    """A queue whose messages were all acknowledged has the age 0."""
    watch.look(15, 4, {"deliver": 4})

    assert watch.look(15, 0, {"deliver": 4, "ack": 4}) == Age(0, "interpolation")


def test_fetched_messages_count_as_delivered(watch: Watch) -> None:
    """Messages that were fetched (basic.get) and not acknowledged are held as well."""
    watch.look(15, 1, {"get": 1})

    assert watch.look(15, 1) == Age(30, "interpolation")


def test_acknowledgements_in_any_order_make_it_a_lower_bound(watch: Watch) -> None:
    """Once some messages were acknowledged, any of the others may be the first one that was delivered."""
    watch.look(15, 4, {"deliver": 4})
    watch.look(15, 4)

    age = watch.look(15, 4, {"deliver": 6, "ack": 2})

    assert age == Age(30, "lower_bound")


def test_a_message_stuck_among_others_is_at_least_as_old_as_claimed(watch: Watch) -> None:
    """A consumer that holds one message and processes others has a lower bound below the true age."""
    watch.look(15, 1, {"deliver": 1})
    for step in range(1, 10):
        age = watch.look(15, 2, {"deliver": 1 + 10 * step, "ack": 10 * step - 1})

        assert age is None or (age.method == "lower_bound" and age.seconds < 15 * step)


def test_a_redelivery_starts_the_age_again(watch: Watch) -> None:
    """After a consumer ends, its messages are delivered to another one, whose time counts."""
    watch.look(15, 4, {"deliver": 4})
    watch.look(15, 4)
    watch.look(15, 0)
    watch.look(15, 4, {"deliver": 8, "redeliver": 4})

    assert watch.look(15, 4) == Age(30, "interpolation")


def test_a_message_requeued_again_and_again_is_never_old(watch: Watch) -> None:
    """A message that is rejected every second has been with its consumer for less than the time between scrapes."""
    watch.look(15, 1, {"deliver": 1})
    for step in range(1, 8):
        age = watch.look(15, 1, {"deliver": 1 + 15 * step, "redeliver": 15 * step})

        assert age is None or age.seconds <= 15


def test_a_burst_that_is_not_counted_yet_is_not_old(watch: Watch) -> None:
    """The count of deliveries may be 10 s late: unacknowledged messages that it lacks are not old ones."""
    for step in range(20):
        watch.look(15, 0, {"deliver": 100 * step, "ack": 100 * step})

    assert watch.look(15, 500) is None
    assert watch.look(5, 500, {"deliver": 2400, "ack": 1900}) is None
    age = watch.look(10, 500)
    assert age is not None
    assert age.seconds <= 20


def test_messages_held_before_the_first_look_have_a_lower_bound() -> None:
    """After a restart of the exporter, the deliveries are at least as old as its first look."""
    watch = Watch()
    watch.look(0, 4, {"deliver": 40, "ack": 36})

    ages = [watch.look(5, 4), watch.look(10, 4), watch.look(15, 4)]

    assert ages == [None, Age(15, "lower_bound"), Age(30, "lower_bound")]


def test_lost_statistics_give_a_lower_bound(watch: Watch) -> None:
    """When the broker's counts start again at 0, the held messages are at least as old as that."""
    watch.look(15, 4, {"deliver": 4})
    watch.look(15, 4)
    watch.look(15, 4, {})

    assert watch.look(15, 4) == Age(15, "lower_bound")


def test_a_gap_in_the_observations_gives_a_lower_bound(watch: Watch) -> None:
    """Deliveries at some time in a gap of an hour are at least as old as its end."""
    watch.look(3600, 4, {"deliver": 4})

    assert watch.look(15, 4) == Age(15, "lower_bound")


def test_automatic_acknowledgement_has_no_age(watch: Watch) -> None:
    """A queue that was only consumed with automatic acknowledgement has no age, not the age 0."""
    assert watch.look(15, 0, {"deliver_no_ack": 9}) is None


def test_an_unknown_number_has_no_age(watch: Watch) -> None:
    """Without the number of unacknowledged messages, as while a node is down, the age is unknown."""
    watch.look(15, 4, {"deliver": 4})

    assert watch.look(15, None) is None
    assert watch.look(15, 4) == Age(45, "interpolation")


def test_the_age_continues_after_a_restart_of_the_exporter(watch: Watch) -> None:
    """A message that is held across a restart of ten minutes, on another clock, is as old as it is."""
    watch.look(15, 4, {"publish": 4, "deliver_get": 4, "deliver": 4})
    watch.look(15, 4)
    saved = watch.lags.save()
    after = Watch()
    after.stats = watch.stats
    after.lags.restore = lambda _: Restored(saved, downtime=600, shift=-500)
    after.now = watch.now - 500
    after.lags.identify("cluster")

    ages = [after.look(600, 4), after.look(15, 4)]

    assert ages == [None, Age(645, "interpolation")]
