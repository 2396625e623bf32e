from __future__ import annotations

import gzip
import math
import subprocess
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import parser
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from bts_exporter import Metric, counter, gauge, histogram, summary, untyped
from bts_exporter.exposition.formats import Format
from bts_exporter.exposition.page import Layout, Source, compress, parts_of, render
from bts_exporter.exposition.templates import TemplateCache
from bts_exporter.metric import Key
from bts_exporter.scrape import Scrape
from servers import need

Samples = Mapping[Metric, Mapping[Key, float]]
Parsed = list[tuple[str, dict[str, str], float]]

FILES = gauge("files", "Files.", ("path",))
UP = gauge("up", "Up.")


def page(samples: Samples, form: Format = Format.TEXT, **constant: str) -> str:
    """Return the page of one source."""
    return render([Source(samples, TemplateCache(constant))], form).decode()


def parsed(text: str, form: Format) -> Parsed:
    """Return the samples that the reference parser of `form` finds, in order."""
    parse = parser.text_string_to_metric_families if form is Format.TEXT else parse_openmetrics
    return [
        (sample.name, dict(sample.labels), float(sample.value))
        for family in parse(text)
        for sample in family.samples
    ]


# Formats


def test_page_in_the_text_format() -> None:
    """Samples follow the help and the type of their metric; whole numbers have no point."""
    text = page({FILES: {("/a",): 3.0, ("/b",): 0.5}, UP: {(): 1}})

    assert text == (
        "# HELP files Files.\n"
        "# TYPE files gauge\n"
        'files{path="/a"} 3\n'
        'files{path="/b"} 0.5\n'
        "# HELP up Up.\n"
        "# TYPE up gauge\n"
        "up 1\n"
    )


def test_page_in_openmetrics() -> None:
    """OpenMetrics differs in the names of counters, the word unknown and its last line."""
    samples = {
        counter("seen_total", "Seen."): {(): 2},
        counter("odd_count", "Odd."): {(): 3},
        untyped("any", "Any."): {(): 4},
    }

    assert page(samples, Format.OPENMETRICS) == (
        "# HELP seen Seen.\n"
        "# TYPE seen counter\n"
        "seen_total 2\n"
        "# HELP odd_count Odd.\n"
        "# TYPE odd_count unknown\n"
        "odd_count 3\n"
        "# HELP any Any.\n"
        "# TYPE any unknown\n"
        "any 4\n"
        "# EOF\n"
    )
    assert parsed(page(samples, Format.OPENMETRICS), Format.OPENMETRICS) == [
        ("seen_total", {}, 2),
        ("odd_count", {}, 3),
        ("any", {}, 4),
    ]


def test_counter_beside_a_gauge_of_its_name() -> None:
    """In OpenMetrics a counter's family must not take the name that another metric has."""
    samples = {gauge("open", "Open."): {(): 1}, counter("open_total", "Opened."): {(): 9}}

    text = page(samples, Format.OPENMETRICS)

    assert parsed(text, Format.OPENMETRICS) == [("open", {}, 1), ("open_total", {}, 9)]
    assert text.count("# TYPE open ") == 1


@pytest.mark.parametrize("form", Format)
def test_distributions(form: Format) -> None:
    """Histograms and summaries are rendered as their samples."""
    size = histogram("size_bytes", "Sizes.", ("queue",))
    delay = summary("delay_seconds", "Delays.", ("queue",))
    scrape = Scrape(math.inf)
    scrape.emit_histogram(size, [(0.5, 1), (10.0, 3)], 25.5, "q")
    scrape.emit_summary(delay, [(0.5, 1.5)], 20, 10, "q")

    assert parsed(page(scrape.samples, form), form) == [
        ("size_bytes_bucket", {"queue": "q", "le": "0.5"}, 1),
        ("size_bytes_bucket", {"queue": "q", "le": "10.0"}, 3),
        ("size_bytes_bucket", {"queue": "q", "le": "+Inf"}, 3),
        ("size_bytes_sum", {"queue": "q"}, 25.5),
        ("size_bytes_count", {"queue": "q"}, 3),
        ("delay_seconds", {"queue": "q", "quantile": "0.5"}, 1.5),
        ("delay_seconds_sum", {"queue": "q"}, 20),
        ("delay_seconds_count", {"queue": "q"}, 10),
    ]


@pytest.mark.parametrize("form", Format)
def test_page_of_nothing(form: Format) -> None:
    """A metric without samples has no header, and an empty page is still one."""
    assert page({UP: {}}, form) == ("" if form is Format.TEXT else "# EOF\n")


@pytest.mark.parametrize("form", Format)
@pytest.mark.parametrize(
    "help_text", ["", 'a "quoted" word', "two\nlines", "back\\slash", "\\n", "ünicode", "  spaces"]
)
def test_help_of_any_text(help_text: str, form: Format) -> None:
    """Any help text is rendered in one line and parsed unchanged."""
    parse = parser.text_string_to_metric_families if form is Format.TEXT else parse_openmetrics

    [family] = parse(page({gauge("a", help_text): {(): 1}}, form))

    assert family.documentation.strip() == help_text.strip()


def test_help_that_is_no_unicode() -> None:
    """A help with invalid Unicode does not fail the page."""
    assert page({gauge("a", "x\udc80"): {(): 1}}) == "# HELP a x?\n# TYPE a gauge\na 1\n"


def test_constant_labels() -> None:
    """The labels of a collector's settings are on each of its series, behind the metric's own."""
    text = page({FILES: {("/",): 1}, UP: {(): 1}}, target="cache", site="a")

    assert 'files{path="/",target="cache",site="a"} 1\n' in text
    assert 'up{target="cache",site="a"} 1\n' in text


def test_constant_label_that_the_metric_has() -> None:
    """A constant label that the metric has already is left out: Prometheus would refuse the page."""
    text = page({FILES: {("/",): 1}}, path="given", site="a")

    assert 'files{path="/",site="a"} 1\n' in text


# Any samples

anything = st.text() | st.text(st.sampled_from('ab"\\\n\r\0\udc80\ud800'))
numbers = st.floats() | st.integers() | st.sampled_from([10**400, -(10**400), 2**1024, 1e308, -0.0])


def as_read(label: str) -> str:
    """Return a label value as a parser reads it: lone surrogates are escaped."""
    return label.encode("utf-8", "backslashreplace").decode()


def as_float(value: float) -> float:
    """Return a value as a parser reads it: integers beyond floating point are infinite."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def same(one: Parsed, other: Parsed) -> bool:
    """Return whether both are equal, NaN being equal to itself."""
    return len(one) == len(other) and all(
        a[:2] == b[:2] and (a[2] == b[2] or (math.isnan(a[2]) and math.isnan(b[2])))
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("form", Format)
@given(
    values=st.dictionaries(st.tuples(anything, anything), numbers, max_size=6),
    constant=anything,
)
def test_any_samples_are_read_as_they_were_emitted(
    form: Format, values: dict[tuple[str, str], float], constant: str
) -> None:
    """The reference parser reads any label values and numbers unchanged."""
    metric = gauge("any", "Any.", ("one", "other"))

    text = page({metric: values}, form, fixed=constant)

    expected = [
        (
            "any",
            {"one": as_read(one), "other": as_read(other), "fixed": as_read(constant)},
            as_float(v),
        )
        for (one, other), v in values.items()
    ]
    assert same(parsed(text, form), expected)


@given(st.lists(numbers, min_size=1, max_size=5))
def test_any_numbers_are_read_by_go(values: list[float]) -> None:
    """Every number is within the range of Go's parser, which refuses the whole page otherwise."""
    text = page({FILES: {(str(i),): value for i, value in enumerate(values)}})

    written = [line.rpartition(" ")[2] for line in text.splitlines() if not line.startswith("#")]
    assert [
        text
        for text in written
        if text not in {"NaN", "+Inf", "-Inf"} and not math.isfinite(float(text))
    ] == []


def test_whole_numbers_that_cancel_each_other() -> None:
    """Two integers beyond floating point are rendered as infinite, even if their sum is small."""
    text = page({FILES: {("a",): 10**400, ("b",): -(10**400)}})

    assert parsed(text, Format.TEXT) == [
        ("files", {"path": "a"}, math.inf),
        ("files", {"path": "b"}, -math.inf),
    ]


def test_label_value_that_ends_like_a_number() -> None:
    """Only values are written without `.0`: a version or a bound keeps it."""
    metric = gauge("build_info", "Build.", ("version",))

    assert 'build_info{version="3.0"} 1\n' in page({metric: {("3.0",): 1.0}})
    assert 'build_info{version=" 1.0\\n"} 1\n' in page({metric: {(" 1.0\n",): 1.0}})


def test_prometheus_takes_the_page(all_kinds: Samples) -> None:
    """The linter of Prometheus accepts the page without a warning."""
    done = subprocess.run(
        [need("promtool", "prometheus"), "check", "metrics"],
        input=page(all_kinds),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def all_kinds() -> Samples:
    """Return samples of every kind, with awkward labels and values."""
    scrape = Scrape(math.inf)
    awkward = 'quote " backslash \\ newline \n umlaut ü \udcff'
    scrape.emit(gauge("a_celsius", "A.", ("sensor",)), math.nan, awkward)
    scrape.emit(counter("b_total", "B."), 1e300)
    scrape.emit_histogram(histogram("d_seconds", "D."), [(0.1, 1)], 0.05)
    scrape.emit_summary(summary("e_seconds", "E."), [(0.5, math.inf)], 1, 1)
    return scrape.samples


# Several sources


def test_metric_shared_by_two_sources() -> None:
    """The samples of a metric that two collectors share are below one header."""
    one = Source({FILES: {("/",): 1}}, TemplateCache({"target": "one"}))
    other = Source({UP: {(): 1}, FILES: {("/",): 2}}, TemplateCache({"target": "two"}))

    text = render([one, other], Format.TEXT).decode()

    assert text.startswith(
        "# HELP files Files.\n"
        "# TYPE files gauge\n"
        'files{path="/",target="one"} 1\n'
        'files{path="/",target="two"} 2\n'
    )
    assert text.count("# TYPE files") == 1
    assert (one.conflict, other.conflict) == ("", "")


def test_metric_declared_twice_by_one_source() -> None:
    """Two metrics of one name are one family, also where one follows the other."""
    again = gauge("files", "Files, by another declaration.", ("path",))

    text = page({UP: {(): 1}, FILES: {("/",): 1}, again: {("/b",): 2, ("/",): 3, ("/c",): 4}})

    assert text == (
        "# HELP up Up.\n# TYPE up gauge\nup 1\n"
        "# HELP files Files.\n# TYPE files gauge\n"
        'files{path="/"} 1\nfiles{path="/b"} 2\nfiles{path="/c"} 4\n'
    )


def test_metric_of_another_kind() -> None:
    """Of two kinds of one name the first is served; the conflict names both sources."""
    one = Source({FILES: {("/",): 1}}, name="one")
    other = Source({counter("files", "Files."): {(): 7}, UP: {(): 1}}, name="two")

    text = render([one, other], Format.TEXT).decode()

    assert parsed(text, Format.TEXT) == [("files", {"path": "/"}, 1), ("up", {}, 1)]
    assert one.conflict == ""
    assert other.conflict == "files of two: served as a gauge by one"


@pytest.mark.parametrize("part", ["x_count", "x_sum", "x_bucket"])
def test_metric_that_is_called_like_a_part_of_another(part: str) -> None:
    """A metric with the name of a histogram's sample is left out; the conflict names both sources."""
    scrape = Scrape(math.inf)
    scrape.emit_histogram(histogram("x", "X."), [(1.0, 1)], 1)
    one = Source({gauge(part, "Part."): {(): 7}, UP: {(): 1}}, name="one")
    other = Source(scrape.samples, name="two")

    text = render([one, other], Format.TEXT).decode()

    assert [name for name, _, _ in parsed(text, Format.TEXT)] == [
        "up",
        "x_bucket",
        "x_bucket",
        "x_sum",
        "x_count",
    ]
    assert one.conflict == f"{part} of one: it is a part of the histogram x, served by two"
    assert other.conflict == ""


def test_counter_that_is_called_total() -> None:
    """A counter named `_total` keeps its name in OpenMetrics."""
    text = page({counter("_total", "Odd."): {(): 1}}, Format.OPENMETRICS)

    assert text == "# HELP _total Odd.\n# TYPE _total unknown\n_total 1\n# EOF\n"


def test_same_series_from_two_sources() -> None:
    """Of two samples of one series the first is served; the conflict names both sources."""
    one = Source({FILES: {("/",): 1}}, name="one")
    other = Source({FILES: {("/",): 2, ("/b",): 3}}, name="two")

    text = render([one, other], Format.TEXT).decode()

    assert parsed(text, Format.TEXT) == [("files", {"path": "/"}, 1), ("files", {"path": "/b"}, 3)]
    assert one.conflict == ""
    assert other.conflict == 'files{path="/"} of two: served by one already'


@pytest.mark.parametrize(
    "labels", [("b", "a"), ("a", "b", "c"), ("a", "b")], ids=["order", "empty label", "same"]
)
def test_series_with_equal_labels_in_another_spelling(labels: tuple[str, ...]) -> None:
    """The order of labels, and labels with an empty value, do not make another series."""
    values = {"a": "1", "b": "2", "c": ""}
    one = Source({gauge("x", "X.", ("a", "b")): {("1", "2"): 1}}, name="one")
    metric = gauge("x", "X.", labels)
    other = Source({metric: {tuple(values[label] for label in labels): 2}}, name="two")

    text = render([one, other], Format.TEXT).decode()

    assert parsed(text, Format.TEXT) == [("x", {"a": "1", "b": "2"}, 1)]
    assert other.conflict.startswith("x{")
    assert other.conflict.endswith("} of two: served by one already")


def distribution(kind: str, bound: float, labels: tuple[str, ...], *values: str) -> Samples:
    """Return the samples of a histogram or summary with one bound and these labels."""
    scrape = Scrape(math.inf)
    if kind == "histogram":
        scrape.emit_histogram(histogram("x", "X.", labels), [(bound, 1)], 2, *values)
    else:
        scrape.emit_summary(summary("x", "X.", labels), [(bound, 1)], 2, 3, *values)
    return scrape.samples


@pytest.mark.parametrize("form", Format)
@pytest.mark.parametrize("kind", ["histogram", "summary"])
def test_distributions_are_never_mixed(kind: str, form: Format) -> None:
    """Of two histograms or summaries with equal labels the first is served as a whole, whatever their bounds."""
    one = Source(distribution(kind, 0.1, ("a",), "1"), name="one")
    two = Source(distribution(kind, 0.2, ("b", "a"), "", "1"), name="two")
    three = Source(distribution(kind, 0.2, ("a",), "2"), name="three")

    text = render([one, two, three], form).decode()

    served = [source.samples for source in (one, three)]
    assert parsed(text, form) == [sample for s in served for sample in parsed(page(s, form), form)]
    assert two.conflict == f'{kind} x{{a="1"}} of two: served by one already'
    assert (one.conflict, three.conflict) == ("", "")


def test_reserved_names() -> None:
    """A reserved name is left out, whatever its labels, even if its owner does not serve it now."""
    own = Source({UP: {(): 1}}, name="the exporter", reserved=frozenset({"files", "up"}))
    two = Source({FILES: {("/",): 1}, gauge("ok", "Ok."): {(): 1}}, name="two")

    text = render([own, two], Format.TEXT).decode()

    assert [name for name, _, _ in parsed(text, Format.TEXT)] == ["up", "ok"]
    assert two.conflict == "files of two: the name is reserved for the exporter"


def test_many_conflicts_are_counted() -> None:
    """The first conflicts of a source are listed, and the others counted."""
    samples = {FILES: {(f"/{number}",): 1 for number in range(25)}}
    two = Source(samples, name="two")

    render([Source(samples, name="one"), two], Format.TEXT)

    assert two.conflict.startswith('files{path="/0"} of two: served by one already; ')
    assert two.conflict.endswith("; and 15 more")


# Many series


@pytest.mark.parametrize("form", Format)
def test_page_of_many_series(form: Format) -> None:
    """A page that is rendered in several parts is complete and in order."""
    many = gauge("many", "Many, 1.0", ("n",))
    values: dict[Key, float] = {(str(n),): n / 2 for n in range(5000)}

    found = parsed(page({UP: {(): 1}, many: values, FILES: {("/",): 2}}, form), form)

    assert found == [
        ("up", {}, 1),
        *(("many", {"n": n}, value) for (n,), value in values.items()),
        ("files", {"path": "/"}, 2),
    ]


# Layout

#: Metrics that share labels, names, or the names of their families.
CROWD = (
    FILES,
    UP,
    counter("up_total", "Ups."),
    counter("files", "Files that are counted."),
    gauge("free", "Free.", ("path",)),
    summary("delay_seconds", "Delay.", ("path",)),
    gauge("delay_seconds_sum", "Delays."),
)


def some(metric: Metric) -> st.SearchStrategy[dict[Key, float]]:
    """Return samples of `metric`, of few series."""
    keys = st.tuples(*[st.sampled_from("ab")] * metric.width)
    if metric.compound:
        keys = keys.map(lambda key: ("_sum", *key))
    return st.dictionaries(keys, st.sampled_from([0, 1.0, 0.5, math.inf]), max_size=2)


crowds = st.fixed_dictionaries({}, optional={metric: some(metric) for metric in CROWD})


@given(
    pages=st.lists(st.tuples(crowds, crowds, st.sampled_from(Format)), min_size=2, max_size=5),
    target=st.sampled_from(["", "b"]),
)
def test_a_page_is_what_it_would_be_without_those_before(
    pages: list[tuple[Samples, Samples, Format]], target: str
) -> None:
    """A page does not depend on earlier pages, whatever series came and went."""
    layouts = {form: Layout() for form in Format}
    kept = TemplateCache(), TemplateCache({"target": target} if target else {})
    for one, other, form in pages:
        sources = [Source(one, kept[0]), Source(other, kept[1])]
        fresh = [Source(one), Source(other, TemplateCache({"target": target} if target else {}))]

        assert b"".join(parts_of(sources, form, layouts[form])) == render(fresh, form)
        assert [source.conflict for source in sources] == [source.conflict for source in fresh]


def test_values_alone_change_nothing_else() -> None:
    """The layout is reused while the series stay the same."""
    layout, templates = Layout(), TemplateCache()
    list(parts_of([Source({UP: {(): 1}}, templates)], Format.TEXT, layout))
    spans = layout.spans

    page = b"".join(parts_of([Source({UP: {(): 2}}, templates)], Format.TEXT, layout))

    assert page.endswith(b"up 2\n")
    assert layout.spans is spans


# Compression


def test_compression() -> None:
    """A compressed page is valid gzip, smaller, and has the same content."""
    text = page({FILES: {(str(i),): i for i in range(1000)}}).encode()

    packed = compress([text[:700], text[700:]])

    assert gzip.decompress(packed) == text
    assert len(packed) < len(text) / 3
