from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import pytest

from bts_exporter import Collector, NotPresent, Reason, Scrape, TargetError
from bts_exporter.exposition.formats import Format
from bts_exporter.exposition.page import Source, render
from bts_exporter.settings.loader import MetricFilter
from stubs import SERIES, Behaviour, Hang, Stub, collect, emit_two, lines, runner_of


def raising(error: BaseException, before: Behaviour = emit_two) -> Behaviour:
    """Return a behaviour that emits a sample and then raises."""

    def behave(scrape: Scrape) -> None:
        before(scrape)
        raise error

    return behave


def refuse(_: Scrape) -> None:
    """Raise ConnectionRefusedError."""
    raise ConnectionRefusedError(111, "Connection refused")


def targeted(reason: Reason, message: str) -> TargetError:
    """Return a TargetError."""
    return TargetError(reason, message)


# How a collection ends


def test_collection_that_succeeds(caplog: pytest.LogCaptureFixture) -> None:
    """The samples of a successful collection are served, and nothing is logged."""
    caplog.set_level(logging.INFO, "bts_exporter")
    with runner_of(Stub(emit_two)) as runner:
        before = time.time()
        shot = collect(runner)

        assert shot.samples == SERIES
        assert (shot.outcome.success, shot.outcome.supported, shot.outcome.reason) == (
            True,
            True,
            None,
        )
        assert (shot.series, shot.age) == (2, None)
        assert before <= runner.totals.last_success <= time.time()
        assert (runner.totals.errors, runner.totals.timeouts, lines(caplog)) == ({}, 0, [])


@pytest.mark.parametrize(
    ("error", "reason", "message"),
    [
        (ValueError("no number"), "internal", "ValueError: no number (test_runner.py:22)"),
        (SystemExit(3), "internal", "SystemExit: 3 (test_runner.py:22)"),
        (KeyboardInterrupt(), "internal", "KeyboardInterrupt: (test_runner.py:22)"),
        (NotImplementedError(), "internal", "NotImplementedError: (test_runner.py:22)"),
        (ConnectionRefusedError(111, "Connection refused"), "refused", "[Errno 111] Connection refused"),
        (TimeoutError("timed out"), "timeout", "timed out"),
        (FileNotFoundError(2, "No such file", "/proc/x"), "os", "[Errno 2] No such file: '/proc/x'"),
        (targeted("auth", "redis://cache:6379 refuses the password"), "auth", "redis://cache:6379 refuses the password"),
        (ValueError("two\n  lines"), "internal", "ValueError: two lines (test_runner.py:22)"),
        (ValueError("x" * 1000), "internal", f"ValueError: {'x' * 488}"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)  # fmt: skip
def test_collection_that_raises(
    error: BaseException, reason: Reason, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Samples before a failure are served; the failure is counted by reason and logged in one line."""
    with runner_of(Stub(raising(error))) as runner:
        shot = collect(runner)

        assert shot.samples == SERIES
        assert (shot.outcome.success, shot.outcome.supported) == (False, True)
        assert (shot.outcome.reason, shot.outcome.message) == (reason, message.strip())
        assert runner.totals.errors == {reason: 1}
        assert runner.totals.timeouts == (reason == "timeout")
        assert runner.totals.last_success == 0
        assert lines(caplog) == [("ERROR", f"collection fails: {message.strip()}")]


def test_error_that_cannot_say_what_it_is() -> None:
    """An exception whose own code raises is an ordinary failure, and the thread continues."""

    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    with runner_of(Stub(raising(MuteError()))) as runner:
        shots = [collect(runner) for _ in range(2)]

        assert [shot.outcome.message for shot in shots] == [
            "MuteError: an error whose text cannot be read (test_runner.py:22)"
        ] * 2


def test_traceback_is_logged_for_who_asks(caplog: pytest.LogCaptureFixture) -> None:
    """The log has the traceback of an internal error at level debug."""
    caplog.set_level(logging.DEBUG, "bts_exporter")
    error = ValueError("defect")
    with runner_of(Stub(raising(error))) as runner:
        collect(runner)

    [record] = [record for record in caplog.records if record.levelno == logging.DEBUG]
    assert record.exc_info is not None
    assert record.exc_info[1] is error


@pytest.mark.parametrize(
    ("emit", "message"),
    [
        (lambda s: s.emit(Stub.series, 3), "stub_series takes 1 labels (key), got 0"),
        (lambda s: s.emit(Stub.series, 3, "a"), "stub_series: emitted twice with labels ('a',)"),
        (lambda s: s.emit(Stub.value, "much"), "stub_value: 'much' is not a number"),
    ],
    ids=["labels", "twice", "text"],
)
def test_collection_with_a_wrong_sample(
    emit: Callable[[Scrape], None], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A wrong sample is a failure; all other samples are served."""

    def behave(scrape: Scrape) -> None:
        scrape.emit(Stub.series, 1, "a")
        emit(scrape)
        scrape.emit(Stub.series, 2, "b")

    with runner_of(Stub(behave)) as runner:
        shot = collect(runner)

        assert {metric: found for metric, found in shot.samples.items() if found} == SERIES
        assert (shot.outcome.success, shot.outcome.reason, shot.outcome.message) == (
            False,
            "invalid_sample",
            message,
        )
        assert runner.totals.errors == {"invalid_sample": 1}
        assert lines(caplog) == [("ERROR", f"collection fails: {message}")]


def test_nothing_to_read(caplog: pytest.LogCaptureFixture) -> None:
    """An absent source does not fail the collection, and is not logged."""
    caplog.set_level(logging.INFO, "bts_exporter")
    with runner_of(Stub(raising(NotPresent("no /proc/mdstat"), lambda _: None))) as runner:
        shot = collect(runner)

        assert (shot.outcome.success, shot.outcome.supported, shot.outcome.reason) == (
            True,
            False,
            None,
        )
        assert shot.outcome.message == "no /proc/mdstat"
        assert (runner.totals.errors, lines(caplog)) == ({}, [])


def test_what_is_absent_is_not_looked_for_at_each_scrape(monkeypatch: pytest.MonkeyPatch) -> None:
    """An absent source is looked for again after a minute."""
    stub = Stub(raising(NotPresent("no /proc/mdstat"), lambda _: None))
    with runner_of(stub) as runner:
        shots = [collect(runner) for _ in range(3)]
        asked = stub.collections
        monkeypatch.setattr("bts_exporter.collection.collection._ABSENT_SECONDS", 0)
        stub.behave = emit_two
        found = collect(runner)

    assert asked == 1
    assert [shot.outcome.supported for shot in shots] == [False] * 3
    assert (found.outcome.supported, found.samples) == (True, SERIES)


# Log lines


def test_failure_is_logged_once_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    """Repeated failures are logged once, and again when the reason changes."""
    caplog.set_level(logging.INFO, "bts_exporter")
    fail, deny = raising(ValueError("bad")), raising(targeted("auth", "denied"))
    stub = Stub()
    with runner_of(stub) as runner:
        for behave in (fail,) * 10 + (deny,) * 3 + (stub.emit_value,) * 3 + (fail,) * 2:
            stub.behave = behave
            collect(runner)

        assert lines(caplog) == [
            ("ERROR", "collection fails: ValueError: bad (test_runner.py:22)"),
            ("ERROR", "collection fails: denied"),
            ("INFO", "collection works again"),
            ("ERROR", "collection fails: ValueError: bad (test_runner.py:22)"),
        ]
        assert runner.totals.errors == {"internal": 12, "auth": 3}


def test_reasons_that_alternate_are_logged_once_each(caplog: pytest.LogCaptureFixture) -> None:
    """During one outage each reason has one line, however often it returns."""
    fail, deny = raising(ValueError("bad")), raising(targeted("auth", "denied"))
    stub = Stub()
    with runner_of(stub) as runner:
        for behave in (fail, deny) * 20:
            stub.behave = behave
            collect(runner)

        assert lines(caplog) == [
            ("ERROR", "collection fails: ValueError: bad (test_runner.py:22)"),
            ("ERROR", "collection fails: denied"),
        ]


def test_target_that_flaps_does_not_fill_the_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A state that changes at each scrape has ten lines, and the last state is logged when lines are allowed."""
    caplog.set_level(logging.INFO, "bts_exporter")
    fail = raising(ValueError("bad"))
    stub = Stub()
    with runner_of(stub) as runner:
        for behave in (fail, stub.emit_value) * 20:
            stub.behave = behave
            collect(runner)
        during = lines(caplog)
        stub.behave = fail
        collect(runner)
        monkeypatch.setattr("bts_exporter.collection.outcome._SECONDS_PER_LINE", 1e-6)
        collect(runner)

        assert len(during) == 10
        assert caplog.records[-1].changes_not_logged == 16  # type: ignore[attr-defined]
        assert lines(caplog) == [("ERROR", "collection fails: ValueError: bad (test_runner.py:22)")]


def test_log_lines_name_the_collector_and_the_reason(caplog: pytest.LogCaptureFixture) -> None:
    """The collector and the reason are separate fields of the log line."""
    with runner_of(Stub(refuse), name="cache") as runner:
        collect(runner)

    [record] = caplog.records
    assert vars(record)["collector"] == "stub[cache]"
    assert vars(record)["reason"] == "refused"


# Optional targets


def test_optional_target_that_was_never_there(caplog: pytest.LogCaptureFixture) -> None:
    """A refused connection to an optional target is not a failure: no samples, and one line in the log."""
    caplog.set_level(logging.INFO, "bts_exporter")
    error = targeted("refused", "nothing listens at redis://127.0.0.1:6379")
    stub = Stub(raising(error))
    with runner_of(stub, optional=True) as runner:
        shots = [collect(runner) for _ in range(3)]

        assert stub.collections == 3

        assert [shot.samples for shot in shots] == [{}] * 3
        assert (shots[0].outcome.success, shots[0].outcome.supported) == (True, False)
        assert runner.totals.errors == {}
        assert lines(caplog) == [
            (
                "INFO",
                "nothing to read: not there, and optional: nothing listens at redis://127.0.0.1:6379",
            )
        ]


def test_optional_target_that_is_gone(caplog: pytest.LogCaptureFixture) -> None:
    """An optional target that has answered once is a failure when it is gone."""
    stub = Stub()
    with runner_of(stub, optional=True) as runner:
        collect(runner)
        stub.behave = raising(ConnectionRefusedError(111, "Connection refused"))
        shot = collect(runner)

        assert (shot.outcome.success, shot.outcome.reason, shot.samples) == (
            False,
            "refused",
            SERIES,
        )
        assert [level for level, _ in lines(caplog)] == ["ERROR"]


def test_optional_target_that_fails_otherwise() -> None:
    """Other errors of an optional target, such as a wrong password, are failures."""
    with runner_of(Stub(raising(targeted("auth", "denied"))), optional=True) as runner:
        assert collect(runner).outcome.success is False


def test_target_that_has_to_be_there() -> None:
    """Without `optional` a refused connection is a failure."""
    with runner_of(Stub(refuse)) as runner:
        assert collect(runner).outcome.reason == "refused"


# Settings of every collector


def test_truncated_collection_is_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    """Series beyond max_series are dropped, counted and logged once, and success is 0."""

    def behave(scrape: Scrape) -> None:
        for key in "abcde":
            scrape.emit(Stub.series, 1, key)

    stub = Stub(behave)
    with runner_of(stub, max_series=3) as runner:
        shots = [collect(runner) for _ in range(2)]
        stub.behave = emit_two
        shots.append(collect(runner))
        stub.behave = behave
        shots.append(collect(runner))

        message = "2 series dropped: raise max_series (now 3), or filter metrics"
        assert [shot.series for shot in shots] == [3, 3, 2, 3]
        assert [shot.outcome.success for shot in shots] == [False, False, True, False]
        assert (shots[0].outcome.reason, shots[0].outcome.message) == ("limited", message)
        assert runner.totals.series_dropped == 6
        assert lines(caplog) == [("ERROR", f"collection fails: {message}")] * 2


def filters(**globs: tuple[str, ...]) -> dict[str, Any]:
    """Return the common setting `metrics`."""
    return {"metrics": MetricFilter(**globs)}


@pytest.mark.parametrize(
    ("common", "expected"),
    [
        ({}, {"stub_value", "stub_series"}),
        (filters(allow=("*_value",)), {"stub_value"}),
        (filters(deny=("*_value", "other")), {"stub_series"}),
        (filters(allow=("stub_*",), deny=("stub_s?ries",)), {"stub_value"}),
        (filters(allow=("value",)), set()),
        (filters(deny=("STUB_*",)), {"stub_value", "stub_series"}),
    ],
)
def test_filter_of_metrics(common: dict[str, Any], expected: set[str]) -> None:
    """`allow` and `deny` are globs on whole names; `deny` wins."""

    def behave(scrape: Scrape) -> None:
        scrape.emit(Stub.value, 1)
        emit_two(scrape)

    with runner_of(Stub(behave), **common) as runner:
        shot = collect(runner)

    assert {metric.name for metric in shot.samples} == expected
    assert shot.outcome.success


def test_timeout_of_the_settings() -> None:
    """A collection ends at its own timeout, even if the scrape has time left."""
    hang = Hang()
    with runner_of(Stub(hang), timeout=0.05) as runner:
        deadline = time.monotonic() + 3600
        run = runner.begin(deadline)
        run.wait(deadline)
        shot = runner.snapshot(run)

        assert not hang.go_on.is_set()
        assert shot.outcome.reason == "timeout"


@pytest.mark.parametrize("seconds", [0.5, 10.0])
def test_collector_is_told_an_earlier_end(seconds: float) -> None:
    """A collector whose I/O takes all of `remaining()` can still report it."""
    left = []
    with runner_of(Stub(lambda scrape: left.append(scrape.remaining()))) as runner:
        run = runner.begin(time.monotonic() + seconds)
        run.wait(time.monotonic() + 60)

    assert 0 < left[0] < seconds
    assert run.scrape.deadline < run.deadline


def test_common_labels_are_on_its_series() -> None:
    """The name and the labels of its settings are labels of all its series."""
    with runner_of(Stub(), name="cache", labels={"site": "a"}) as runner:
        shot = collect(runner)

        page = render([Source(shot.samples, runner.templates)], Format.TEXT).decode()
        assert 'stub_value{target="cache",site="a"} 1\n' in page


# Conflicts


def test_conflict_is_counted_each_time_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """A conflict is counted each time, and logged when its message changes."""
    with runner_of(Stub()) as runner:
        for message in ("a is served", "a is served", "b is served"):
            runner.conflict(message)

        assert runner.totals.errors == {"conflict": 3}
        assert lines(caplog) == [
            (
                "ERROR",
                "samples left out: a is served: rename one, or leave one out by metrics: {deny: [NAME]}",
            ),
            (
                "ERROR",
                "samples left out: b is served: rename one, or leave one out by metrics: {deny: [NAME]}",
            ),
        ]


# Names


@pytest.mark.parametrize(
    ("name", "target", "identity"),
    [
        ("", "", "stub"),
        ("", "cache", "stub[cache]"),
        ("part", "", "part"),
        ("part", "x", "part[x]"),
    ],
)
def test_identity(name: str, target: str, identity: str) -> None:
    """The identity is the collector's own name, or its type's, with its target."""

    class Named(Stub):
        pass

    Named.name = name
    with runner_of(Named(), name=target) as runner:
        assert (runner.identity, runner.kind, runner.target) == (identity, "stub", target)
        assert runner.worker.name == f"bts-{identity}"


def test_collector_that_emits_nothing() -> None:
    """A collection without samples is a success with zero series."""

    class Nothing(Collector):
        def collect(self, scrape: Scrape) -> None:
            pass

    with runner_of(Nothing(None)) as runner:
        assert (collect(runner).outcome.success, collect(runner).series) == (True, 0)
