from __future__ import annotations

from collections.abc import Iterator

import pytest

from bts_exporter import Kind, Metric, Scrape, TargetError, Template, gauge, histogram
from bts_exporter.testing import collect, look
from stubs import Stub


def test_samples_of_a_collector() -> None:
    """An author sees what one collection emits, by metric name and labels."""

    def behave(scrape: Scrape) -> None:
        scrape.emit(Stub.value, 1)
        scrape.emit(Stub.series, 2, "a")
        scrape.emit(Stub.series, 3, "b")

    assert collect(Stub(behave)) == {"stub_value": {(): 1}, "stub_series": {("a",): 2, ("b",): 3}}


def test_samples_of_templates_and_distributions() -> None:
    """Metrics of a template are declared by it, and a histogram is shown as its samples."""

    class Author(Stub):
        fields = Template("author_{field}", "Field {field}.", Kind.GAUGE)
        sizes = histogram("author_size", "Sizes.")

    def behave(scrape: Scrape) -> None:
        scrape.emit(Author.fields.of("x"), 1)
        scrape.emit_histogram(Author.sizes, [], 0)

    found = collect(Author(behave))

    assert found["author_x"] == {(): 1}
    assert found["author_size"]["_count",] == 0


def test_errors_are_the_authors() -> None:
    """An exception of `collect` is passed on to the test."""

    def behave(_: Scrape) -> None:
        reason = "auth"
        raise TargetError(reason, "wrong password")

    with pytest.raises(TargetError, match="wrong password"):
        collect(Stub(behave))


def test_samples_before_a_failure() -> None:
    """An author sees what was emitted, and the error behind it."""

    def behave(scrape: Scrape) -> None:
        scrape.emit(Stub.value, 1)
        reason = "auth"
        raise TargetError(reason, "wrong password")

    found, error = look(Stub(behave))

    assert found == {"stub_value": {(): 1}}
    assert str(error) == "wrong password"
    assert look(Stub()) == ({"stub_value": {(): 1}}, None)


def test_sample_that_a_scrape_would_leave_out() -> None:
    """A wrong sample fails the author's test."""
    with pytest.raises(AssertionError, match=r"stub_value takes 0 labels \(\), got 1"):
        collect(Stub(lambda scrape: scrape.emit(Stub.value, 1, "label")))


def test_label_value_that_is_not_a_string() -> None:
    """An author learns of a label value that a scrape would leave out."""
    with pytest.raises(AssertionError, match=r"stub_series: the value of label key is of type int"):
        collect(Stub(lambda scrape: scrape.emit(Stub.series, 1, 5)))  # type: ignore[arg-type]


def test_metric_that_is_not_declared() -> None:
    """A metric that no listing would show fails the author's test."""
    secret = gauge("secret", "Nobody knows.")

    with pytest.raises(AssertionError, match=r"<gauge secret\{\}> is emitted and not declared"):
        collect(Stub(lambda scrape: scrape.emit(secret, 1)))


def test_time_that_a_collection_has() -> None:
    """The deadline is the one that the test gives."""
    left: list[float] = []

    collect(Stub(lambda scrape: left.append(scrape.remaining())), seconds=3)

    assert 0 < left[0] <= 3


def test_metric_that_the_settings_name_is_declared() -> None:
    """Metrics of `declared_by` can be emitted."""
    named = gauge("named", "Named by the settings.")

    class Author(Stub):
        @classmethod
        def declared_by(cls, config: object) -> Iterator[Metric]:
            yield named

    assert collect(Author(lambda scrape: scrape.emit(named, 1))) == {"named": {(): 1}}


def test_reported_losses_are_an_error() -> None:
    """A loss that a collector reports, instead of raising it, does not pass unnoticed in its tests."""

    def behave(scrape: Scrape) -> None:
        scrape.emit(Stub.value, 1)
        scrape.report(TargetError("noperm", "one"))
        scrape.report(TargetError("auth", "two"))

    found, failure = look(Stub(behave))

    assert found == {"stub_value": {(): 1}}
    assert failure is not None
    assert (failure.reason, str(failure)) == ("noperm", "one; two")
    with pytest.raises(TargetError, match="one; two"):
        collect(Stub(behave))
