from __future__ import annotations

import contextlib
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from bts_exporter import Kind
from bts_exporter.prometheus_text import Family, Sample, parse

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


def only_family(text: str) -> Family:
    """Return the only family in `text`."""
    (family,) = parse(text)
    return family


def test_a_page() -> None:
    """Types, helps, labels and values are those on the page; empty labels are omitted."""
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
    assert (load.kind, load.help) == (Kind.GAUGE, "")
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
    """Every spelling of a number in the format is accepted."""
    assert only_family(f"x {text}\n").samples == [Sample("", {}, value)]


def test_samples_apart() -> None:
    """Samples of one metric belong together, whatever is between them."""
    a, b = parse('a 1\nb 2\na{x="1"} 3\n')

    assert a.samples == [Sample("", {}, 1), Sample("", {"x": "1"}, 3)]
    assert b.samples == [Sample("", {}, 2)]


def test_a_counter_keeps_its_name() -> None:
    """A counter without the suffix _total is not renamed: dashboards query the name in the file."""
    assert only_family("# TYPE runs counter\nruns 1\n").name == "runs"


def test_a_name_that_ends_in_created() -> None:
    """A gauge with the suffix _created is a gauge like any other."""
    assert only_family("# TYPE backup_created gauge\nbackup_created 1\n").samples == [
        Sample("", {}, 1)
    ]


def test_a_header_without_samples() -> None:
    """A metric with a help and a type but no sample is left out."""
    assert parse("# HELP a b\n# TYPE a gauge\n") == []


@pytest.mark.parametrize("text", ["", "\n", "# just words\n", "#\n", "# EOF\n", "# HELP\n", "\t\n"])
def test_nothing(text: str) -> None:
    """A page may have no metric."""
    assert parse(text) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a 1", r"the last line has no end, the file may be truncated: 'a 1'"),
        ("a 1\nb{", r"truncated: 'b\{'"),
        ("# TYPE a gau", "truncated"),
        ("a\n", "line 1: neither a comment nor a sample: 'a'"),
        ("a 1\n\nwhat is this\n", "line 3: neither"),
        ("a1\n", "neither"),
        ("1a 1\n", "neither"),
        ("a 1\r\n", "neither|not a number"),
        ("a\u00a01\n", "neither"),
        ("\ufeffa 1\n", "neither"),
        ("a-b 1\n", "neither"),
        ('{"a.b"} 1\n', "neither"),
        ("<html>\n", "neither"),
        ("a one\n", "'one' is not a number"),
        ("a 1_000\n", "'1_000' is not a number"),
        ("a 0x10\n", "not a number"),
        ("a \u0661\n", "not a number"),
        ("a 1,5\n", "not a number"),
        ("a 1e999\n", "too large"),
        ("a 1\0\n", "not a number"),
        ("a 1 2 3\n", "neither"),
        ("a 1 # {x='1'} 2\n", "neither"),
        ("a 1 1441205977284\n", "timestamps are not supported"),
        ("a 1 1.5\n", "neither"),
        ('a{b="1} 2\n', "neither"),
        ('a{b="1" 2\n', "neither"),
        ("a{b=1} 2\n", "invalid or repeated label"),
        ('a{b="1" c="2"} 3\n', "label"),
        ('a{b="1",,c="2"} 3\n', "label"),
        ("a{,} 3\n", "label"),
        ('a{b="1",b="2"} 3\n', "label"),
        ('a{b="",b="2"} 3\n', "label"),
        ('a{b="\\t"} 3\n', "label"),
        ('a{b:c="1"} 3\n', "label"),
        ('a{__name__="1"} 3\n', "label"),
        ('a{1="1"} 3\n', "label"),
        ("# TYPE a what\na 1\n", "'what' is not a valid type"),
        ("# TYPE a\na 1\n", "not a valid type"),
        ("# TYPE a-b gauge\n", "a-b is not a valid metric name"),
        ("# HELP 1 x\n", "1 is not a valid metric name"),
        ("# TYPE a gauge\n# TYPE a gauge\n", "second TYPE line for a"),
        ("a 1\n# TYPE a gauge\n", "after its samples"),
        ("# HELP a x\n# HELP a x\n", "second HELP line for a"),
        ("a 1\na 1\n", "line 2: duplicate sample"),
        ('a{b="1",c="2"} 1\na{c="2",b="1"} 2\n', "duplicate"),
        ('a{b=""} 1\na 2\n', "duplicate"),
        ("# TYPE a histogram\na 1\n", "a histogram has no sample with this name"),
        ("# TYPE a histogram\na_bucket 1\n", "'' is not a number"),
        ('# TYPE a histogram\na_bucket{le="x"} 1\n', "'x' is not a number"),
        ("# TYPE a summary\na 1\n", "'' is not a number"),
    ],
)
def test_rules(text: str, problem: str) -> None:
    """A line that breaks a rule of the format is an error with the line and its number."""
    with pytest.raises(ValueError, match=problem):
        parse(text)


def test_long_lines_are_cut() -> None:
    """An error shows only the beginning of a long line."""
    with pytest.raises(ValueError, match="line 1") as caught:
        parse("?" * 100_000 + "\n")
    assert len(str(caught.value)) < 200


def test_no_backtracking() -> None:
    """A long line that is almost a sample is refused in time linear in its length."""
    for tail in (
        'a{b="' + '\\"' * 50_000,
        "a{" + "x" * 50_000,
        "a" * 50_000,
        "a{b=" + '""' * 50_000,
    ):
        with pytest.raises(ValueError, match="line 1"):
            parse(f"{tail}\n")


def test_cut_off() -> None:
    """A page truncated within a line is an error."""
    for end in range(1, len(PAGE)):
        if PAGE[end - 1] != "\n":
            with pytest.raises(ValueError, match="truncated"):
                parse(PAGE[:end])


@settings(max_examples=300)
@given(text=st.text(max_size=200))
def test_noise(text: str) -> None:
    """Arbitrary characters give metrics or a ValueError."""
    with contextlib.suppress(ValueError):
        parse(text)


def for_reference(page: str) -> str:
    """Return a page without what prometheus_client reads differently: counters, and comments such as `#a`."""
    lines = page.replace("counter", "gauge").split("\n")
    return "\n".join(
        line
        for line in lines
        if not line.strip().startswith("#") or re.match(r"\s*#\s*(HELP|TYPE)\s", line)
    )


@settings(max_examples=500)
@given(data=st.data())
def test_damage(data: st.DataObject) -> None:
    """A damaged page gives a ValueError, or the samples that prometheus_client finds in it."""
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
        for f in text_string_to_metric_families(for_reference(page))
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
    """Labels, values and helps that are escaped as the format says are read back unchanged."""
    escape = {ord("\\"): r"\\", ord("\n"): r"\n"}
    pairs = [
        f'{name}="{text.translate(escape | {ord(chr(34)): chr(92) + chr(34)})}"'
        for name, text in labels.items()
    ]
    help = help.strip(" \t")  # noqa: A001
    page = f"# HELP a {help.translate(escape)}\na{{{','.join(pairs)}}} {value!r}\n"

    assert parse(page) == [Family("a", Kind.UNTYPED, help, [Sample("", labels, value)])]


def read_leniently(page: str) -> dict[str, list[Sample]]:
    """Return the samples by family."""
    return {family.name: list(family.samples) for family in parse(page, strict=False)}


def test_lenient_page() -> None:
    """A page of the right format is read as strictly, with the families in their order."""
    strict = [Family(*family) for family in parse(PAGE) if family.kind is not Kind.UNTYPED]
    lenient = [
        family._replace(
            samples=[
                sample._replace(labels={k: v for k, v in sample.labels.items() if v})
                for sample in family.samples
            ]
        )
        for family in parse(
            PAGE.replace("  load { core = ", "load{core=").replace(" , numa", ",numa"), strict=False
        )
    ]

    assert str(lenient) == str(strict)


@pytest.mark.parametrize(
    "page", ["# HELP a A.\n# TYPE a gauge\na 1\n", "# TYPE a gauge\n# HELP a A.\na 1\n"]
)
def test_lenient_order_of_comments(page: str) -> None:
    """The HELP line may be before the TYPE line, as most exporters write it, or after, as Erlang's do."""
    (family,) = parse(page, strict=False)

    assert (family.kind, family.help, list(family.samples)) == (
        Kind.GAUGE,
        "A.",
        [Sample("", {}, 1)],
    )


def test_lenient_skips_what_it_cannot_read() -> None:
    """Lines that are not samples, values that are not numbers, and samples of other names are skipped."""
    page = '# TYPE a gauge\na 1\na one\nwhat\nb 2\na_sum 3\n# comment\na{x="1"} 4\na 5 1441205977284\n\n'

    assert read_leniently(page) == {
        "a": [Sample("", {}, 1), Sample("", {"x": "1"}, 4), Sample("", {}, 5)]
    }


@pytest.mark.parametrize(
    "page", ["", "a 1\n", "<html>\n", "# TYPE a info\na 1\n", "# TYPE a\na 1\n"]
)
def test_lenient_without_a_family(page: str) -> None:
    """Samples without HELP and TYPE lines, and those of an unknown type, belong to no family."""
    assert read_leniently(page) == {}


@pytest.mark.parametrize(
    "labels", ["x" * 300_000, 'x="' * 100_000 + "y", 'x="1",' * 50_000 + "y", '",' * 100_000 + "y"]
)
def test_lenient_without_backtracking(labels: str) -> None:
    """Long labels that never end are read in time linear in their length."""
    (family,) = parse(f"# TYPE a gauge\na{{{labels}}} 1\n", strict=False)

    assert len(list(family.samples)) == 1


def test_lenient_help_is_enough() -> None:
    """A family with a HELP line and no TYPE line is untyped."""
    (family,) = parse("# HELP a A.\\nB.\na 1\n", strict=False)

    assert (family.kind, family.help) == (Kind.UNTYPED, "A.\nB.")


@pytest.mark.parametrize(
    ("written", "value"),
    [
        (r"a\"b\\c\n", 'a"b\\c\n'),
        ('a"b', 'a"b'),
        ('a",b', 'a",b'),
        ("a} 5", "a} 5"),
        ("a\\b", "a\\b"),
        ('a"\\"b', 'a"\\"b'),
        ("# TYPE b gauge", "# TYPE b gauge"),
        ("", ""),
    ],
)
def test_lenient_label_values(written: str, value: str) -> None:
    """Quotes and backslashes in a label value may be unescaped, as old versions of RabbitMQ write them."""
    page = f'# TYPE a gauge\na{{queue="{written}",vhost="/"}} 7\n'

    assert read_leniently(page) == {"a": [Sample("", {"queue": value, "vhost": "/"}, 7)]}


def test_lenient_samples_can_be_read_again() -> None:
    """The samples of a family are parsed at each iteration."""
    (family,) = parse("# TYPE a gauge\na 1\n", strict=False)

    assert list(family.samples) == list(family.samples) == [Sample("", {}, 1)]


@settings(max_examples=300)
@given(text=st.text(max_size=200))
def test_lenient_noise(text: str) -> None:
    """Arbitrary characters are never an error."""
    read_leniently("# TYPE a gauge\na" + text)
