from __future__ import annotations

import contextlib
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from bts_collectors.host.kernel.text_format import Family, Sample, parse
from bts_exporter import Kind

PAGE = r"""# A comment, and then one of every type.
# HELP jobs_total Jobs that ran,\nby result. A \\ is a backslash, and \x stays.
# TYPE jobs_total counter
jobs_total{result="ok"} 10
jobs_total{result="say \"no\", {or} not\n\\",} 2

# TYPE load gauge
load 0.5
  load { core = "0" , numa="" }	-1e-3
# TYPE size histogram
size_bucket{le="0.1"} 1
size_bucket{le="+Inf"} 3
size_sum 12.5
size_count 3
# TYPE wait summary
wait{quantile="0.99"} NaN
wait_sum 7
wait_count 2
plain_count +Inf
"""


def one(text: str) -> Family:
    """Return the only family in `text`."""
    (family,) = parse(text)
    return family


def test_a_page() -> None:
    """Types, helps, labels and values are those that the page has; empty labels are none."""
    jobs, load, size, wait, plain = parse(PAGE)

    assert (jobs.name, jobs.kind, jobs.help) == (
        "jobs_total",
        Kind.COUNTER,
        "Jobs that ran,\nby result. A \\ is a backslash, and \\x stays.",
    )
    assert jobs.samples == [
        Sample("", {"result": "ok"}, 10),
        Sample("", {"result": 'say "no", {or} not\n\\'}, 2),
    ]
    assert (load.kind, load.help) == (Kind.GAUGE, None)
    assert load.samples == [Sample("", {}, 0.5), Sample("", {"core": "0"}, -0.001)]
    assert size.kind is Kind.HISTOGRAM
    assert size.samples == [
        Sample("_bucket", {"le": "0.1"}, 1),
        Sample("_bucket", {"le": "+Inf"}, 3),
        Sample("_sum", {}, 12.5),
        Sample("_count", {}, 3),
    ]
    assert wait.kind is Kind.SUMMARY
    assert wait.samples[0][:2] == ("", {"quantile": "0.99"})
    assert math.isnan(wait.samples[0].value)
    assert (plain.name, plain.kind) == ("plain_count", Kind.UNTYPED)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e3", 1000), (".5", 0.5), ("5.", 5), ("+7", 7), ("-inf", -math.inf), ("Infinity", math.inf)],
)
def test_numbers(text: str, value: float) -> None:
    """Every spelling of a number that the format knows is one."""
    assert one(f"x {text}\n").samples == [Sample("", {}, value)]


def test_samples_apart() -> None:
    """Samples of one metric belong together, whatever stands between them."""
    assert [
        len(family.samples) for family in parse("a 1\nb 2\na{x='1'} 3\n".replace("'", '"'))
    ] == [
        2,
        1,
    ]


def test_a_counter_keeps_its_name() -> None:
    """A counter that does not end in _total is not renamed: dashboards ask for what is in the file."""
    assert one("# TYPE runs counter\nruns 1\n").name == "runs"


def test_a_name_that_ends_in_created() -> None:
    """A gauge named like the time when a series began is a gauge like others."""
    assert one("# TYPE backup_created gauge\nbackup_created 1\n").samples == [Sample("", {}, 1)]


def test_a_header_without_samples() -> None:
    """A metric that has a help and a type and no sample is not there."""
    assert parse("# HELP a b\n# TYPE a gauge\n") == []


@pytest.mark.parametrize("text", ["", "\n", "# just words\n", "#\n", "# EOF\n", "# HELP\n", "\t\n"])
def test_nothing(text: str) -> None:
    """A page may have no metric at all."""
    assert parse(text) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a 1", r"the last line does not end, it may be cut off: 'a 1'"),
        ("a 1\nb{", r"cut off: 'b\{'"),
        ("# TYPE a gau", "cut off"),
        ("a\n", "line 1: neither a comment nor a sample: 'a'"),
        ("a 1\n\nwhat is this\n", "line 3: neither"),
        ("a1\n", "neither"),
        ("1a 1\n", "neither"),
        ("a 1\r\n", "neither|no number"),
        ("a\u00a01\n", "neither"),
        ("\ufeffa 1\n", "neither"),
        ("a-b 1\n", "neither"),
        ('{"a.b"} 1\n', "neither"),
        ("<html>\n", "neither"),
        ("a one\n", "'one' is no number"),
        ("a 1_000\n", "'1_000' is no number"),
        ("a 0x10\n", "no number"),
        ("a \u0661\n", "no number"),
        ("a 1,5\n", "no number"),
        ("a 1e999\n", "too large"),
        ("a 1\0\n", "no number"),
        ("a 1 2 3\n", "neither"),
        ("a 1 # {x='1'} 2\n", "neither"),
        ("a 1 1441205977284\n", "a time of its own"),
        ("a 1 1.5\n", "neither"),
        ('a{b="1} 2\n', "neither"),
        ('a{b="1" 2\n', "neither"),
        ("a{b=1} 2\n", "labels that cannot be read"),
        ('a{b="1" c="2"} 3\n', "labels"),
        ('a{b="1",,c="2"} 3\n', "labels"),
        ("a{,} 3\n", "labels"),
        ('a{b="1",b="2"} 3\n', "labels"),
        ('a{b="",b="2"} 3\n', "labels"),
        ('a{b="\\t"} 3\n', "labels"),
        ('a{b:c="1"} 3\n', "labels"),
        ('a{__name__="1"} 3\n', "labels"),
        ('a{1="1"} 3\n', "labels"),
        ("# TYPE a what\na 1\n", "'what' is not a valid Kind"),
        ("# TYPE a\na 1\n", "not a valid Kind"),
        ("# TYPE a-b gauge\n", "a-b is not the name of a metric"),
        ("# HELP 1 x\n", "1 is not the name of a metric"),
        ("# TYPE a gauge\n# TYPE a gauge\n", "type of a is given twice"),
        ("a 1\n# TYPE a gauge\n", "behind a sample"),
        ("# HELP a x\n# HELP a x\n", "a second help for a"),
        ("a 1\na 1\n", "line 2: there is such a sample already"),
        ('a{b="1",c="2"} 1\na{c="2",b="1"} 2\n', "already"),
        ('a{b=""} 1\na 2\n', "already"),
        ("# TYPE a histogram\na 1\n", "a histogram has no sample of this name"),
        ("# TYPE a histogram\na_bucket 1\n", "'' is no number"),
        ('# TYPE a histogram\na_bucket{le="x"} 1\n', "'x' is no number"),
        ("# TYPE a summary\na 1\n", "'' is no number"),
    ],
)
def test_rules(text: str, problem: str) -> None:
    """A line that breaks a rule of the format is an error that shows it with its number."""
    with pytest.raises(ValueError, match=problem):
        parse(text)


def test_long_lines_are_cut() -> None:
    """An error shows the beginning of a long line alone."""
    with pytest.raises(ValueError, match="line 1") as caught:
        parse("?" * 100_000 + "\n")
    assert len(str(caught.value)) < 200


def test_no_backtracking() -> None:
    """A long line that almost is a sample is refused in time that grows with its length alone."""
    for tail in (
        'a{b="' + '\\"' * 50_000,
        "a{" + "x" * 50_000,
        "a" * 50_000,
        "a{b=" + '""' * 50_000,
    ):
        with pytest.raises(ValueError, match="line 1"):
            parse(f"{tail}\n")


def test_cut_off() -> None:
    """A page cut off anywhere but behind a line is an error."""
    for end in range(1, len(PAGE)):
        if PAGE[end - 1] != "\n":
            with pytest.raises(ValueError, match="cut off"):
                parse(PAGE[:end])


@settings(max_examples=300)
@given(text=st.text(max_size=200))
def test_noise(text: str) -> None:
    """Characters without a meaning give metrics or a ValueError."""
    with contextlib.suppress(ValueError):
        parse(text)


@settings(max_examples=500)
@given(data=st.data())
def test_damage(data: st.DataObject) -> None:
    """A damaged page gives a ValueError, or just what the lax parser finds in it too."""
    begin = data.draw(st.integers(0, len(PAGE)))
    end = data.draw(st.integers(begin, min(begin + 8, len(PAGE))))
    patch = data.draw(st.text(alphabet='ax_ \n"\\{},=#01.', max_size=4))
    page = PAGE[:begin] + patch + PAGE[end:]
    try:
        ours = parse(page)
    except ValueError:
        return

    assert {(f.name + s.suffix, frozenset(s.labels.items())) for f in ours for s in f.samples} == {
        (s.name, frozenset((k, v) for k, v in s.labels.items() if v))
        for f in text_string_to_metric_families(page.replace("counter", "gauge"))
        for s in f.samples
    }


LABELS = st.dictionaries(
    st.from_regex(r"[a-z][a-z0-9_]{0,3}", fullmatch=True),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8),
    max_size=3,
)


@settings(max_examples=300)
@given(labels=LABELS, value=st.floats(allow_nan=False), help=st.text(max_size=10))
def test_written_and_read(labels: dict[str, str], value: float, help: str) -> None:  # noqa: A002
    """What is written as the format says is read as it was."""
    escape = {ord("\\"): r"\\", ord("\n"): r"\n"}
    pairs = [
        f'{name}="{text.translate(escape | {ord(chr(34)): chr(92) + chr(34)})}"'
        for name, text in labels.items()
    ]
    help = help.strip(" \t")  # noqa: A001
    page = f"# HELP a {help.translate(escape)}\na{{{','.join(pairs)}}} {value!r}\n"

    assert parse(page) == [Family("a", help=help, samples=[Sample("", labels, value)])]
