from __future__ import annotations

import math
import re
from collections.abc import Iterable
from time import monotonic
from typing import Any, Self

import pytest
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeHistogramMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    StateSetMetricFamily,
    SummaryMetricFamily,
    UnknownMetricFamily,
    UntypedMetricFamily,
)
from prometheus_client.gc_collector import GCCollector
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector as ForeignCollector

from bts_exporter import Collector, Scrape
from bts_exporter.collection.prometheus_client_adapter import adapt
from bts_exporter.errors import PluginError
from bts_exporter.exposition.formats import Format
from bts_exporter.exposition.page import Source, render
from bts_exporter.settings.schema import INVALID, Schema
from bts_exporter.settings.yaml_document import Document


def collected(foreign: type[Any], text: str = "") -> Scrape:
    """Return what one collection of a foreign type gives, with the settings in `text`."""
    cls = adapt(foreign)
    schema = Schema(Document("c.yaml", text))
    config = schema.convert(schema.document.value, cls.Config, ())
    assert schema.problems == []
    [collector] = cls.build(config)
    scrape = Scrape(monotonic() + 60)
    collector.collect(scrape)
    return scrape


def page(scrape: Scrape) -> list[str]:
    """Return the lines of samples and types on the page."""
    text = render([Source(scrape.samples)], Format.TEXT).decode()
    return [line for line in text.splitlines() if not line.startswith("# HELP")]


def families(*found: Metric) -> type[Any]:
    """Return a foreign type that yields these."""

    class Foreign:
        def collect(self) -> Iterable[Metric]:
            yield from found

    return Foreign


# Families of every type


def test_gauge() -> None:
    """A gauge stays one."""
    family = GaugeMetricFamily("jobs", "Jobs.", labels=["queue"])
    family.add_metric(["a"], 3)
    family.add_metric(["b"], math.inf)

    assert page(collected(families(family))) == [
        "# TYPE jobs gauge",
        'jobs{queue="a"} 3',
        'jobs{queue="b"} +Inf',
    ]


def test_counter() -> None:
    """A counter keeps the name of its samples; its `_created` sample is left out."""
    family = CounterMetricFamily("done", "Done.", labels=["queue"], created=1.7e9)
    family.add_metric(["a"], 3, created=1.7e9)

    assert page(collected(families(family))) == [
        "# TYPE done_total counter",
        'done_total{queue="a"} 3',
    ]


def test_gauge_that_is_named_like_the_birth_of_a_counter() -> None:
    """Only a counter's own `_created` sample is left out."""
    assert page(collected(families(GaugeMetricFamily("keyspace_created", "Keys.", value=5)))) == [
        "# TYPE keyspace_created gauge",
        "keyspace_created 5",
    ]


def test_info() -> None:
    """An info is a gauge that is 1."""
    assert page(collected(families(InfoMetricFamily("build", "Build.", {"version": "1"})))) == [
        "# TYPE build_info gauge",
        'build_info{version="1"} 1',
    ]


def test_state_set() -> None:
    """A set of states is a gauge for each state."""
    assert page(
        collected(families(StateSetMetricFamily("mode", "Mode.", {"on": True, "off": False})))
    ) == [
        "# TYPE mode gauge",
        'mode{mode="off"} 0',
        'mode{mode="on"} 1',
    ]


@pytest.mark.parametrize(
    "family", [UntypedMetricFamily("any", "Any.", 1), UnknownMetricFamily("any", "Any.", 1)]
)
def test_untyped(family: Metric) -> None:
    """A family without a type becomes an untyped metric."""
    assert page(collected(families(family))) == ["# TYPE any untyped", "any 1"]


def test_histogram() -> None:
    """A histogram has its buckets, sum and count."""
    family = HistogramMetricFamily("size", "Size.", labels=["queue"])
    family.add_metric(["a"], buckets=[("0.5", 1), ("+Inf", 3)], sum_value=4.5)

    assert page(collected(families(family))) == [
        "# TYPE size histogram",
        'size_bucket{queue="a",le="0.5"} 1',
        'size_bucket{queue="a",le="+Inf"} 3',
        'size_count{queue="a"} 3',
        'size_sum{queue="a"} 4.5',
    ]


def test_summary() -> None:
    """A summary has its sum and count, and quantiles where there are some."""
    family = SummaryMetricFamily("delay", "Delay.", labels=["queue"])
    family.add_metric(["a"], count_value=3, sum_value=4.5)
    family.add_sample("delay", {"queue": "a", "quantile": "0.5"}, 1.5)
    family.add_sample("delay_created", {"queue": "a"}, 1.7e9)

    assert page(collected(families(family))) == [
        "# TYPE delay summary",
        'delay_count{queue="a"} 3',
        'delay_sum{queue="a"} 4.5',
        'delay{queue="a",quantile="0.5"} 1.5',
    ]


def test_gauge_histogram() -> None:
    """A gauge histogram has no type in the text format: its parts are gauges."""
    family = GaugeHistogramMetricFamily("age", "Age.")
    family.add_metric([], buckets=[("0.5", 1), ("+Inf", 3)], gsum_value=4.5)

    assert page(collected(families(family))) == [
        "# TYPE age_bucket gauge",
        'age_bucket{le="0.5"} 1',
        'age_bucket{le="+Inf"} 3',
        "# TYPE age_gcount gauge",
        "age_gcount 3",
        "# TYPE age_gsum gauge",
        "age_gsum 4.5",
    ]


def test_labels_that_not_every_sample_has() -> None:
    """A missing label is an empty one, as in Prometheus."""
    family = GaugeMetricFamily("mixed", "Mixed.")
    family.add_sample("mixed", {"a": "1"}, 1)
    family.add_sample("mixed", {"b": "2"}, 2)

    assert page(collected(families(family)))[1:] == ['mixed{a="1",b=""} 1', 'mixed{a="",b="2"} 2']


def test_metrics_are_the_same_at_each_collection() -> None:
    """A family is the same metric object at each collection, so that its rendered series are reused."""
    collector = adapt(families(GaugeMetricFamily("jobs", "Jobs.", value=1)))
    [built] = collector.build(collector.Config())
    scrapes = [Scrape(monotonic() + 60) for _ in range(2)]

    for scrape in scrapes:
        built.collect(scrape)

    assert list(scrapes[0].samples) == list(scrapes[1].samples)


@pytest.mark.parametrize("foreign", [GCCollector, PlatformCollector, ProcessCollector])
def test_collectors_of_the_library(foreign: type[Any]) -> None:
    """The library's own collectors work unchanged, also when a reload creates them again."""
    reference = CollectorRegistry()
    for _ in range(2):
        found = page(collected(foreign))
    expected = {
        sample.name
        for family in foreign(registry=reference).collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    }

    names = {
        sample.name
        for family in text_string_to_metric_families("\n".join(found))
        for sample in family.samples
    }
    assert names == expected
    assert expected


# Settings


class Spool(ForeignCollector):
    """Files that wait."""

    def __init__(
        self, path: str, pattern: str = "*", *extra: str, limits: Any = (), **more: Any
    ) -> None:
        self.arguments = (path, pattern, extra, limits, more)

    def collect(self) -> Iterable[Metric]:
        """Yield the arguments as a label."""
        family = GaugeMetricFamily("arguments", "Arguments.", labels=["given"])
        family.add_metric([repr(self.arguments)], 1)
        yield family


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("path: /a", "('/a', '*', (), (), {})"),
        ("{path: /a, pattern: '*.job', limits: {b: 1}}", "('/a', '*.job', (), {'b': 1}, {})"),
    ],
)
def test_arguments_of_the_constructor_are_settings(text: str, expected: str) -> None:
    """The constructor's arguments are the settings."""
    [samples] = collected(Spool, text).samples.values()

    assert list(samples) == [(expected,)]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "c.yaml: path is missing"),
        ("{path: /a, patern: x}", "c.yaml:1: patern: unknown key 'patern'; did you mean pattern?"),
    ],
)
def test_settings_that_are_no_arguments(text: str, problem: str) -> None:
    """A missing and an unknown argument are errors in the settings."""
    schema = Schema(Document("c.yaml", text))

    assert schema.convert(schema.document.value, adapt(Spool).Config, ()) is INVALID
    assert list(map(str, schema.problems)) == [problem]


def test_registry_is_no_setting() -> None:
    """The argument `registry` is not a setting."""
    assert "registry" not in adapt(ProcessCollector).Config.__struct_fields__


def test_adapted_type_is_the_same_each_time() -> None:
    """A reload finds the type unchanged, so that the collector is kept."""
    assert adapt(Spool) is adapt(Spool)


def test_adapted_type_is_listed_as_what_it_is() -> None:
    """Listings show the name and the docstring of the adapted class."""
    assert (adapt(Spool).__name__, adapt(Spool).__doc__) == ("Spool", "Files that wait.")


def test_own_types_need_no_adapter() -> None:
    """A `Collector` is not adapted."""

    class Own(Collector):
        pass

    assert adapt(Own) is Own


@pytest.mark.parametrize(
    "loaded", [5, "text", dict, len, object()], ids=lambda value: type(value).__name__
)
def test_what_is_no_collector(loaded: object) -> None:
    """Any other object is refused, and the error shows it."""
    with pytest.raises(
        PluginError,
        match=re.escape(f"{loaded!r} is neither a Collector nor a class with a collect method"),
    ):
        adapt(loaded)


# Isolation


def test_samples_before_an_error_are_kept() -> None:
    """If an adapted collector raises, the families before are served."""

    class Breaks:
        def collect(self) -> Iterable[Metric]:
            yield GaugeMetricFamily("before", "Before.", value=1)
            raise ZeroDivisionError

    collector = adapt(Breaks)
    [built] = collector.build(collector.Config())
    scrape = Scrape(monotonic() + 60)

    with pytest.raises(ZeroDivisionError):
        built.collect(scrape)

    assert [metric.name for metric in scrape.samples] == ["before"]


def test_sample_that_is_no_number() -> None:
    """A value that is not a number is left out and reported."""
    scrape = collected(families(GaugeMetricFamily("text", "Text.", value="many")))  # type: ignore[arg-type]

    assert scrape.losses == [("invalid_sample", "text: 'many' is not a number")]


def test_error_of_the_constructor_is_passed_on() -> None:
    """An error of the constructor is raised at the first collection."""

    class Picky:
        def __init__(self, path: str) -> None:
            raise ValueError(path)

        def collect(self) -> Iterable[Metric]:
            return ()

    with pytest.raises(ValueError, match="/a"):
        collected(Picky, "path: /a")


def test_class_that_is_callable_for_another_reason() -> None:
    """A class whose `collect` is not callable is refused."""

    class Odd:
        collect = "daily"

        @classmethod
        def make(cls) -> Self:
            return cls()

    with pytest.raises(PluginError):
        adapt(Odd)
