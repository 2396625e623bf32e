"""Pages of other programs: a line that cannot be read costs only itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, Info, Summary
from prometheus_client import exposition as text
from prometheus_client.openmetrics import exposition as openmetrics

from bts_exporter import Kind
from bts_exporter.prometheus_text import MAX_LINE, Page, read


def values(page: Page) -> dict[str, list[float]]:
    """Return the values by name of the sample."""
    found: dict[str, list[float]] = {}
    for family in page.families:
        for sample in family.samples:
            found.setdefault(family.name + sample.suffix, []).append(sample.value)
    return found


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("b{", "neither a comment nor a sample"),
        ("b", "neither a comment nor a sample"),
        ('b{x="1" 5', "neither a comment nor a sample"),
        ("b five", "'five' is not a number, or too large"),
        ("b 1e999", "'1e999' is not a number, or too large"),
        ('b{x="1",x="2"} 5', "invalid or repeated label"),
        ('b{__x="1"} 5', "invalid or repeated label"),
        ("a 2", "duplicate sample"),
        ("# TYPE b table", "'table' is not a valid type"),
        ("# TYPE a gauge", "second TYPE line for a, or a TYPE line after its samples"),
        ("b\udcff 1", "not valid UTF-8"),
        ('b{x="\udcff"} 1', "not valid UTF-8"),
        ('{"b.c"} 1', "neither a comment nor a sample"),
        ("b 1 2 3", "neither a comment nor a sample"),
        ("h_bucket 1", "'' is not a number, or too large"),
        ("h 1", "a histogram has no sample with this name"),
        (f'b{{x="{"y" * MAX_LINE}"}} 1', f"the line has {MAX_LINE + 9} characters"),
        ("b" + "{" * (MAX_LINE - 10), "neither a comment nor a sample"),
        ('b{x="' + "\\\\" * (MAX_LINE // 2 - 10), "neither a comment nor a sample"),
    ],
    ids=lambda value: value[:30].encode(errors="replace").decode(),
)
def test_line_that_cannot_be_read_costs_only_itself(line: str, error: str) -> None:
    """The error has the number of the line, and all others are read."""
    page = read(f"# TYPE h histogram\na 1\n{line}\nc 3\n")

    assert values(page) == {"a": [1], "c": [3]}
    assert page.error_count == 1
    assert page.errors[0].startswith(f"line 3: {error}")


def test_only_the_first_errors_are_kept() -> None:
    """A page of another kind, with an error in each line, does not fill the memory."""
    page = read("<p>\n" * 1000)

    assert (page.families, page.error_count, len(page.errors)) == ([], 1000, 5)


@pytest.mark.parametrize(
    "line", ["a 1 1764000000000", "a 1 1764000000.123", 'a 1 # {id="7"} 0.5 1764', "a 1\r", "a\t1 "]
)
def test_times_and_exemplars_are_dropped(line: str) -> None:
    """They may have any format that is in use."""
    page = read(f"{line}\n")

    assert (values(page), page.errors) == ({"a": [1]}, [])


def test_repeated_help_and_type_are_no_errors() -> None:
    """Programs that join the pages of several processes repeat them; the first help counts."""
    page = read("# HELP a One.\n# TYPE a gauge\na 1\n# HELP a Two.\n# TYPE a gauge\na{x='1'} 2\n")

    assert page.families[0].help == "One."
    assert page.errors == ["""line 6: invalid or repeated label: "a{x='1'} 2\""""]


@pytest.mark.parametrize("end", ["", "\n", "\n\n"])
def test_the_last_line_needs_no_end(end: str) -> None:
    """A library that leaves it out has not lost anything: the length of a response is checked elsewhere."""
    assert values(read(f"a 1{end}")) == {"a": [1]}


def registry() -> CollectorRegistry:
    """Return one metric of each compound type, as prometheus_client has them."""
    made = CollectorRegistry()
    Counter("jobs", "Jobs.", registry=made).inc(3)
    Histogram("size", "Size.", buckets=(1, 2), registry=made).observe(1.5)
    Summary("wait", "Wait.", registry=made).observe(7)
    Info("model", "Model.", registry=made).info({"version": "3"})
    return made


def test_both_formats_mean_the_same() -> None:
    """A program's page has the same families in both formats, without the times of creation."""
    plain = read(text.generate_latest(registry()).decode())
    modern = read(openmetrics.generate_latest(registry()).decode(), openmetrics=True)

    assert plain == modern
    assert [(f.name, f.kind, f.help) for f in plain.families] == [
        ("jobs_total", Kind.COUNTER, "Jobs."),
        ("size", Kind.HISTOGRAM, "Size."),
        ("wait", Kind.SUMMARY, "Wait."),
        ("model_info", Kind.GAUGE, "Model."),
    ]
    assert values(plain)["size_bucket"] == [0, 1, 1]


def test_types_that_only_openmetrics_has() -> None:
    """They get the names and types that the text format has for them."""
    page = read(
        "# TYPE door stateset\n"
        'door{door="open"} 1\n'
        "# TYPE size gaugehistogram\n"
        'size_bucket{le="+Inf"} 4\nsize_gcount 4\nsize_gsum 9\n'
        "# TYPE age_seconds unknown\n# UNIT age_seconds seconds\nage_seconds 7\n# EOF\n",
        openmetrics=True,
    )

    assert page.errors == []
    assert {family.name: family.kind for family in page.families} == {
        "door": Kind.GAUGE,
        "size_bucket": Kind.GAUGE,
        "size_gcount": Kind.GAUGE,
        "size_gsum": Kind.GAUGE,
        "age_seconds": Kind.UNTYPED,
    }


@pytest.mark.parametrize(
    ("end", "error"),
    [
        ("", "the page has no # EOF at its end, so the rest of it may be missing"),
        ("# EOF\na 2\n", "line 3: a line after # EOF: 'a 2'"),
    ],
)
def test_end_of_openmetrics(end: str, error: str) -> None:
    """What was read is served, and a page that is cut off or goes on is an error."""
    page = read(f"a 1\n{end}", openmetrics=True)

    assert (values(page), page.errors) == ({"a": [1]}, [error])


def test_metric_with_the_name_of_a_creation_time_is_an_error() -> None:
    """It is left out, since it means something else to readers of OpenMetrics, and is reported."""
    page = read(
        "# TYPE jobs_total counter\njobs_total 3\n# TYPE jobs_created gauge\njobs_created 2\n"
    )

    assert values(page) == {"jobs_total": [3]}
    assert page.errors == ["jobs_created is left out: it is the creation time of jobs_total"]


LINES = st.lists(
    st.one_of(
        st.sampled_from(
            [
                "# TYPE a counter",
                "# TYPE a histogram",
                "a 1",
                'a_bucket{le="1"} 2',
                "# EOF",
                "# HELP a",
            ]
        ),
        st.text(st.sampled_from('ab_{}"=,\\ #\t1e+.NaIf\udc80é'), max_size=20),
    ),
    max_size=8,
)


@given(LINES, st.booleans())
def test_no_page_raises(lines: list[str], modern: bool) -> None:
    """Each line is read, or is an error."""
    page = read("\n".join(lines), openmetrics=modern)

    assert page.error_count >= len(page.errors)
