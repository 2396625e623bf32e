"""What the RabbitMQ collector keeps across restarts of the exporter."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bts_collectors.rabbitmq.collector import COLLECTOR, RabbitMQ
from bts_collectors.rabbitmq.metrics import lag
from bts_exporter import Url, testing
from servers.management import FakeManagement, answer

KEY = ("rabbitmq", "orders", "")
FULL = {"name": "orders", "vhost": "/", "type": "classic", "state": "running", "consumers": 0}
STATS = {"message_stats": {"publish": 3}}


@contextmanager
def collector(management: FakeManagement) -> Iterator[RabbitMQ]:
    """Return a collector of the fake that is stopped in the end."""
    made = COLLECTOR(COLLECTOR.Config(url=Url.from_setting(management.url), source="management"))
    try:
        yield made
    finally:
        made.stop()


def show(
    management: FakeManagement, ready: int, cluster: str = "rabbit@a", **fields: object
) -> None:
    """Let the broker have a queue with so many ready messages."""
    management.routes["/api/overview"] = answer({"cluster_name": cluster, "rates_mode": "basic"})
    depth = {"messages_ready": ready, "messages": ready, "messages_unacknowledged": 0}
    management.routes["/api/queues"] = answer([FULL | depth | fields])


def age(made: RabbitMQ) -> tuple[float | None, str | None]:
    """Return lag and method of the queue in one collection."""
    samples = testing.collect(made)
    methods = [key[-1] for key in samples.get("messaging_lag_method_info", {})]
    return samples.get("messaging_lag_seconds", {}).get(KEY), methods[0] if methods else None


def observe_messages(management: FakeManagement, made: RabbitMQ) -> None:
    """Let the collector see the queue empty, and then with three messages."""
    show(management, 0)
    testing.collect(made)
    show(management, 3, **STATS)
    testing.collect(made)


def test_age_continues_with_the_time_of_the_restart(management: FakeManagement) -> None:
    """The oldest message is as old as before, and as the time in which the exporter did not run."""
    with collector(management) as before, collector(management) as after:
        observe_messages(management, before)

        testing.restart(before, after, downtime=600)

        seconds, method = age(after)
        assert seconds is not None
        assert 600 <= seconds < 660
        assert method == "interpolation"


def test_messages_published_during_the_restart_have_no_exact_age(
    management: FakeManagement,
) -> None:
    """When they came is unknown: the age is absent or a lower bound, never a small exact one."""
    with collector(management) as before, collector(management) as after:
        observe_messages(management, before)
        show(management, 5, message_stats={"publish": 8, "deliver_get": 3, "ack": 3})

        testing.restart(before, after, downtime=60)

        assert age(after)[1] in {None, "lower_bound"}
        assert age(after)[1] in {None, "lower_bound"}


def test_state_of_another_cluster_is_not_used(
    management: FakeManagement, caplog: pytest.LogCaptureFixture
) -> None:
    """A queue of the same name in another cluster is not as old: one line tells why history is missing."""
    with collector(management) as before, collector(management) as after:
        observe_messages(management, before)
        show(management, 3, cluster="rabbit@b", **STATS)

        testing.restart(before, after, downtime=600)
        with caplog.at_level(logging.WARNING):
            seconds, _ = age(after)
            testing.collect(after)

        assert seconds is None or seconds < 60
        (line,) = [record.getMessage() for record in caplog.records]
        assert "cluster rabbit@a (management API), and the target is cluster rabbit@b" in line
        assert "starts without its history" in line


def test_broker_that_is_down_after_the_restart_costs_no_history(management: FakeManagement) -> None:
    """The state is not replaced before the broker has answered, and used when it does."""
    with collector(management) as before, collector(management) as after:
        observe_messages(management, before)
        good = dict(management.routes)
        testing.restart(before, after, downtime=600)
        management.routes["/api/overview"] = answer({}, status=503)

        testing.look(after)
        unsaved = after.save_state()
        management.routes.update(good)

        assert unsaved is None
        seconds, _ = age(after)
        assert seconds is not None
        assert seconds >= 600


def test_queue_without_counts_is_forgotten_after_a_long_time(management: FakeManagement) -> None:
    """The same depth after ten minutes may be that of other messages."""
    for downtime, lags in ((10, True), (600, False)):
        with collector(management) as before, collector(management) as after:
            show(management, 3)
            testing.collect(before)
            testing.restart(before, after, downtime=downtime)

            seconds, method = age(after)

            assert ((seconds or 0) >= 10) is lags
            assert method in {None, "lower_bound"}


def test_number_of_stored_queues_is_bounded(
    management: FakeManagement, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of too many queues those with the most messages are stored."""
    monkeypatch.setattr(lag, "MOST_STORED", 2)
    with collector(management) as made:
        show(management, 0)
        management.routes["/api/queues"] = answer(
            [FULL | STATS | {"name": f"q{n}", "messages_ready": n} for n in (1, 3, 2)]
        )
        testing.collect(made)

        saved = made.save_state()

        assert saved is not None
        assert [queue.name for queue in saved[1].queues] == ["q3", "q2"]


def test_queues_in_which_nothing_happened_are_not_stored(management: FakeManagement) -> None:
    """Most queues of a large broker are empty and have no counts."""
    with collector(management) as made:
        show(management, 0)
        testing.collect(made)

        saved = made.save_state()

        assert saved is not None
        assert saved[1].queues == []
