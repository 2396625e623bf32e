from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

from bts_exporter import Collector, NotPresent, Scrape
from bts_exporter.collection import collector_set
from bts_exporter.collection.collector_set import CollectorSet
from bts_exporter.collection.runner import Runner, Snapshot
from bts_exporter.errors import SelectionError
from bts_exporter.settings.loader import Common
from servers import wait_until
from stubs import Hang, LocalStub, Pushed, Stub, collectors

#: Enough for collectors that do not hang, on a busy machine.
SECONDS = 1.0


def by_name(shots: Sequence[Snapshot]) -> dict[str, str]:
    """Return the result of each collector: `ok`, `absent` or the reason of its failure."""
    return {
        shot.runner.name: shot.outcome.reason or ("ok" if shot.outcome.supported else "absent")
        for shot in shots
    }


def exiting(_: Scrape) -> None:
    """Try to end the process."""
    raise SystemExit(1)


def absent(_: Scrape) -> None:
    """Raise NotPresent."""
    message = "not here"
    raise NotPresent(message)


def broken(scrape: Scrape) -> None:
    """Emit one sample and fail."""
    scrape.emit(Stub.value, 1)
    raise ZeroDivisionError


@pytest.fixture(autouse=True)
def _no_wait_for_another_scrapes_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disable the repetition of collections that a shorter scrape gave up."""
    monkeypatch.setattr("bts_exporter.collection.collector_set._LONGEST", 0)


# Isolation


def test_nothing_else_is_lost() -> None:
    """Whatever one collector does, the samples of the others are complete."""
    members = [
        ("first", Stub()),
        ("exits", Stub(exiting)),
        ("breaks", Stub(broken)),
        ("absent", Stub(absent)),
        ("local-breaks", LocalStub(broken)),
        ("local-exits", LocalStub(exiting)),
        ("local", LocalStub()),
        ("last", Stub()),
    ]
    with collectors(*members) as (together, runners):
        shots = together.collect(runners, 60)

    assert by_name(shots) == {
        "first": "ok",
        "exits": "internal",
        "breaks": "internal",
        "absent": "absent",
        "local-breaks": "internal",
        "local-exits": "internal",
        "local": "ok",
        "last": "ok",
    }
    assert [shot.series for shot in shots] == [1, 0, 1, 0, 1, 0, 1, 1]


def test_three_collectors_that_hang_together() -> None:
    """The scrape ends at its deadline although collectors hang; the samples of the others are complete."""
    hangs = [Hang() for _ in range(3)]
    members = [
        *((f"hangs{number}", Stub(hang)) for number, hang in enumerate(hangs)),
        ("works", Stub()),
        ("local", LocalStub()),
    ]
    with collectors(*members) as (together, runners):
        shots = together.collect(runners, SECONDS)

        assert not any(hang.go_on.is_set() for hang in hangs)
        assert by_name(shots) == {
            "hangs0": "timeout",
            "hangs1": "timeout",
            "hangs2": "timeout",
            "works": "ok",
            "local": "ok",
        }


def test_second_scrape_of_one_that_hangs() -> None:
    """The next scrape does not wait for a collection that hangs, and does not start it twice."""
    stub = Stub(Hang())
    with collectors(("hangs", stub), ("works", Stub())) as (together, runners):
        together.collect(runners, SECONDS)
        # With a long timeout: it returns because it does not wait for the hanging collector.
        shots = together.collect(runners, 3600)

        assert by_name(shots) == {"hangs": "busy", "works": "ok"}
        assert stub.collections == 1


def test_snapshots_come_in_the_order_of_the_collectors() -> None:
    """The page has the order of the settings, whichever collector starts first."""
    members = [(f"c{i}", LocalStub() if i % 2 else Stub()) for i in range(8)]
    with collectors(*members) as (together, runners):
        shots = together.collect(runners, 60)

    assert [shot.runner.name for shot in shots] == [name for name, _ in members]


def test_scrape_with_less_time_joins_a_collection() -> None:
    """A second scrape with an earlier deadline shares the collection and gets the samples until then."""
    hang = Hang(before=lambda scrape: scrape.emit(Stub.value, 1))
    stub = Stub(hang)
    shots: list[Snapshot] = []
    with collectors(("slow", stub)) as (together, runners):
        patient = threading.Thread(target=lambda: shots.extend(together.collect(runners, 3600)))
        patient.start()
        assert hang.begun.wait(60)
        [hasty] = together.collect(runners, 0.01)
        hang.go_on.set()
        patient.join(60)

        assert (hasty.outcome.reason, hasty.series) == ("timeout", 1)
        assert (shots[0].outcome.success, shots[0].series) == (True, 1)
        assert stub.collections == 1
        assert runners[0].totals.timeouts == 0


# Collectors that cannot hang, and do


def test_local_collectors_share_a_thread() -> None:
    """Collectors that only read kernel files share a thread."""
    names: list[str] = []
    members = [
        (f"c{i}", LocalStub(lambda _: names.append(threading.current_thread().name)))
        for i in range(3)
    ]
    with collectors(*members) as (together, runners):
        together.collect(runners, 60)

    assert names == ["bts-local"] * 3


def test_local_collector_that_hangs_costs_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    """A collector that blocks the shared thread keeps it; the others are collected in a new one within the same scrape."""
    caplog.set_level(logging.WARNING, "bts_exporter.collection.collector_set")
    hang = Hang()
    stub, other = LocalStub(hang), LocalStub()
    with collectors(("before", LocalStub()), ("hangs", stub), ("behind", other)) as (
        together,
        runners,
    ):
        first = together.collect(runners, SECONDS)
        later = [together.collect(runners, 3600) for _ in range(2)]

        assert by_name(first) == {"before": "ok", "hangs": "timeout", "behind": "ok"}
        assert [by_name(shots) for shots in later] == [
            {"before": "ok", "hangs": "busy", "behind": "ok"}
        ] * 2
        assert (stub.collections, other.collections) == (1, 3)
        warnings = [r for r in caplog.records if r.name == "bts_exporter.collection.collector_set"]
        assert [(r.getMessage(), vars(r)["collector"]) for r in warnings] == [
            ("blocks other collectors; it now has a separate thread", "hangs")
        ]


def test_blocking_collector_is_logged_without_a_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """No scrape waits for the log line of another one."""
    held: list[bool] = []
    with collectors(("hangs", LocalStub(Hang())), ("behind", LocalStub())) as (together, runners):
        together.collect(runners, SECONDS)
        lock = together._workers.lock
        monkeypatch.setattr(
            collector_set.log, "warning", lambda *_, **__: held.append(lock.locked())
        )
        together.collect(runners, SECONDS)

    assert held == [False]


def test_local_collector_that_hung_keeps_to_itself() -> None:
    """A collector that has blocked others does not share a thread with them again."""
    threads: dict[str, set[int]] = {"hangs": set(), "other": set()}
    hang = Hang(before=lambda _: threads["hangs"].add(threading.get_ident()))
    stub = LocalStub(hang)
    other = LocalStub(lambda _: threads["other"].add(threading.get_ident()))
    with collectors(("hangs", stub), ("other", other)) as (together, runners):
        together.collect(runners, SECONDS)
        hang.end()
        wait_until(lambda: runners[0].current and runners[0].current.ended, "it ended")
        together.collect(runners, 60)

    assert stub.collections == 2
    assert threads["hangs"].isdisjoint(threads["other"])


def test_local_collector_that_hung_recovers() -> None:
    """The collections that waited behind it are not executed twice."""
    hang = Hang()
    stub, other = LocalStub(hang), LocalStub()
    with collectors(("hangs", stub), ("behind", other)) as (together, runners):
        together.collect(runners, SECONDS)
        stub.behave = stub.emit_value
        hang.go_on.set()
        wait_until(lambda: runners[0].current and runners[0].current.ended, "it ended")
        shots = together.collect(runners, 60)

        assert by_name(shots) == {"hangs": "ok", "behind": "ok"}
        assert (stub.collections, other.collections) == (2, 2)


def test_local_collectors_that_all_hang() -> None:
    """Each collector that blocks costs the others at most one scrape."""
    members = [(f"h{i}", LocalStub(Hang())) for i in range(2)]
    with collectors(*members, ("works", LocalStub())) as (together, runners):
        for _ in members:
            together.collect(runners, 0.5)
        shots = together.collect(runners, 3600)

        assert by_name(shots) == {"h0": "busy", "h1": "busy", "works": "ok"}


def test_local_collector_that_hangs_before_one_that_found_nothing() -> None:
    """If the last collector is absent, those before it are still collected while the first one hangs."""
    hang, stub = Hang(), LocalStub()
    members = [("hangs", stub), ("behind", LocalStub()), ("absent", LocalStub(absent))]
    with collectors(*members) as (together, runners):
        together.collect(runners, 60)
        stub.behave = hang
        shots = [together.collect(runners, SECONDS) for _ in range(2)]

        assert [by_name(found) for found in shots] == [
            {"hangs": "timeout", "behind": "ok", "absent": "absent"},
            {"hangs": "busy", "behind": "ok", "absent": "absent"},
        ]


def test_local_collector_that_an_earlier_scrape_left_hanging() -> None:
    """A scrape that is too short to replace the blocked thread leaves that to the next scrape."""
    hang = Hang()
    members = [("hangs", LocalStub(hang)), ("behind", LocalStub())]
    with collectors(*members) as (together, runners):
        left = [runner.begin(time.monotonic() + 60) for runner in runners]
        assert hang.begun.wait(60)
        for run in left:
            run.expire()

        assert by_name(together.collect(runners, 60)) == {"hangs": "busy", "behind": "ok"}


def test_local_collector_that_hangs_during_a_reload() -> None:
    """Kept collectors share the thread of the new set, even if a collector of the old set hangs."""
    hang = Hang()
    with collectors(("hangs", LocalStub(hang)), ("stays", LocalStub())) as (old, runners):
        new = CollectorSet(old)
        fresh = new.add(LocalStub(), "fresh", Common())
        stays = runners[1]
        new.runners.append(stays)
        shots: list[Snapshot] = []
        scrape = threading.Thread(target=lambda: shots.extend(old.collect(runners, SECONDS)))
        scrape.start()
        assert hang.begun.wait(60)
        scrape.join(60)

        assert by_name(shots) == {"hangs": "timeout", "stays": "ok"}
        assert stays.worker is fresh.worker
        assert by_name(new.collect(new.runners, 60)) == {"fresh": "ok", "stays": "ok"}


def test_local_collector_with_something_to_start_has_its_own_thread() -> None:
    """A collector with a `start` method has its own thread, even if it is `local`."""

    class LocalPushed(Pushed):
        local = True

    hang = Hang()
    members = [("starts", LocalPushed(start=hang)), ("local", LocalStub())]
    try:
        with collectors(*members) as (together, runners):
            assert hang.begun.wait(60)
            shots = together.collect(runners[1:], 3600)

            assert by_name(shots) == {"local": "ok"}
            hang.end()
    finally:
        hang.end()


def test_local_collector_under_way_during_a_reload_is_not_started_twice() -> None:
    """After a reload a collection that still runs in the old set's thread is not started twice."""
    hang = Hang()
    stub = LocalStub(hang)
    with collectors(("hangs", stub)) as (before, [runner]):
        run = runner.begin(time.monotonic() + 60)
        assert hang.begun.wait(60)
        after = CollectorSet(before)
        after.runners.append(runner)
        joined = runner.begin(time.monotonic() + 60)
        run.expire()
        [late] = after.collect([runner], 3600)

        assert joined is run
        assert late.outcome.reason == "busy"
        assert stub.collections == 1


def test_collection_with_an_interval_has_its_own_thread() -> None:
    """A collection in the background does not block the others."""
    hang = Hang()
    members = [("slow", LocalStub(hang), {"interval": 60.0}), ("local", LocalStub())]
    with collectors(*members) as (together, runners):
        assert hang.begun.wait(60)
        shots = together.collect(runners[1:], 3600)

        assert by_name(shots) == {"local": "ok"}


# Selecting


def named(*names: tuple[str, str, str]) -> CollectorSet:
    """Return a set of collectors, given by type, own name and target."""
    together = CollectorSet()
    for kind, name, target in names:
        cls: Any = type("Named", (Stub,), {"name": name})
        together.add(cls(), kind, Common(name=target))
    return together


@pytest.fixture
def choice() -> CollectorSet:
    """Return two collectors of one type and two targets of another."""
    return named(
        ("host", "cpu", ""), ("host", "meminfo", ""), ("redis", "", "cache"), ("redis", "", "queue")
    )


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        ([], [], ["cpu", "meminfo", "redis[cache]", "redis[queue]"]),
        (["cpu"], [], ["cpu"]),
        (["redis", "cpu"], [], ["cpu", "redis[cache]", "redis[queue]"]),
        (["host"], [], ["cpu", "meminfo"]),
        (["host", "cpu"], [], ["cpu", "meminfo"]),
        ([], ["cpu"], ["meminfo", "redis[cache]", "redis[queue]"]),
        ([], ["host"], ["redis[cache]", "redis[queue]"]),
        ([], ["host", "redis"], []),
    ],
)
def test_selection(
    choice: CollectorSet, include: list[str], exclude: list[str], expected: list[str]
) -> None:
    """Collectors are selected or excluded by their own name or by their type."""
    assert [runner.identity for runner in choice.select(include, exclude)] == expected


@pytest.mark.parametrize(
    ("include", "exclude", "message"),
    [
        (["cpu"], ["redis"], "collect[] and exclude[] cannot be combined"),
        (
            ["cpu", "zfs", "nfs"],
            [],
            "no such collector: nfs, zfs; there are: cpu, host, meminfo, redis",
        ),
        ([], ["cache"], "no such collector: cache; there are: cpu, host, meminfo, redis"),
        ([""], [], "no such collector: ; there are: cpu, host, meminfo, redis"),
    ],
)
def test_selection_of_what_is_not_there(
    choice: CollectorSet, include: list[str], exclude: list[str], message: str
) -> None:
    """A name that is not configured is an error that names those that are."""
    with pytest.raises(SelectionError) as caught:
        choice.select(include, exclude)

    assert str(caught.value) == message


def test_target(choice: CollectorSet) -> None:
    """A target is selected by its name in the settings."""
    assert [runner.identity for runner in choice.target("queue")] == ["redis[queue]"]


@pytest.mark.parametrize("name", ["", "redis", "127.0.0.1:6379"])
def test_target_that_is_not_there(choice: CollectorSet, name: str) -> None:
    """A target that is not in the settings is an error that names those that are."""
    with pytest.raises(SelectionError) as caught:
        choice.target(name)

    assert str(caught.value) == f"no target named {name!r}; there are: cache, queue"


def test_target_where_none_has_a_name() -> None:
    """Without named targets, the error says how to name one."""
    with pytest.raises(
        SelectionError,
        match=r"no target named 'x'; there are: none .a block of settings gets one by name:.",
    ):
        named(("host", "cpu", "")).target("x")


def test_set_without_collectors() -> None:
    """A scrape without collectors returns nothing."""
    assert CollectorSet().collect([], 60) == []


def test_runner_of_each_kind() -> None:
    """Which thread a collector gets is decided by its settings and its type."""
    together = CollectorSet()

    class Plain(Collector):
        pass

    runners: list[Runner] = [
        together.add(LocalStub(), "local", Common()),
        together.add(LocalStub(), "interval", Common(interval=60.0)),  # type: ignore[arg-type]
        together.add(Plain(None), "plain", Common()),
    ]

    assert [runner.exclusive for runner in runners] == [False, True, True]
    assert together.runners == runners
