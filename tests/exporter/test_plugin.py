from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from time import monotonic
from typing import Any

import pytest

import bts_exporter
from bts_exporter import (
    Collector,
    CollectorConfig,
    Kind,
    Metric,
    Scrape,
    Template,
    backlog,
    counter,
    gauge,
    histogram,
    summary,
    untyped,
)
from bts_exporter.errors import DeadlineExceeded
from bts_exporter.metric import number

Declare = Callable[..., Metric]
DECLARATIONS = (gauge, counter, untyped, histogram, summary)


def scrape(**options: Any) -> Scrape:
    """Return a scrape with a minute to go."""
    return Scrape(monotonic() + 60, **options)


# Declaring


def test_the_api_for_authors() -> None:
    """What plug-in authors may import is this, no less and no more without a line in the changelog."""
    assert bts_exporter.__all__ == [
        "AddressWatch",
        "ByteBudget",
        "Collector",
        "CollectorConfig",
        "Command",
        "Duration",
        "HistogramAccumulator",
        "HttpClient",
        "HttpRequest",
        "HttpResponse",
        "Kind",
        "Match",
        "Metric",
        "NameFilter",
        "NotPresent",
        "NothingToRead",
        "Product",
        "Reason",
        "Scrape",
        "Secret",
        "TLSConfig",
        "TargetError",
        "Template",
        "Url",
        "__version__",
        "backlog",
        "check_samples",
        "connection_error",
        "counter",
        "gauge",
        "histogram",
        "prometheus_text",
        "summary",
        "untyped",
    ]
    assert all(hasattr(bts_exporter, name) for name in bts_exporter.__all__)


@pytest.mark.parametrize(
    ("declare", "kind"),
    [
        (gauge, Kind.GAUGE),
        (counter, Kind.COUNTER),
        (untyped, Kind.UNTYPED),
        (histogram, Kind.HISTOGRAM),
        (summary, Kind.SUMMARY),
    ],
)
def test_declaring_a_metric(declare: Declare, kind: Kind) -> None:
    """A metric has a name, a help, a kind and label names."""
    metric = declare("queue_messages", "Messages in the queue.", labels=("queue", "vhost"))

    assert (metric.name, metric.help, metric.kind) == (
        "queue_messages",
        "Messages in the queue.",
        kind,
    )
    assert metric.labels == ("queue", "vhost")
    assert repr(metric) == f"<{kind} queue_messages{{queue,vhost}}>"


def test_one_label_may_be_given_as_text() -> None:
    """A single label name is no sequence of letters."""
    assert gauge("files", "Files.", "path").labels == ("path",)


@pytest.mark.parametrize("name", ["", "1st", "with-dash", "with space", "ünicode", "newline\n"])
@pytest.mark.parametrize("declare", DECLARATIONS)
def test_metric_with_an_impossible_name(declare: Declare, name: str) -> None:
    """A name that Prometheus would not take is refused where it is declared."""
    with pytest.raises(ValueError, match="is not a metric name"):
        declare(name, "Help.")


@pytest.mark.parametrize("label", ["", "1st", "with-dash", "__reserved", "a:b", "ünicode"])
def test_label_with_an_impossible_name(label: str) -> None:
    """A label that Prometheus would not take is refused where it is declared."""
    with pytest.raises(
        ValueError, match=re.escape(f"files: {label!r} cannot be the name of a label")
    ):
        gauge("files", "Files.", (label,))


@pytest.mark.parametrize(("declare", "label"), [(histogram, "le"), (summary, "quantile")])
def test_label_that_the_kind_needs_itself(declare: Declare, label: str) -> None:
    """The bound of a bucket and a quantile are no labels of one's own."""
    with pytest.raises(ValueError, match="cannot be the name of a label"):
        declare("size", "Size.", (label,))
    assert gauge("size", "Size.", (label,)).labels == (label,)


def test_label_named_twice() -> None:
    """Of two labels with the same name one would be lost."""
    with pytest.raises(ValueError, match="files: a label is named twice: a, b, a"):
        gauge("files", "Files.", ("a", "b", "a"))


def test_metrics_are_the_same_only_as_one_object() -> None:
    """Two declarations of a name are two metrics: sharing one is to import it."""
    assert gauge("a", "Help.") != gauge("a", "Help.")


def test_template_makes_metrics() -> None:
    """The field goes into name and help, and the same field gives the same metric."""
    template = Template("memory_{field}_bytes", "Field {field} of meminfo.", Kind.GAUGE, ("node",))

    metric = template.of("Active")

    assert (metric.name, metric.help) == ("memory_Active_bytes", "Field Active of meminfo.")
    assert (metric.kind, metric.labels) == (Kind.GAUGE, ("node",))
    assert template.of("Active") is metric
    assert template.has(metric)
    assert not template.has(gauge("memory_Active_bytes", "Another one."))


def test_template_with_a_field_that_spells_no_name() -> None:
    """A field of the source may be anything; what is no name says so."""
    template = Template("memory_{field}_bytes", "Field {field}.", Kind.GAUGE)

    with pytest.raises(ValueError, match="is not a metric name"):
        template.of("Active(anon)")


def test_template_with_an_impossible_name() -> None:
    """A template is checked when it is declared, not when the first field comes."""
    with pytest.raises(ValueError, match="is not a metric name"):
        Template("memory-{field}", "Field {field}.", Kind.GAUGE)


def test_declared_metrics_are_found_on_the_class() -> None:
    """Metrics are listed whether they stand alone, in tables or in a base class, each once."""
    one, two, three, four, five = (gauge(f"m{i}", "Help.") for i in range(5))
    template = Template("m_{field}", "Help.", Kind.GAUGE)

    class Base(Collector):
        base = one

    class Derived(Base):
        table = {"a": two, "b": {"nested": [three]}}  # noqa: RUF012
        several = (four, five, template)
        again = one
        unrelated = "text"

    assert list(Derived.declared()) == [one, two, three, four, five, template]


def test_backlog_vocabulary_can_be_shared() -> None:
    """The common families are declared by holding them."""

    class Broker(Collector):
        vocabulary = backlog.VOCABULARY

    assert list(Broker.declared()) == list(backlog.VOCABULARY)
    assert all(metric.labels[:3] == backlog.LABELS for metric in backlog.VOCABULARY)
    assert all(metric.name.startswith("messaging_") for metric in backlog.VOCABULARY)


def test_defaults_of_a_collector() -> None:
    """An author overrides what is needed: all but `collect` has a harmless default."""

    class Smallest(Collector):
        pass

    config = CollectorConfig()
    [collector] = Smallest.build(config)

    assert type(collector) is Smallest
    assert collector.config is config
    assert (collector.name, collector.local, collector.outcome_metrics) == ("", False, None)
    collector.start()
    collector.stop()
    with pytest.raises(NotImplementedError):
        collector.collect(scrape())


# Emitting


def test_emitting() -> None:
    """Samples are kept by metric and label values, in the order they come."""
    files, total = gauge("files", "Files.", ("path",)), counter("seen_total", "Seen.")
    found = scrape()

    found.emit(files, 3, "/b")
    found.emit(files, 2.5, "/a")
    found.emit(total, 7)

    assert found.samples == {files: {("/b",): 3, ("/a",): 2.5}, total: {(): 7}}
    assert found.rejected is None


def test_emitting_other_kinds_of_numbers() -> None:
    """Whatever can be a float is a value; True is 1."""
    metric = gauge("value", "Value.", ("of",))
    found = scrape()

    for of, value in (("bool", True), ("decimal", Decimal("0.5")), ("fraction", Fraction(1, 4))):
        found.emit(metric, value, of)  # type: ignore[arg-type]

    assert found.samples == {metric: {("bool",): 1.0, ("decimal",): 0.5, ("fraction",): 0.25}}


@pytest.mark.parametrize(
    ("emit", "message"),
    [
        (lambda s, m: s.emit(m, 1), "files takes 2 labels (path, owner), got 0"),
        (lambda s, m: s.emit(m, 1, "/", "root", "x"), "files takes 2 labels (path, owner), got 3"),
        (lambda s, m: s.emit(m, "many", "/", "root"), "files: 'many' is not a number"),
        (lambda s, m: s.emit(m, None, "/", "root"), "files: None is not a number"),
        (
            lambda s, m: s.emit_histogram(m, [], 0, "/", "root"),
            "files is a gauge, which needs another method of emit",
        ),
        (
            lambda s, m: s.emit_summary(m, [], 0, 0, "/", "root"),
            "files is a gauge, which needs another method of emit",
        ),
    ],
    ids=["few", "many", "text", "nothing", "histogram", "summary"],
)
def test_sample_that_cannot_be_served(emit: Callable[[Scrape, Metric], None], message: str) -> None:
    """A wrong sample is left out and remembered; the others are kept."""
    metric = gauge("files", "Files.", ("path", "owner"))
    found = scrape()

    found.emit(metric, 1, "/a", "root")
    emit(found, metric)
    found.emit(metric, 2, "/b", "root")

    assert found.samples == {metric: {("/a", "root"): 1, ("/b", "root"): 2}}
    assert found.rejected == ("invalid_sample", message)


def test_sample_emitted_twice() -> None:
    """Of two samples with the same labels the first is kept."""
    metric = gauge("files", "Files.", ("path",))
    found = scrape()

    found.emit(metric, 1, "/")
    found.emit(metric, 2, "/")

    assert found.samples == {metric: {("/",): 1}}
    assert found.rejected == ("invalid_sample", "files: emitted twice with labels ('/',)")


def test_wrong_samples_are_listed_in_order() -> None:
    """Later mistakes are often consequences of the first."""
    found = scrape()

    for _ in range(2):
        found.emit(gauge("one", "One."), 1, "label")
        found.emit(gauge("two", "Two."), 1, "label")

    assert found.losses == [
        ("invalid_sample", "one takes 0 labels (), got 1"),
        ("invalid_sample", "two takes 0 labels (), got 1"),
    ]


def test_emitting_many_at_once() -> None:
    """Samples of one metric come in parts, and beside those that came one by one."""
    metric = gauge("files", "Files.", ("path",))
    found = scrape()

    found.emit_all(metric, {("/a",): 1, ("/b",): 2.5})
    found.emit(metric, 3, "/c")
    found.emit_all(metric, {("/d",): 4})
    found.emit_all(gauge("other", "Other."), {})

    assert found.samples == {metric: {("/a",): 1, ("/b",): 2.5, ("/c",): 3, ("/d",): 4}}
    assert found.rejected is None


def test_many_at_once_with_wrong_ones_among_them() -> None:
    """A sample that cannot be served costs itself alone, as when it is emitted by itself."""
    metric, delay = gauge("files", "Files.", ("path",)), summary("delay", "Delay.")
    found = scrape(max_series=3)

    found.emit_all(metric, {("/a",): 1, ("/b", "x"): 2, ("/c",): "many", ("/d",): Fraction(1, 2)})  # type: ignore[dict-item]
    assert found.samples == {metric: {("/a",): 1, ("/d",): 0.5}}
    assert found.rejected == ("invalid_sample", "files takes 1 labels (path), got 2")
    found.emit_all(delay, {("_sum",): 1})
    found.emit_all(metric, {("/e",): 1, ("/f",): 2})

    assert found.samples == {metric: {("/a",): 1, ("/d",): 0.5, ("/e",): 1}}
    assert found.dropped == 1


def test_many_at_once_by_labels_that_are_no_tuples() -> None:
    """A text is not taken for the labels that its characters would be."""
    metric = gauge("files", "Files.", ("path",))
    found = scrape()

    found.emit_all(metric, {"a": 1, ("b",): 2})  # type: ignore[dict-item]

    assert found.samples == {metric: {("b",): 2}}
    assert found.rejected == ("invalid_sample", "files: 'a' is not a tuple of labels")


def test_many_at_once_that_were_there() -> None:
    """A series that comes twice is a mistake, and is served once."""
    metric = gauge("files", "Files.", ("path",))
    found = scrape(max_series=3)
    found.emit_all(metric, {("/a",): 1, ("/b",): 2})

    found.emit_all(metric, {("/b",): 3})

    assert found.samples == {metric: {("/a",): 1, ("/b",): 3}}
    assert found.rejected == ("invalid_sample", "files: emitted twice with the same labels")


def test_many_at_once_when_the_scrape_is_over() -> None:
    """A late collection ends at its next samples, however many they are."""
    found = scrape()
    found.closed = True

    with pytest.raises(DeadlineExceeded):
        found.emit_all(gauge("one", "One."), {(): 1})


def test_emitting_a_histogram() -> None:
    """Buckets get their bound, the last one is +Inf, the count is that of the last."""
    metric = histogram("size_bytes", "Sizes.", ("queue",))
    found = scrape()

    found.emit_histogram(metric, [(0.5, 1), (10, 3), (float("inf"), 4)], 25, "q")

    assert found.rejected is None
    assert found.samples[metric] == {
        ("_bucket", "q", "0.5"): 1,
        ("_bucket", "q", "10"): 3,
        ("_bucket", "q", "+Inf"): 4,
        ("_sum", "q"): 25,
        ("_count", "q"): 4,
    }


def test_histogram_without_its_last_bucket() -> None:
    """A source that does not tell the bucket +Inf has nothing above the last one."""
    metric = histogram("size_bytes", "Sizes.")
    found = scrape()

    found.emit_histogram(metric, iter([(1.0, 2)]), 2)

    assert list(found.samples[metric]) == [
        ("_bucket", "1.0"),
        ("_bucket", "+Inf"),
        ("_sum",),
        ("_count",),
    ]
    assert found.samples[metric]["_count",] == 2


def test_histogram_without_buckets() -> None:
    """A distribution of nothing is a bucket +Inf with 0."""
    metric = histogram("size_bytes", "Sizes.")
    found = scrape()

    found.emit_histogram(metric, [], 0)

    assert found.samples[metric] == {("_bucket", "+Inf"): 0, ("_sum",): 0, ("_count",): 0}


def test_emitting_a_summary() -> None:
    """Quantiles get their label; a sum that is unknown is left out."""
    metric = summary("delay_seconds", "Delay.", ("queue",))
    found = scrape()

    found.emit_summary(metric, [(0.5, 1.5), (0.99, 3)], 20, 10, "a")
    found.emit_summary(metric, [], None, 3, "b")

    assert found.samples[metric] == {
        ("", "a", "0.5"): 1.5,
        ("", "a", "0.99"): 3,
        ("_sum", "a"): 20,
        ("_count", "a"): 10,
        ("_count", "b"): 3,
    }


@pytest.mark.parametrize("declare", [histogram, summary])
def test_emitting_a_distribution_as_one_value(declare: Declare) -> None:
    """One number is no distribution."""
    found = scrape()

    found.emit(declare("size", "Size."), 1)

    assert found.samples == {}
    assert found.rejected is not None


def test_filter_of_metrics() -> None:
    """Only what is allowed and not denied is kept; the rest is no mistake."""
    found = scrape(allows=re.compile("node_.*"), denies=re.compile(".*_info"))

    for name in ("node_load1", "node_uname_info", "go_info", "other"):
        for _ in range(2):
            found.emit(gauge(name, "Help."), 1)
        found.emit_all(gauge(name, "Help."), {(): 1})

    assert {metric.name for metric in found.samples} == {"node_load1"}
    assert (found.rejected, found.dropped) == (None, 0)


def test_time_left() -> None:
    """The time-out for I/O is what is left until the deadline, and never nothing."""
    assert 0 < scrape().remaining() <= 60
    assert Scrape(monotonic() - 1).remaining() == 0.001


def test_emitting_once_the_scrape_is_over() -> None:
    """A late collection is ended by its own next sample."""
    found = scrape()
    found.closed = True

    with pytest.raises(DeadlineExceeded):
        found.emit(gauge("late", "Late."), 1)


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
    """Numbers are spelled as the exposition formats have it."""
    assert number(value) == text
