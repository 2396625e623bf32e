from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
import yaml

from bts_exporter import NotPresent, Scrape, TargetError, backlog
from bts_exporter.collection.outcome import SUCCESS
from bts_exporter.collection.runner import Snapshot
from bts_exporter.errors import REASONS
from bts_exporter.lag_report import Destination
from bts_exporter.live.fixes import FIXES
from bts_exporter.live.report import (
    LATE_EVENT_SECONDS,
    LATE_PIPELINE_SECONDS,
    LATE_SECONDS,
    LATE_SESSION_SECONDS,
    LiveReport,
    live_report,
    state_of,
)
from bts_exporter.page_service import Exporter
from bts_exporter.reload_state import ReloadState
from servers.live_page import Queue, number, served
from stubs import LocalStub, Stub, collectors

RULES = Path(__file__).parents[3] / "monitoring" / "prometheus" / "rules" / "backlog.yml"


def report(exporter: Exporter, since: float = 0.0) -> LiveReport:
    """Return the report of a service whose settings are loaded."""
    return live_report(exporter, ReloadState(successful=True, loaded_at=1.0), since)


def row(**values: object) -> Destination:
    """Return a destination of Redis."""
    named = {"collector": "redis", "target": "", "system": "redis", "destination": "a", "group": ""}
    return Destination(**{**named, **values})  # type: ignore[arg-type]


def refused(_: Scrape) -> None:
    """Fail."""
    reason = "refused"
    raise TargetError(reason, "redis://cache: connection refused")


@pytest.mark.parametrize(
    ("destination", "state"),
    [
        (row(lag_seconds=301, backlog_messages=5), "late"),
        (row(lag_seconds=299, backlog_messages=5), "behind"),
        (row(lag_seconds=59, backlog_messages=5), "ok"),
        (row(system="mqtt", lag_seconds=31, backlog_messages=5), "late"),
        (row(system="mqtt", lag_seconds=7, backlog_messages=5), "behind"),
        (row(lag_seconds=10, backlog_messages=5, consumers=0), "no_consumer"),
        (row(lag_seconds=0, backlog_messages=0, consumers=0), "ok"),
        (row(backlog_messages=5, consumers=1), "lag_unknown"),
        (row(backlog_messages=0), "ok"),
    ],
)
def test_state_of_a_destination(destination: Destination, state: str) -> None:
    """A destination is late by its lag; else what else is wrong with it is its state."""
    assert state_of(destination) == state


def test_late_is_what_the_alert_calls_late() -> None:
    """The limits are those of the alert ConsumerBehind."""
    [rule] = [
        rule
        for group in yaml.safe_load(RULES.read_text())["groups"]
        for rule in group["rules"]
        if rule.get("alert") == "ConsumerBehind"
    ]

    assert list(map(float, re.findall(r"> (\d+)", rule["expr"]))) == [
        LATE_SECONDS,
        LATE_SESSION_SECONDS,
        LATE_EVENT_SECONDS,
        LATE_PIPELINE_SECONDS,
    ]


def test_destinations_come_from_the_last_scrape() -> None:
    """The latest comes first, with its values, its history and the age of both."""
    with served({"redis:cache": number(3)}, past=True) as page:
        found = report(page.exporter)

    first = found.destinations[0]
    assert [it.destination for it in found.destinations] == [
        "queue-0000",
        "queue-0001",
        "queue-0002",
    ]
    assert (first.collector_id, first.backlog_messages, first.lag_seconds) == (
        "redis[cache]",
        5000,
        1000,
    )
    assert first.state == "late"
    assert 0 <= first.age_seconds < 60
    redis = next(it for it in found.collectors if it.id == "redis[cache]")
    assert len(first.backlog_history) == len(redis.history_times) == 60
    assert set(first.backlog_history) == {5000}
    assert found.host.figures["memory_share"]


def test_cursor_gives_only_what_is_new() -> None:
    """With the cursor of the report before, the histories have only what was added since."""
    with served({"redis:cache": number(2)}, past=True) as page:
        first = report(page.exporter)
        nothing = report(page.exporter, first.cursor)
        other_boot = report(page.exporter, first.cursor + 1e6)

    assert (first.complete, nothing.complete, other_boot.complete) == (True, False, True)
    assert nothing.destinations[0].backlog_history == []
    assert nothing.host.times == []
    assert len(other_boot.destinations[0].backlog_history) == 60


def test_failure_is_remembered_after_recovery() -> None:
    """What failed, why and when is shown after the recovery, too, and that it is over."""
    exporter, stub = Exporter(), Stub(refused)
    with collectors(("redis", stub, {"name": "cache"})) as (together, _):
        exporter.collectors = together
        exporter.refresh()
        [failing] = report(exporter).collectors
        exporter.refresh()
        [still] = report(exporter).collectors
        stub.behave = stub.emit_value
        exporter.refresh()
        [well] = report(exporter).collectors

    assert (failing.state, failing.reason) == ("failing", "refused")
    assert "connection refused" in failing.message
    assert failing.fix == FIXES["refused"]
    assert failing.failing_since is not None
    assert still.failing_since == failing.failing_since <= time.time()
    assert still.last_failure is not None
    assert still.last_failure.time > failing.failing_since
    assert (well.state, well.message, well.failing_since) == ("ok", "", None)
    assert well.last_failure is not None
    assert (well.last_failure.reason, well.last_failure.is_over) == ("refused", True)
    assert "connection refused" in well.last_failure.message


def test_destinations_of_a_broker_that_stopped() -> None:
    """They stay with their last values and their age, and are marked as outdated."""
    state = {"up": True}

    def script(_: float) -> Sequence[Queue]:
        if not state["up"]:
            refused(Scrape(0))
        return [Queue("redis", "orders", "", 7, 400.0)]

    with served({"redis:cache": script}) as page:
        state["up"] = False
        page.exporter.refresh()
        found = report(page.exporter)

    assert [(it.state, it.backlog_messages) for it in found.destinations] == [("outdated", 7)]
    assert "outdated" in found.headline.text
    assert "redis[cache]" in found.headline.text


def test_rates_of_a_collector_with_an_interval() -> None:
    """The rate is that between two collections, also when they are shown some time later."""
    key = ("redis", "orders", "")
    exporter = Exporter()
    with collectors(("redis", Stub())) as (together, [runner]):
        exporter.collectors = together
        now = time.monotonic()
        for moment, count, age in ((now - 80, 0, 0.0), (now, 600, 20.0)):
            samples = {backlog.BACKLOG: {key: 1.0}, backlog.PUBLISHED: {key: float(count)}}
            shot = Snapshot(runner, SUCCESS, samples, 0.1, age)
            exporter.counts.observe([shot], moment)
            exporter.recorder.record([shot], moment)
        [found] = report(exporter).destinations

    assert found.published_per_second == pytest.approx(10)
    assert found.age_seconds >= 20


def test_states_of_collectors() -> None:
    """A collector is waiting before its first collection, and absent if there is nothing to read."""

    def absent(_: Scrape) -> None:
        message = "no /proc/mdstat"
        raise NotPresent(message)

    exporter = Exporter()
    with collectors(("works", Stub()), ("absent", LocalStub(absent))) as (together, _):
        exporter.collectors = together
        before = report(exporter)
        exporter.refresh()
        after = report(exporter)

    assert [it.state for it in before.collectors] == ["waiting", "waiting"]
    assert (before.age_seconds, before.headline.state) == (None, "unknown")
    assert [(it.state, it.message) for it in after.collectors] == [
        ("ok", ""),
        ("absent", "no /proc/mdstat"),
    ]


def test_report_is_json_whatever_the_names_are() -> None:
    """Names that are not valid Unicode, and values that JSON does not know, do not break the report."""

    def emit(scrape: Scrape) -> None:
        scrape.emit(backlog.BACKLOG, float("nan"), "redis", "bad\udcff", "")
        scrape.emit(backlog.DRAIN_SECONDS, float("inf"), "redis", "bad\udcff", "")

    exporter = Exporter()
    with collectors(("redis", Stub(emit))) as (together, _):
        exporter.collectors = together
        exporter.refresh()
        decoded = msgspec.json.decode(msgspec.json.encode(report(exporter)))

    [destination] = decoded["destinations"]
    assert destination["destination"] == "bad\\udcff"
    assert (destination["backlog_messages"], destination["drains"]) == (None, False)
    assert destination["backlog_history"] == [None]


def test_every_reason_has_a_fix() -> None:
    """Whatever the reason of a failure is, the page says what to do."""
    assert list(FIXES) == list(REASONS)
