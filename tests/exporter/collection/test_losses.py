"""Everything that a collection lost is part of its outcome, not only the first."""

from __future__ import annotations

from pathlib import Path

import pytest

from bts_exporter import Scrape, TargetError
from servers.exporter import StartExporter
from stubs import Stub, collect, drop_in, lines, runner_of

#: Reports two parts, emits a wrong sample and a series too many, and raises an internal error.
PARTS = """\
from bts_exporter import Collector, TargetError, gauge

class Parts(Collector):
    value = gauge("parts_value", "A value.", labels=("key",))
    def collect(self, scrape):
        scrape.emit(self.value, 1, "a")
        scrape.report(TargetError("noperm", "users: permission denied"))
        scrape.report(ConnectionRefusedError(111, "Connection refused"))
        scrape.emit(self.value, 1)
        scrape.emit(self.value, 2, "b")
        try:
            raise ConnectionRefusedError(111, "Connection refused")
        except OSError:
            {}["a defect of ours"]
"""


def test_every_loss_is_on_the_page(exporter: StartExporter, tmp_path: Path) -> None:
    """The status page shows all messages, and the counters have all reasons, of one collection."""
    drop_in(tmp_path / "plugins", "parts", PARTS)
    server = exporter(f"plugins: {tmp_path}/plugins\ncollectors: {{parts: {{max_series: 1}}}}")

    samples = server.samples()
    _, page = server.get("/")

    reasons = {
        dict(labels)["reason"]
        for (name, labels), count in samples.items()
        if name == "bts_exporter_collector_errors_total" and count
    }
    assert reasons == {"internal", "noperm", "refused", "invalid_sample", "limited"}
    assert ("parts_value", frozenset({("key", "a")})) in samples
    for message in (
        "KeyError: 'a defect of ours' (parts.py:14)",
        "users: permission denied",
        "[Errno 111] Connection refused",
        "parts_value takes 1 labels (key), got 0",
        "1 series dropped",
    ):
        assert message in page


def test_what_ended_the_collection_comes_first() -> None:
    """The outcome has the reason of the raised error; the reasons of the other losses are counted, too."""

    def behave(scrape: Scrape) -> None:
        scrape.emit(Stub.series, 1)
        raise TargetError(reason="auth", message="wrong password")

    with runner_of(Stub(behave)) as runner:
        outcome = collect(runner).outcome

        assert (outcome.reason, outcome.reasons) == ("auth", ("auth", "invalid_sample"))
        assert outcome.message == "wrong password; stub_series takes 1 labels (key), got 0"
        assert runner.totals.errors == {"auth": 1, "invalid_sample": 1}


def test_same_loss_is_listed_once() -> None:
    """An error that a collector reports and then raises is listed once."""

    def behave(scrape: Scrape) -> None:
        scrape.report(TargetError("noperm", "no"))
        raise TargetError(reason="noperm", message="no")

    with runner_of(Stub(behave)) as runner:
        outcome = collect(runner).outcome

        assert (outcome.message, outcome.reasons) == ("no", ("noperm",))


def test_losses_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """The first losses are listed, each reason at least once, and the number of the others."""

    def behave(scrape: Scrape) -> None:
        for number in range(1000):
            scrape.report(TargetError("noperm", f"part {number}"))
        for _ in range(2):
            scrape.report(TargetError("protocol", "unexpected reply"))

    with runner_of(Stub(behave)) as runner:
        outcome = collect(runner).outcome

        listed = "; ".join(f"part {number}" for number in range(10))
        assert outcome.message == f"{listed}; unexpected reply; and 990 more"
        assert runner.totals.errors == {"noperm": 1, "protocol": 1}
        assert lines(caplog) == [("ERROR", f"collection fails: {outcome.message}")]


def test_reported_error_keeps_nothing_alive() -> None:
    """Only the text of a reported error is kept."""
    scrape = Scrape(0)
    scrape.report(OSError(2, "No such file", "/proc/x"))

    assert scrape.losses == [("os", "[Errno 2] No such file: '/proc/x'")]
