"""Plug-ins that tamper with what they share with the engine: each loses its own metrics and no others."""

from __future__ import annotations

import copy
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)

from bts_exporter import Kind, Metric, Template, backlog, gauge
from servers import wait_until
from servers.exporter import Exporter, StartExporter
from servers.prometheus import Prometheus
from stubs import drop_in

HEAD = """\
from bts_exporter import *

class Bad(Collector):
    before = gauge("{name}_before", "Emitted before.")
    value = gauge("{name}_value", "A value.", labels=("key",))
    after = gauge("{name}_after", "Emitted after.")
    collections = 0
    def collect(self, scrape):
        self.collections += 1
        scrape.emit(self.before, 1)
        self.act(scrape)
        scrape.emit(self.after, 1)
    def act(self, scrape):
"""
#: The action of each plug-in, and whether its earlier samples are still served.
TAMPERING = {
    "samples_replaced": ("scrape.samples = None", True),
    "samples_emptied": ("scrape.samples = {}", True),
    "emit_replaced": ("scrape.emit = print", True),
    "attributes_deleted": ("[delattr(scrape, n) for n in dir(scrape) if not n.startswith('__')]", True),
    "slots_deleted": ("for n in ('_closed', '_deadline', '_dropped', '_losses', '_samples', '_room'): delattr(scrape, n)", False),
    "slots_replaced": ("for n in ('_closed', '_deadline', '_dropped', '_losses', '_samples', '_room'): setattr(scrape, n, 'x')", False),
    "dict_cleared": ("scrape.__dict__.clear()", True),
    "deadline_text": ("scrape.deadline = 'soon'", True),
    "metric_renamed": ("self.value.name = 'no name'", True),
    "metric_deleted": ("del self.value.name", True),
    "metric_relabelled": ("self.value.labels = ['a', 'b']", True),
    "metric_remade": ("self.value.__init__('x y', 'Help.', 'gauge', ['no label']); scrape.emit(self.value, 1, 'a'); 1/0", True),
    "name_forced": ("object.__setattr__(self.value, 'name', 'no name{'); scrape.emit(self.value, 1, 'a')", False),
    "name_line_end": ("object.__setattr__(self.value, 'name', 'x 1\\ny'); scrape.emit(self.value, 1, 'a')", False),
    "labels_list": ("object.__setattr__(self.value, 'labels', ['a b']); scrape.emit(self.value, 1, 'a')", False),
    "kind_forced": ("object.__setattr__(self.value, 'kind', 'gauge\\n!'); scrape.emit(self.value, 1, 'a')", False),
    "help_number": ("object.__setattr__(self.value, 'help', 5); scrape.emit(self.value, 1, 'a')", False),
    "text_as_metric": ("scrape.emit('value', 1)", True),
    "metric_made_up": ("scrape.emit_family(type('M', (), dict(name='x y', width=0, compound=False, availability=False))(), [((), 1)])", True),
    "metric_all_made_up": ("scrape.emit_all(type('M', (), dict(name='x y', width=0, compound=False, availability=False))(), {(): 1})", True),
    "key_text": ("scrape.samples[self.value] = {'key': 1}", False),
    "key_short": ("scrape.samples[self.value] = {(): 1}", False),
    "samples_number": ("scrape.samples[self.value] = 5", False),
    "value_text": ("scrape.samples[self.value] = {('a',): 'many'}", False),
    "metric_number": ("scrape.samples[5] = {(): 1}", False),
    "hash_raises": ("scrape.emit(self.value, 1, type('L', (), {'__hash__': lambda s: 1/0})())", True),
    "eq_raises": ("[scrape.emit(self.value, 1, L()) for L in [type('L', (), {'__eq__': lambda s, o: 1/0, '__hash__': lambda s: 1})] * 2]", True),
    "label_raises": ("scrape.emit(self.value, 1, type('L', (), {'__str__': lambda s: 1/0})())", True),
    "label_exits": ("scrape.emit(self.value, 1, type('L', (), {'__str__': lambda s: exit(3)})())", True),
    "loss_odd": ("scrape.report(type('E', (TargetError,), {'reason': ['no reason'], '__init__': lambda s: None})())", True),
    "reason_raises": ("raise type('E', (TargetError,), {'reason': property(lambda s: 1/0), '__init__': lambda s: None})()", True),
    "local_replaced": ("type(self).local = None; raise ValueError", True),
    "outcome_replaced": ("type(self).outcome_metrics = 5; raise ValueError", True),
    "name_replaced": ("type(self).name = 5; raise ValueError", True),
    "collect_replaced": ("type(self).collect = None; raise ValueError", True),
}  # fmt: skip
#: Unusual actions without harm: all samples are served.
HARMLESS = {
    "surrogate_label": "scrape.emit(self.value, 1, 'a\\ud800b')",
    "surrogate_help": "scrape.emit(gauge('surrogate_help_value', 'a\\ud800b\\nc'), 1)",
    "losses_changed": "scrape.losses.append(5)",
    "quotes": "scrape.emit(self.value, 1, '\"\\\\\\n{}')",
}
GOOD = """\
from bts_exporter import Collector, gauge

class Good(Collector):
    value = gauge("good_value", "A value.")
    def collect(self, scrape):
        scrape.emit(self.value, 7)
"""


@pytest.fixture
def hostile(tmp_path: Path, exporter: StartExporter) -> Exporter:
    """Return an exporter with all of these plug-ins, a valid one and the host."""
    folder = tmp_path / "plugins"
    actions = {name: action for name, (action, _) in TAMPERING.items()} | HARMLESS
    for name, action in actions.items():
        drop_in(folder, name, f"{HEAD.format(name=name)}        {action}\n")
    drop_in(folder, "good", GOOD)
    collectors = "".join(f"  {name}:\n" for name in [*actions, "good", "host"])
    return exporter(f"plugins: {folder}\ncollectors:\n{collectors}")


def test_each_loses_only_its_own_metrics(hostile: Exporter) -> None:
    """Scrapes in both formats are valid pages with all metrics of the other collectors."""
    for _ in range(3):
        status, text = hostile.get("/metrics", {"Accept": "application/openmetrics-text"})
        assert status == HTTPStatus.OK
        assert list(openmetrics_families(text))
        found = hostile.samples()

    outcomes = {
        dict(labels)["collector"]: value
        for (name, labels), value in found.items()
        if name == "bts_exporter_collector_success"
    }
    before = {name: ((f"{name}_before", frozenset()) in found) for name in TAMPERING}
    after = [name for name in HARMLESS if (f"{name}_after", frozenset()) not in found]
    assert [name for name in TAMPERING if outcomes[name] != 0] == []
    assert {n: outcomes[n] for n in (*HARMLESS, "good")} == dict.fromkeys([*HARMLESS, "good"], 1)
    # The method itself was replaced after the first collection.
    assert before == {name: kept for name, (_, kept) in TAMPERING.items()} | {
        "collect_replaced": False
    }
    assert after == []
    assert found["good_value", frozenset()] == 7
    assert ("node_load1", frozenset()) in found


def test_status_page_and_probe_go_on(hostile: Exporter) -> None:
    """The status page shows every collector, failing ones with their reason."""

    def all_failing() -> bool:
        hostile.get("/metrics")
        status, text = hostile.get("/")
        return status == HTTPStatus.OK and text.count("failing (") == len(TAMPERING)

    # Not at once: the collection at the start renders no page.
    wait_until(all_failing, "each plug-in shown as failing")


@pytest.mark.live
def test_prometheus_takes_the_page(
    hostile: Exporter, prometheus: Callable[[list[str]], Prometheus]
) -> None:
    """Prometheus accepts a scrape with all of them, and stores the samples of the others."""
    server = prometheus([hostile.address])
    server.wait_for_target_up()

    assert [value for _, value in server.query("good_value")] == [7]


# Immutable objects


@pytest.mark.parametrize("shared", [backlog.BACKLOG, Template("a_{field}", "Help.", Kind.GAUGE)])
@pytest.mark.parametrize("field", ["name", "help", "kind", "labels", "other"])
def test_declarations_cannot_be_changed(shared: object, field: str) -> None:
    """A plug-in that sets or deletes a field of a metric, its own or ours, gets an error that says so."""
    with pytest.raises(AttributeError, match="cannot be changed"):
        setattr(shared, field, "x")
    with pytest.raises(AttributeError, match="cannot be deleted"):
        delattr(shared, field)


def test_metric_has_no_subclasses() -> None:
    """Metric cannot be subclassed."""
    with pytest.raises(TypeError, match="cannot be subclassed"):
        type("Mine", (Metric,), {})


def test_labels_given_as_a_list_stay_what_they_were() -> None:
    """Labels given as a list are copied."""
    labels = ["a"]
    metric = gauge("x", "Help.", labels)
    labels.append("no label")

    assert metric.labels == ("a",)


def test_copy_of_a_metric_is_the_metric() -> None:
    """A copy of a metric is the same object."""
    metric = gauge("x", "Help.")

    assert copy.deepcopy({"metric": metric})["metric"] is copy.copy(metric) is metric


@pytest.mark.parametrize("name", [None, 5, b"x", ["x"], "", "a b", "a\n", "\ud800"])
def test_what_is_not_a_name(name: object) -> None:
    """An invalid metric name is refused at the declaration."""
    with pytest.raises(ValueError, match="is not a metric name"):
        gauge(name, "Help.")  # type: ignore[arg-type]


@pytest.mark.parametrize("label", [None, 5, b"x", "", "a b", "a\n", "\ud800", "__a"])
def test_what_is_not_a_label(label: object) -> None:
    """An invalid label name is refused at the declaration."""
    with pytest.raises(ValueError, match="cannot be the name of a label"):
        gauge("x", "Help.", [label])  # type: ignore[list-item]


def test_text_that_spells_itself_otherwise_later() -> None:
    """A name of a subclass of str is copied to a str."""

    class Odd(str):
        __slots__ = ()

        def __str__(self) -> str:
            return "no name"

    metric = gauge(Odd("x"), Odd("Help."), [Odd("a")])

    assert {type(text) for text in (metric.name, metric.help, *metric.labels)} == {str}
