"""The report of all destinations that the API, the page and the command `lag` show."""

from __future__ import annotations

import gc
import math
import tracemalloc
from collections.abc import Callable

import msgspec
import pytest

from bts_exporter import Metric, Scrape, TargetError, backlog, counter, gauge
from bts_exporter.collection.outcome import Outcome
from bts_exporter.collection.runner import Runner, Snapshot
from bts_exporter.lag_report import CountHistory, Destination, LagReport, matching, report_of
from bts_exporter.page_service import Exporter
from bts_exporter.settings.loader import Common
from stubs import LocalStub, Stub, collectors

ORDERS = ("redis", "orders", "billing")


def emit_lag(scrape: Scrape) -> None:
    """Emit one group that is late, and one whose lag is unknown."""
    scrape.emit(backlog.BACKLOG, 3, *ORDERS)
    scrape.emit(backlog.IN_FLIGHT, 1, *ORDERS)
    scrape.emit(backlog.CONSUMERS, 2, *ORDERS)
    scrape.emit(backlog.LAG_SECONDS, 12.5, *ORDERS)
    scrape.emit(backlog.LAG_METHOD, 1, *ORDERS, "message_time")
    scrape.emit(backlog.DRAIN_SECONDS, 6, *ORDERS)
    scrape.emit(backlog.PUBLISHED, 40, "redis", "orders", "")
    scrape.emit(backlog.CONSUMED, 37, *ORDERS)
    scrape.emit(backlog.BACKLOG, 9, "redis", "orders", "audit")


def report(*behaviours: Callable[[Scrape], None]) -> LagReport:
    """Return the report of collectors that behave like this, with targets a, b, ..."""
    members = [("broker", Stub(it), {"name": "abc"[i]}) for i, it in enumerate(behaviours)]
    with collectors(*members) as (together, _):
        exporter = Exporter()
        exporter.collectors = together
        return exporter.lag_report(together.runners)


def test_destination() -> None:
    """A group has all of its numbers, and what came into its stream; what was not emitted is None."""
    late = report(emit_lag).destinations[0]

    assert late == Destination(
        collector="broker",
        target="a",
        system="redis",
        destination="orders",
        group="billing",
        backlog_messages=3,
        in_flight_messages=1,
        consumers=2,
        lag_seconds=12.5,
        lag_method="message_time",
        drain_seconds=6,
        drains=True,
        published_messages_total=40,
        consumed_messages_total=37,
    )


def test_unknown_is_null() -> None:
    """In JSON an unknown number is null, and the time to drain is null where it is infinite."""

    def behave(scrape: Scrape) -> None:
        scrape.emit(backlog.BACKLOG, 1, *ORDERS)
        scrape.emit(backlog.LAG_SECONDS, math.nan, *ORDERS)
        scrape.emit(backlog.DRAIN_SECONDS, math.inf, *ORDERS)

    row = msgspec.json.decode(msgspec.json.encode(report(behave)))["destinations"][0]

    assert row["backlog_messages"] == 1
    assert (row["drain_seconds"], row["drains"]) == (None, False)
    assert {row[name] for name in ("lag_seconds", "lag_method", "consumers", "group")} == {
        None,
        "billing",
    }


def test_order() -> None:
    """The latest comes first, then unknown lags, then what is not late."""

    def behave(scrape: Scrape) -> None:
        for name, waiting, lag in (("none", 0, 0), ("late", 1, 5), ("later", 1, 60)):
            scrape.emit(backlog.BACKLOG, waiting, "redis", name, "")
            scrape.emit(backlog.LAG_SECONDS, lag, "redis", name, "")
        scrape.emit(backlog.BACKLOG, 1, "redis", "unknown", "")
        scrape.emit(backlog.BACKLOG, 2, "redis", "more unknown", "")

    names = [row.destination for row in report(behave).destinations]

    assert names == ["later", "late", "more unknown", "unknown", "none"]


@pytest.mark.parametrize(("consumers", "is_unknown"), [(None, False), (0, False), (2, True)])
def test_stream_without_groups(consumers: int | None, is_unknown: bool) -> None:
    """A stream that nothing reads has a row and cannot be late; if something reads it, its lag is unknown."""

    def behave(scrape: Scrape) -> None:
        scrape.emit(backlog.PUBLISHED, 4, "rabbitmq", "log", "")
        if consumers is not None:
            scrape.emit(backlog.CONSUMERS, consumers, "rabbitmq", "log", "")

    (row,) = report(behave).destinations

    assert (row.group, row.published_messages_total) == ("", 4)
    assert row.lag_is_unknown == is_unknown


@pytest.mark.parametrize(("group", "is_unknown"), [("", False), ("billing", True)])
def test_only_delivered_messages(group: str, is_unknown: bool) -> None:
    """No message waits in Celery's key `unacked`; of a group with messages in flight it is not known."""

    def behave(scrape: Scrape) -> None:
        scrape.emit(backlog.IN_FLIGHT, 3, "redis", "unacked", group)
        scrape.emit(backlog.IN_FLIGHT_OLDEST, 7, "redis", "unacked", group)

    (row,) = report(behave).destinations

    assert (row.in_flight_messages, row.in_flight_oldest_seconds) == (3, 7)
    assert row.lag_is_unknown == is_unknown


@pytest.mark.parametrize(
    ("metric", "groups"), [(backlog.CONSUMERS, {"reader"}), (backlog.BACKLOG, {"", "reader"})]
)
def test_stream_with_groups(metric: Metric, groups: set[str]) -> None:
    """The groups have what came into the stream, which has a row of its own only if it can be late itself."""

    def behave(scrape: Scrape) -> None:
        scrape.emit(metric, 1, "rabbitmq", "log", "")
        scrape.emit(backlog.PUBLISHED, 8, "rabbitmq", "log", "")
        scrape.emit(backlog.BACKLOG, 2, "rabbitmq", "log", "reader")

    rows = {row.group: row.published_messages_total for row in report(behave).destinations}

    assert rows == dict.fromkeys(groups, 8)


def test_collectors_that_fail() -> None:
    """A target that is down is in the report with its error; what the others have stays."""

    def fail(_: Scrape) -> None:
        raise TargetError("refused", "Redis at redis://cache: connection refused")  # noqa: EM101  # a reason

    found = report(emit_lag, fail)

    assert {row.target for row in found.destinations} == {"a"}
    assert [(it.target, it.success, it.reason) for it in found.collectors] == [
        ("a", True, None),
        ("b", False, "refused"),
    ]
    assert "connection refused" in found.collectors[1].message


def test_collectors_of_the_host_are_not_listed() -> None:
    """A broken disk is no reason to doubt the lag of a queue."""

    def fail(_: Scrape) -> None:
        raise OSError

    with collectors(("host", LocalStub(fail)), ("spool", LocalStub(emit_lag))) as (together, _):
        exporter = Exporter()
        exporter.collectors = together
        found = exporter.lag_report(together.runners)

    assert [it.collector for it in found.collectors] == ["spool"]


def test_metrics_of_another_application() -> None:
    """A relayed family with the common name and labels is read; one with other labels is not."""
    same = gauge("messaging_lag_seconds", "As ours.", backlog.LABELS)
    other = gauge("messaging_backlog_messages", "With other labels.", ("queue",))
    lost = counter("messaging_entries_lost_total", "As ours.", backlog.LABELS)

    def behave(scrape: Scrape) -> None:
        scrape.emit(same, 4, "nats", "jobs", "")
        scrape.emit(other, 4, "jobs")
        scrape.emit(lost, 2, "nats", "jobs", "")

    (row,) = report(behave).destinations

    assert (row.system, row.lag_seconds, row.backlog_messages) == ("nats", 4, None)
    assert row.entries_lost_total == 2


def test_hostile_samples() -> None:
    """Labels that are no texts lose their own samples only; invalid UTF-8 is spelled out."""

    def behave(scrape: Scrape) -> None:
        scrape.emit(backlog.BACKLOG, 1, "redis", 5, "")  # type: ignore[arg-type]  # a defect of a plug-in
        scrape.emit(backlog.BACKLOG, 2, "redis", "caf\udce9", "")

    found = report(behave)

    assert [(row.destination, row.backlog_messages) for row in found.destinations] == [
        (r"caf\udce9", 2)
    ]
    assert found.collectors[0].reason == "invalid_sample"
    assert msgspec.json.encode(found)


@pytest.mark.parametrize(
    ("wanted", "groups"),
    [
        ({"group": "audit"}, ["audit"]),
        ({"destination": "orders", "target": "a"}, ["billing", "audit"]),
        ({"system": "rabbitmq"}, []),
        ({"group": ""}, []),
    ],
)
def test_matching(wanted: dict[str, str], groups: list[str]) -> None:
    """A destination matches if it has all the wanted values; an empty one is a value."""
    assert [row.group for row in matching(report(emit_lag), wanted)] == groups


# Rates


def shot(runner: Runner, published: float, age: float | None = None) -> Snapshot:
    """Return a collection with a count of published messages."""
    samples = {backlog.PUBLISHED: {("redis", "orders", ""): published}}
    return Snapshot(runner, Outcome(), samples, 0.1, age)


def rate(history: CountHistory, now: float, taken: Snapshot) -> float | None:
    """Add a reading and return the rate of published messages."""
    history.observe([taken], now)
    return report_of([taken], history, now=now, time=0).destinations[0].published_per_second


@pytest.fixture
def runner() -> Runner:
    """Return a collector that nothing collects."""
    return Runner(Stub(), "broker", Common())


def test_rate(runner: Runner) -> None:
    """The rate is that between two readings at least 5 s apart, later over the last 30 to 60 s."""
    history = CountHistory()
    counts = {0: 0, 3: 30, 15: 150, 30: 300, 45: 300, 60: 300, 75: 300}

    found = [rate(history, now, shot(runner, count)) for now, count in counts.items()]

    assert found == [None, None, 10, 10, pytest.approx(300 / 45), 0, 0]


def test_rate_after_a_reset(runner: Runner) -> None:
    """While a counter is lower than before, its rate is unknown rather than negative."""
    history = CountHistory()

    found = [rate(history, now, shot(runner, count)) for now, count in ((0, 90), (10, 5))]

    assert found == [None, None]


def test_rate_of_a_collector_with_an_interval(runner: Runner) -> None:
    """Samples that are served twice are one reading, of the time when they were collected."""
    history = CountHistory()
    taken = [(0, shot(runner, 0, 0)), (20, shot(runner, 200, 0)), (35, shot(runner, 200, 15))]

    assert [rate(history, now, it) for now, it in taken] == [None, 10, 10]


def test_memory_of_counts(runner: Runner) -> None:
    """Counts of many destinations keep neither their names nor the samples of a scrape."""
    history = CountHistory()
    many = 10_000

    def reading(count: float) -> Snapshot:
        samples = {
            metric: {("redis", f"queue-{i}", "workers"): count + i for i in range(many)}
            for metric in (backlog.PUBLISHED, backlog.CONSUMED)
        }
        return Snapshot(runner, Outcome(), samples, 0.1)

    gc.collect()
    tracemalloc.start()
    for now in (0, 30, 60):
        history.observe([reading(now)], now)
    gc.collect()
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    published, consumed = history.rates(reading(90), 90)

    assert used < 100 * many
    assert set(published.values()) == set(consumed.values()) == {1}
    assert len(published) == many


def test_removed_collectors_are_forgotten(runner: Runner) -> None:
    """After a reload the history keeps no collector alive that is gone."""
    history = CountHistory()
    rate(history, 0, shot(runner, 0))

    history.keep_only([])

    assert rate(history, 10, shot(runner, 100)) is None


def test_every_common_metric_has_a_field() -> None:
    """All metrics of the vocabulary that are numbers of a destination have a field."""
    fields = {f"messaging_{name}" for name in Destination.__struct_fields__}
    numbers: set[Metric] = {*backlog.VOCABULARY} - {backlog.LAG_METHOD}

    assert {metric.name for metric in numbers if metric.labels == backlog.LABELS} <= fields
