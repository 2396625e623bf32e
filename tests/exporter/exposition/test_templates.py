from __future__ import annotations

from collections import Counter

import pytest

from bts_exporter import Metric, gauge, histogram, summary
from bts_exporter.exposition import templates as templates_module
from bts_exporter.exposition.formats import Format
from bts_exporter.exposition.page import Source, render
from bts_exporter.exposition.templates import TemplateCache
from bts_exporter.metric import Key

FILES = gauge("files", "Files.", ("path",))
UP = gauge("up", "Up.")


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Return how often each label value was rendered."""
    counted: Counter[str] = Counter()
    label_value = templates_module._label_value

    def count(value: str) -> str:
        counted[value] += 1
        return label_value(value)

    monkeypatch.setattr(templates_module, "_label_value", count)
    return counted


def test_series_is_rendered_once(times: Counter[str]) -> None:
    """Name and labels of a series are rendered once while it exists."""
    label, templates = "/", TemplateCache()

    pages = [render([Source({FILES: {(label,): n}}, templates)], Format.TEXT) for n in range(3)]

    assert [text[-2:] for text in pages] == [b"0\n", b"1\n", b"2\n"]
    assert times[label] == 1


@pytest.mark.parametrize(
    "meanwhile",
    [{}, {FILES: {}}, {FILES: {("/b",): 1}}, {UP: {(): 1}}],
    ids=["nothing", "no samples", "another series", "another metric"],
)
def test_series_that_is_gone_is_forgotten(
    times: Counter[str], meanwhile: dict[Metric, dict[Key, float]]
) -> None:
    """A series that comes back is rendered again: it took no memory in between."""
    label, templates = "/", TemplateCache()

    for samples in ({FILES: {(label,): 1}}, meanwhile, {FILES: {(label,): 1}}):
        render([Source(samples, templates)], Format.TEXT)

    assert times[label] == 2


def test_series_that_stay_are_kept_when_others_come_and_go(times: Counter[str]) -> None:
    """New series do not cause the others to be rendered again."""
    label, templates = "/", TemplateCache()

    for other in "abc":
        text = render([Source({FILES: {(label,): 1, (other,): 2}}, templates)], Format.TEXT)
        assert f'files{{path="{other}"}} 2'.encode() in text

    assert times[label] == 1


def test_labels_are_rendered_once_for_all_metrics_that_have_them(times: Counter[str]) -> None:
    """Metrics with the same label names share the rendering of their series, of all or of some."""
    label, other, templates = "/", "/b", TemplateCache()
    free, used = gauge("free", "Free.", ("path",)), gauge("used", "Used.", ("path",))
    samples = {
        FILES: {(label,): 1, (other,): 2},
        free: {(label,): 3, (other,): 4},
        used: {(other,): 5},
    }

    text = render([Source(samples, templates)], Format.TEXT).decode()

    assert (times[label], times[other]) == (1, 1)
    assert [line for line in text.splitlines() if line[0] != "#"] == [
        'files{path="/"} 1',
        'files{path="/b"} 2',
        'free{path="/"} 3',
        'free{path="/b"} 4',
        'used{path="/b"} 5',
    ]


def test_labels_of_distributions_are_their_own() -> None:
    """Equal keys of a histogram, a summary and a gauge are rendered separately."""
    key = ("_bucket", "1")
    metrics = histogram("h", "H."), summary("s", "S."), gauge("g", "G.", ("a", "b"))

    text = render([Source({metric: {key: 1} for metric in metrics})], Format.TEXT).decode()

    assert [line for line in text.splitlines() if line[0] != "#"] == [
        'h_bucket{le="1"} 1',
        's_bucket{quantile="1"} 1',
        'g{a="_bucket",b="1"} 1',
    ]


def test_two_formats_by_turns() -> None:
    """Scrapes in one format do not discard the template of the other."""
    templates, samples = TemplateCache(), {FILES: {("/",): 1}}
    one = [templates.of(samples, form) for form in Format]

    assert [templates.of(samples, form) for form in Format] == one
    templates.of({FILES: {("/b",): 1}}, Format.TEXT)
    assert (
        templates.of(samples, Format.OPENMETRICS) not in one
    )  # a new template: its series were removed in between
