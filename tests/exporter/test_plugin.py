from __future__ import annotations

import re
from collections.abc import Callable
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

Declare = Callable[..., Metric]
DECLARATIONS = (gauge, counter, untyped, histogram, summary)


def scrape(**options: Any) -> Scrape:
    """Return a scrape with a minute to go."""
    return Scrape(monotonic() + 60, **options)


# Declaring


def test_the_api_for_authors() -> None:
    """The public API is exactly this list."""
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
        "Restored",
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
    """A label name given as a string is one label."""
    assert gauge("files", "Files.", "path").labels == ("path",)


@pytest.mark.parametrize("name", ["", "1st", "with-dash", "with space", "ünicode", "newline\n"])
@pytest.mark.parametrize("declare", DECLARATIONS)
def test_metric_with_an_impossible_name(declare: Declare, name: str) -> None:
    """An invalid metric name is refused at the declaration."""
    with pytest.raises(ValueError, match="is not a metric name"):
        declare(name, "Help.")


@pytest.mark.parametrize("label", ["", "1st", "with-dash", "__reserved", "a:b", "ünicode"])
def test_label_with_an_impossible_name(label: str) -> None:
    """An invalid label name is refused at the declaration."""
    with pytest.raises(
        ValueError, match=re.escape(f"files: {label!r} cannot be the name of a label")
    ):
        gauge("files", "Files.", (label,))


@pytest.mark.parametrize(("declare", "label"), [(histogram, "le"), (summary, "quantile")])
def test_label_that_the_kind_needs_itself(declare: Declare, label: str) -> None:
    """`le` of histograms and `quantile` of summaries are reserved."""
    with pytest.raises(ValueError, match="cannot be the name of a label"):
        declare("size", "Size.", (label,))
    assert gauge("size", "Size.", (label,)).labels == (label,)


def test_label_named_twice() -> None:
    """Two labels of one name are refused."""
    with pytest.raises(ValueError, match="files: a label is named twice: a, b, a"):
        gauge("files", "Files.", ("a", "b", "a"))


def test_metrics_are_the_same_only_as_one_object() -> None:
    """Two declarations of one name are different metrics."""
    assert gauge("a", "Help.") != gauge("a", "Help.")


def test_template_makes_metrics() -> None:
    """A template puts the field into name and help, and returns the same metric for the same field."""
    template = Template("memory_{field}_bytes", "Field {field} of meminfo.", Kind.GAUGE, ("node",))

    metric = template.of("Active")

    assert (metric.name, metric.help) == ("memory_Active_bytes", "Field Active of meminfo.")
    assert (metric.kind, metric.labels) == (Kind.GAUGE, ("node",))
    assert template.of("Active") is metric
    assert template.has(metric)
    assert not template.has(gauge("memory_Active_bytes", "Another one."))


def test_template_with_a_field_that_spells_no_name() -> None:
    """A field that makes no valid metric name is an error."""
    template = Template("memory_{field}_bytes", "Field {field}.", Kind.GAUGE)

    with pytest.raises(ValueError, match="is not a metric name"):
        template.of("Active(anon)")


def test_template_with_an_impossible_name() -> None:
    """A template is checked at its declaration."""
    with pytest.raises(ValueError, match="is not a metric name"):
        Template("memory-{field}", "Field {field}.", Kind.GAUGE)


def test_declared_metrics_are_found_on_the_class() -> None:
    """Metrics are listed once each, as attributes, in tables, and of base classes."""
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
    """Common metrics are declared by an attribute that holds them."""

    class Broker(Collector):
        vocabulary = backlog.VOCABULARY

    assert list(Broker.declared()) == list(backlog.VOCABULARY)
    assert all(metric.labels[:3] == backlog.LABELS for metric in backlog.VOCABULARY)
    assert all(metric.name.startswith("messaging_") for metric in backlog.VOCABULARY)


def test_defaults_of_a_collector() -> None:
    """Every method but `collect` has a harmless default."""

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
