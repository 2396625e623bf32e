from __future__ import annotations

from math import isnan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bts_collectors.rabbitmq.prometheus.parser import Family, families, read_labels, samples
from bts_exporter import Kind

PAGE = """\
# TYPE rabbitmq_up gauge
# HELP rabbitmq_up Whether it is up
rabbitmq_up 1
# TYPE rabbitmq_reads_total counter
# HELP rabbitmq_reads_total Reads, by disk
rabbitmq_reads_total{disk="a"} 2.11e-4
rabbitmq_reads_total{disk="b"} NaN

"""


def test_a_page_falls_into_families_with_their_samples() -> None:
    """In its order, with type and help."""
    up, reads = families(PAGE)

    assert up[:3] == ("rabbitmq_up", Kind.GAUGE, "Whether it is up")
    assert list(samples(up.lines)) == [("rabbitmq_up", {}, 1.0)]
    assert reads[:3] == ("rabbitmq_reads_total", Kind.COUNTER, "Reads, by disk")
    first, second = samples(reads.lines)
    assert first == ("rabbitmq_reads_total", {"disk": "a"}, 0.000211)
    assert isnan(second.value)


def test_what_is_no_page_has_no_families() -> None:
    """An error page of a proxy, or a type that nobody knows."""
    assert list(families("<html># HELP</html>")) == []
    assert list(families("# TYPE a gaugehistogram\na 1\n")) == []


def test_a_line_that_is_no_sample_is_passed_over() -> None:
    """One queue with an odd name does not cost the others."""
    lines = 'a{x="1"} 1\na{x="2"\nb"} 2\na{x="3"} three\na{x="4"} 4\n'

    assert [sample.labels["x"] for sample in samples(lines)] == ["1", "4"]


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ('vhost="/",queue="orders"', {"vhost": "/", "queue": "orders"}),
        ('vhost="/",queue="we"ird\\q/ü"', {"vhost": "/", "queue": 'we"ird\\q/ü'}),
        ('vhost="a}b",queue="x} 1"', {"vhost": "a}b", "queue": "x} 1"}),
        ('vhost="a,b",queue=""', {"vhost": "a,b", "queue": ""}),
        ('vhost="\\\\",queue="say \\"hi\\""', {"vhost": "\\", "queue": 'say "hi"'}),
        ('queue="two\\nlines"', {"queue": "two\nlines"}),
        ("", {}),
    ],
)
def test_labels_are_read_escaped_or_not(text: str, labels: dict[str, str]) -> None:
    """Brokers before 4.0 write names as they are, later ones escape them."""
    assert read_labels(text) == labels


@given(st.text(st.characters(exclude_characters='"\\\n', exclude_categories=["Cs", "Cc"])))
def test_any_name_without_quotes_is_read_as_it_is(name: str) -> None:
    """Braces, commas, spaces and all."""
    line = f'rabbitmq_x{{vhost="/",queue="{name}"}} 7\n'

    assert [sample.labels["queue"] for sample in samples(line)] == [name]


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_escaped_name_is_read_back(name: str) -> None:
    """As the format wants it."""
    escaped = name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    assert read_labels(f'queue="{escaped}"') == {"queue": name}


@given(st.text())
def test_no_page_is_too_broken_to_read(page: str) -> None:
    """Whatever comes is read as far as it can be."""
    for family in families("# TYPE a gauge\n" + page):
        assert isinstance(family, Family)
        list(samples(family.lines))
