"""Emitting samples: which are kept, and which are left out and reported."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from time import monotonic
from typing import Any

import pytest

from bts_exporter import (
    Kind,
    Metric,
    Scrape,
    counter,
    gauge,
    histogram,
    summary,
    untyped,
)
from bts_exporter.errors import DeadlineExceeded
from bts_exporter.metric import number

Declare = Callable[..., Metric]
TOO_LARGE = "the value is too large for a floating-point number"
DECLARATIONS = (gauge, counter, untyped, histogram, summary)


def new_scrape(**options: Any) -> Scrape:
    """Return a scrape with a minute to go."""
    return Scrape(monotonic() + 60, **options)


def test_emitting() -> None:
    """Samples are kept by metric and label values, in their order."""
    files, total = gauge("files", "Files.", ("path",)), counter("seen_total", "Seen.")
    scrape = new_scrape()

    scrape.emit(files, 3, "/b")
    scrape.emit(files, 2.5, "/a")
    scrape.emit(total, 7)

    assert scrape.samples == {files: {("/b",): 3, ("/a",): 2.5}, total: {(): 7}}
    assert scrape.losses == []


def test_emitting_other_kinds_of_numbers() -> None:
    """Every type that can be converted to float is a value; True is 1."""
    metric = gauge("value", "Value.", ("of",))
    scrape = new_scrape()

    for of, value in (("bool", True), ("decimal", Decimal("0.5")), ("fraction", Fraction(1, 4))):
        scrape.emit(metric, value, of)  # type: ignore[arg-type]

    assert scrape.samples == {metric: {("bool",): 1.0, ("decimal",): 0.5, ("fraction",): 0.25}}


@pytest.mark.parametrize(
    ("emit", "message"),
    [
        (lambda s, m: s.emit(m, 1), "files takes 2 labels (path, owner), got 0"),
        (lambda s, m: s.emit(m, 1, "/", "root", "x"), "files takes 2 labels (path, owner), got 3"),
        (lambda s, m: s.emit(m, "many", "/", "root"), "files: 'many' is not a number"),
        (lambda s, m: s.emit(m, None, "/", "root"), "files: None is not a number"),
        (lambda s, m: s.emit(m, 10**400, "/", "root"), f"files: {TOO_LARGE}"),
        (lambda s, m: s.emit(m, -(10**400), "/", "root"), f"files: {TOO_LARGE}"),
        (lambda s, m: s.emit(m, Fraction(10**400), "/", "root"), f"files: {TOO_LARGE}"),
        (lambda s, m: s.emit_all(m, {("/", "root"): 10**400}), f"files: {TOO_LARGE}"),
        (lambda s, m: s.replace(m, 10**400, "/a", "root"), f"files: {TOO_LARGE}"),
        (lambda s, m: s.emit_family(m, [(("/", "root"), 10**400)]), f"files: {TOO_LARGE}"),
        (
            lambda s, m: s.emit_histogram(m, [], 0, "/", "root"),
            "files is a gauge, which needs another method of emit",
        ),
        (
            lambda s, m: s.emit_summary(m, [], 0, 0, "/", "root"),
            "files is a gauge, which needs another method of emit",
        ),
    ],
    ids=[
        "few",
        "many",
        "text",
        "nothing",
        "large",
        "small",
        "fraction",
        "all",
        "replaced",
        "family",
        "histogram",
        "summary",
    ],
)
def test_sample_that_cannot_be_served(emit: Callable[[Scrape, Metric], None], message: str) -> None:
    """A wrong sample is left out and is a loss; the others are kept."""
    metric = gauge("files", "Files.", ("path", "owner"))
    scrape = new_scrape()

    scrape.emit(metric, 1, "/a", "root")
    emit(scrape, metric)
    scrape.emit(metric, 2, "/b", "root")

    assert scrape.samples == {metric: {("/a", "root"): 1, ("/b", "root"): 2}}
    assert scrape.losses == [("invalid_sample", message)]


def test_large_integers_that_a_float_can_hold() -> None:
    """An integer is a value as long as it is within the range of floating-point numbers."""
    metric = gauge("value", "Value.", ("of",))
    scrape = new_scrape()

    scrape.emit(metric, 10**308, "one")
    scrape.emit_all(metric, {("two",): 10**308, ("three",): math.inf, ("four",): math.nan})

    assert scrape.losses == []
    assert scrape.samples[metric][("one",)] == 1e308
    assert scrape.samples[metric][("two",)] == 10**308


@pytest.mark.parametrize("declare", [histogram, summary])
def test_distribution_emitted_twice(declare: Declare) -> None:
    """Of two histograms or summaries with the same labels the first is kept as a whole."""
    metric = declare("x", "X.", ("a",))
    scrape = new_scrape()

    def emit(bound: float) -> None:
        if metric.kind is Kind.HISTOGRAM:
            scrape.emit_histogram(metric, [(bound, 1)], 2, "1")
        else:
            scrape.emit_summary(metric, [(bound, 1)], None, 2, "1")

    emit(0.1)
    kept = dict(scrape.samples[metric])
    emit(0.2)

    assert scrape.samples == {metric: kept}
    assert scrape.losses == [("invalid_sample", "x: emitted twice with labels ('1',)")]


def test_sample_emitted_twice() -> None:
    """Of two samples with the same labels the first is kept."""
    metric = gauge("files", "Files.", ("path",))
    scrape = new_scrape()

    scrape.emit(metric, 1, "/")
    scrape.emit(metric, 2, "/")

    assert scrape.samples == {metric: {("/",): 1}}
    assert scrape.losses == [("invalid_sample", "files: emitted twice with labels ('/',)")]


def test_wrong_samples_are_listed_in_order() -> None:
    """Losses are listed in their order, because later ones are often consequences of the first."""
    scrape = new_scrape()

    for _ in range(2):
        scrape.emit(gauge("one", "One."), 1, "label")
        scrape.emit(gauge("two", "Two."), 1, "label")

    assert scrape.losses == [
        ("invalid_sample", "one takes 0 labels (), got 1"),
        ("invalid_sample", "two takes 0 labels (), got 1"),
    ]


def test_emitting_many_at_once() -> None:
    """`emit_all` may be called several times, and mixed with `emit`."""
    metric = gauge("files", "Files.", ("path",))
    scrape = new_scrape()

    scrape.emit_all(metric, {("/a",): 1, ("/b",): 2.5})
    scrape.emit(metric, 3, "/c")
    scrape.emit_all(metric, {("/d",): 4})
    scrape.emit_all(gauge("other", "Other."), {})

    assert scrape.samples == {metric: {("/a",): 1, ("/b",): 2.5, ("/c",): 3, ("/d",): 4}}
    assert scrape.losses == []


def test_many_at_once_with_wrong_ones_among_them() -> None:
    """With `emit_all` a wrong sample does not affect the others."""
    metric, delay = gauge("files", "Files.", ("path",)), summary("delay", "Delay.")
    scrape = new_scrape(max_series=3)

    scrape.emit_all(metric, {("/a",): 1, ("/b", "x"): 2, ("/c",): "many", ("/d",): Fraction(1, 2)})  # type: ignore[dict-item]
    assert scrape.samples == {metric: {("/a",): 1, ("/d",): 0.5}}
    assert scrape.losses == [
        ("invalid_sample", "files takes 1 labels (path), got 2"),
        ("invalid_sample", "files: 'many' is not a number"),
    ]
    scrape.emit_all(delay, {("_sum",): 1})
    scrape.emit_all(metric, {("/e",): 1, ("/f",): 2})

    assert scrape.samples == {metric: {("/a",): 1, ("/d",): 0.5, ("/e",): 1}}
    assert scrape.dropped == 1


def test_many_at_once_by_labels_that_are_no_tuples() -> None:
    """`emit_all` refuses keys that are not tuples, such as a text."""
    metric = gauge("files", "Files.", ("path",))
    scrape = new_scrape()

    scrape.emit_all(metric, {"a": 1, ("b",): 2})  # type: ignore[dict-item]

    assert scrape.samples == {metric: {("b",): 2}}
    assert scrape.losses == [("invalid_sample", "files: 'a' is not a tuple of labels")]


def test_many_at_once_that_were_there() -> None:
    """A series that is emitted twice is a loss, and is served once."""
    metric = gauge("files", "Files.", ("path",))
    scrape = new_scrape(max_series=3)
    scrape.emit_all(metric, {("/a",): 1, ("/b",): 2})

    scrape.emit_all(metric, {("/b",): 3})

    assert scrape.samples == {metric: {("/a",): 1, ("/b",): 3}}
    assert scrape.losses == [("invalid_sample", "files: emitted twice with the same labels")]


def test_many_at_once_when_the_scrape_is_over() -> None:
    """`emit_all` raises after the deadline."""
    scrape = new_scrape()
    scrape.closed = True

    with pytest.raises(DeadlineExceeded):
        scrape.emit_all(gauge("one", "One."), {(): 1})


def test_emitting_a_histogram() -> None:
    """Buckets get their bound as label, and the count is that of the last bucket, +Inf."""
    metric = histogram("size_bytes", "Sizes.", ("queue",))
    scrape = new_scrape()

    scrape.emit_histogram(metric, [(0.5, 1), (10, 3), (float("inf"), 4)], 25, "q")

    assert scrape.losses == []
    assert scrape.samples[metric] == {
        ("_bucket", "q", "0.5"): 1,
        ("_bucket", "q", "10"): 3,
        ("_bucket", "q", "+Inf"): 4,
        ("_sum", "q"): 25,
        ("_count", "q"): 4,
    }


def test_histogram_without_its_last_bucket() -> None:
    """A missing bucket +Inf is added with the count of the last one."""
    metric = histogram("size_bytes", "Sizes.")
    scrape = new_scrape()

    scrape.emit_histogram(metric, iter([(1.0, 2)]), 2)

    assert list(scrape.samples[metric]) == [
        ("_bucket", "1.0"),
        ("_bucket", "+Inf"),
        ("_sum",),
        ("_count",),
    ]
    assert scrape.samples[metric]["_count",] == 2


def test_histogram_without_buckets() -> None:
    """A histogram without buckets has the bucket +Inf with 0."""
    metric = histogram("size_bytes", "Sizes.")
    scrape = new_scrape()

    scrape.emit_histogram(metric, [], 0)

    assert scrape.samples[metric] == {("_bucket", "+Inf"): 0, ("_sum",): 0, ("_count",): 0}


def test_emitting_a_summary() -> None:
    """Quantiles get their label; an unknown sum is left out."""
    metric = summary("delay_seconds", "Delay.", ("queue",))
    scrape = new_scrape()

    scrape.emit_summary(metric, [(0.5, 1.5), (0.99, 3)], 20, 10, "a")
    scrape.emit_summary(metric, [], None, 3, "b")

    assert scrape.samples[metric] == {
        ("", "a", "0.5"): 1.5,
        ("", "a", "0.99"): 3,
        ("_sum", "a"): 20,
        ("_count", "a"): 10,
        ("_count", "b"): 3,
    }


@pytest.mark.parametrize("declare", [histogram, summary])
def test_emitting_a_distribution_as_one_value(declare: Declare) -> None:
    """`emit` refuses a histogram or summary."""
    scrape = new_scrape()

    scrape.emit(declare("size", "Size."), 1)

    assert scrape.samples == {}
    assert [reason for reason, _ in scrape.losses] == ["invalid_sample"]


def test_filter_of_metrics() -> None:
    """Metrics that the filters leave out are not losses."""
    scrape = new_scrape(allows=re.compile("node_.*"), denies=re.compile(".*_info"))

    for name in ("node_load1", "node_uname_info", "go_info", "other"):
        for _ in range(2):
            scrape.emit(gauge(name, "Help."), 1)
        scrape.emit_all(gauge(name, "Help."), {(): 1})

    assert {metric.name for metric in scrape.samples} == {"node_load1"}
    assert (scrape.losses, scrape.dropped) == ([], 0)


def test_time_left() -> None:
    """`remaining` is the time until the deadline, and never 0."""
    assert 0 < new_scrape().remaining() <= 60
    assert Scrape(monotonic() - 1).remaining() == 0.001


def test_emitting_once_the_scrape_is_over() -> None:
    """`emit` raises after the deadline."""
    scrape = new_scrape()
    scrape.closed = True

    with pytest.raises(DeadlineExceeded):
        scrape.emit(gauge("late", "Late."), 1)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.1, "0.1"),
        (10.0, "10.0"),
        (1e21, "1e+21"),
        (float("inf"), "+Inf"),
        (float("-inf"), "-Inf"),
        (float("nan"), "NaN"),
    ],
)
def test_numbers_as_text(value: float, text: str) -> None:
    """Numbers are written as in the exposition formats."""
    assert number(value) == text
