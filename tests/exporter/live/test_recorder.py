from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from bts_exporter import Metric, Scrape, TargetError, backlog, gauge
from bts_exporter.collection.outcome import SUCCESS
from bts_exporter.collection.runner import Runner, Snapshot
from bts_exporter.lag_report import CountHistory
from bts_exporter.live import recorder as recorder_module
from bts_exporter.live.recorder import Recorder
from stubs import LocalStub, Stub, collect, collectors

#: The most memory that the page may use, in bytes.
MOST_MEMORY = 5_000_000
Emit = Callable[[Scrape], None]


def queues(count: int, prefix: str = "queue") -> Emit:
    """Return a collection of so many queues with everything there is to know, the last ones the latest."""

    def emit(scrape: Scrape) -> None:
        keys = [("redis", f"{prefix}-{i:06d}", "workers") for i in range(count)]
        for metric in (backlog.BACKLOG, backlog.LAG_SECONDS, backlog.CONSUMERS):
            scrape.emit_all(metric, {key: i + 0.5 for i, key in enumerate(keys)})
        for metric in (backlog.IN_FLIGHT, backlog.DRAIN_SECONDS):
            scrape.emit_all(metric, {key: i + 0.25 for i, key in enumerate(keys)})
        scrape.emit_all(backlog.LAG_METHOD, {(*key, "message_time"): 1 for key in keys})
        for metric in (backlog.PUBLISHED, backlog.CONSUMED):
            scrape.emit_all(metric, {key: 1e6 + i for i, key in enumerate(keys)})

    return emit


def refused(_: Scrape) -> None:
    """Fail."""
    reason = "refused"
    raise TargetError(reason, "connection refused")


class Recording:
    """A recorder, and the collectors that it records."""

    def __init__(self, *emits: Emit) -> None:
        self.recorder = Recorder()
        self.counts = CountHistory()
        self.stubs = [Stub(emit) for emit in emits]

    def run(self, seconds: float = 0, step: float = 15, *, first: float = 1000) -> list[Runner]:
        """Record from `first` on, every `step` seconds."""
        members: list[Any] = [
            ("broker", stub, {"name": f"n{i}"}) for i, stub in enumerate(self.stubs)
        ]
        with collectors(*members) as (_, runners):
            now = first
            while now <= first + seconds:
                self.record(runners, now)
                now += step
        return runners

    def record(self, runners: list[Runner], now: float) -> None:
        """Record one collection."""
        shots = [collect(runner) for runner in runners]
        self.counts.observe(shots, now)
        self.recorder.record(shots, now)

    def destinations(self, runner: Runner) -> list[str]:
        """Return the names of the destinations that are known of a collector."""
        known = self.recorder.latest.get(runner)
        return [] if known is None else [key[1] for key in known.shot.samples[backlog.BACKLOG]]


def test_every_scrape_renews_the_last_values() -> None:
    """The last values are those of the last scrape; the history has a column every 15 seconds."""
    values = iter(range(100))
    recording = Recording(
        lambda scrape: scrape.emit(backlog.BACKLOG, next(values), "redis", "a", "")
    )

    [runner] = recording.run(60, 5)

    latest = recording.recorder.latest[runner]
    assert latest.shot.samples[backlog.BACKLOG] == {("redis", "a", ""): 12}
    assert latest.time == 1060
    assert recording.recorder.rings[runner].values(0) == {("redis", "a", ""): [0, 3, 6, 9, 12]}


def test_groups_have_the_rate_of_their_stream() -> None:
    """What comes into a stream comes in for each of its groups; the stream has no history of its own."""
    counts = iter(range(100, 1000, 30))
    group = ("redis", "orders", "billing")

    def emit(scrape: Scrape) -> None:
        scrape.emit(backlog.BACKLOG, 1, *group)
        scrape.emit(backlog.PUBLISHED, next(counts), "redis", "orders", "")

    recording = Recording(emit)

    [runner] = recording.run(30)

    rates = recording.recorder.rings[runner].values(2)
    assert list(rates) == [group]
    assert rates[group][1:] == [2, 2]


def test_collector_with_an_interval_has_a_column_for_each_collection() -> None:
    """Samples that several scrapes serve are one column, and the rate is that between two collections."""
    key = ("redis", "orders", "")
    recording = Recording(queues(1))
    with collectors(("broker", recording.stubs[0])) as (_, [runner]):
        for now, count, age in ((1000, 0, 0), (1015, 0, 15), (1045, 0, 45), (1060, 600, 0)):
            samples = {backlog.BACKLOG: {key: 1.0}, backlog.PUBLISHED: {key: float(count)}}
            shot = Snapshot(runner, SUCCESS, samples, 0.1, age)
            recording.recorder.record([shot], now)
        ring = recording.recorder.rings[runner]

    assert ring.times() == [1000, 1060]
    assert ring.values_of(key, 2)[1] == 10


def test_only_the_common_metrics_are_kept() -> None:
    """Other samples of a collector are released with the scrape."""

    def emit(scrape: Scrape) -> None:
        scrape.emit(Stub.value, 1)
        scrape.emit(backlog.BACKLOG, 1, "redis", "a", "")

    recording = Recording(emit, Stub.emit_value.__get__(Stub()))

    runners = recording.run()

    assert list(recording.recorder.latest[runners[0]].shot.samples) == [backlog.BACKLOG]
    assert runners[1] not in recording.recorder.latest


def test_relayed_metrics_count_as_well() -> None:
    """An application's own metrics of the same name and labels are destinations."""
    own: Metric = gauge("messaging_backlog_messages", "Mine.", backlog.LABELS)
    recording = Recording(lambda scrape: scrape.emit(own, 4, "redis", "a", ""))

    [runner] = recording.run()

    assert recording.recorder.rings[runner].values(0) == {("redis", "a", ""): [4]}


def test_collector_that_fails_keeps_its_last_destinations() -> None:
    """They are marked as lost, dropped after 15 minutes, and at once if the broker answers without them."""
    recording = Recording(queues(2))
    stub = recording.stubs[0]
    with collectors(("broker", stub)) as (_, [runner]):
        recording.record([runner], 1000)
        stub.behave = refused
        recording.record([runner], 1015)
        lost = recording.recorder.latest[runner]
        recording.record([runner], 2000)
        dropped = recording.destinations(runner)
        stub.behave = queues(2)
        recording.record([runner], 2015)
        again = recording.destinations(runner)
        stub.behave = stub.emit_value
        recording.record([runner], 2030)

    assert (lost.is_lost, lost.time) == (True, 1000)
    assert (dropped, len(again)) == ([], 2)
    assert recording.destinations(runner) == []


def test_latest_of_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit those with the most lag are kept, and the number of the others."""
    monkeypatch.setattr(recorder_module, "MOST_DESTINATIONS", 3)
    recording = Recording(queues(10))

    [runner] = recording.run()

    assert sorted(recording.destinations(runner)) == [
        "queue-000007",
        "queue-000008",
        "queue-000009",
    ]
    assert recording.recorder.latest[runner].left_out == 7


def test_collectors_share_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large broker leaves a small one its part."""
    monkeypatch.setattr(recorder_module, "MOST_DESTINATIONS", 10)
    recording = Recording(queues(20), queues(2))

    large, small = recording.run(60)

    assert len(recording.destinations(large)) == 8
    assert len(recording.destinations(small)) == 2


@pytest.mark.parametrize("count", [2_000, 3_000])
def test_memory_with_the_most_destinations(count: int) -> None:
    """2,000 destinations with their last 15 minutes and counts take less than 5 MB; of more, only these are kept."""
    recording = Recording(queues(count))
    with collectors(("broker", recording.stubs[0])) as (_, [runner]):
        gc.collect()
        tracemalloc.start()
        for now in range(1000, 1915, 15):
            recording.record([runner], now)
        gc.collect()
        used = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()

    assert 2_000_000 < used < MOST_MEMORY


def test_host_is_recorded_every_five_seconds() -> None:
    """Figures of the host have their own, shorter step."""
    memory = {
        "total": gauge("node_memory_MemTotal_bytes", "All."),
        "free": gauge("node_memory_MemAvailable_bytes", "Free."),
    }

    def emit(scrape: Scrape) -> None:
        scrape.emit(memory["total"], 100)
        scrape.emit(memory["free"], 40)

    recording = Recording()
    with collectors(("host", LocalStub(emit))) as (_, runners):
        for now in (1000, 1002, 1005, 1010):
            recording.record(runners, now)

    assert recording.recorder.host.times() == [1000, 1005, 1010]


def test_removed_collectors_are_forgotten() -> None:
    """After a reload nothing is kept of collectors that are gone."""
    recording = Recording(queues(2), queues(3))
    first, second = recording.run()

    recording.recorder.keep_only([second])

    assert set(recording.recorder.latest) == set(recording.recorder.rings) == {second}
    assert first not in recording.recorder._relevant
