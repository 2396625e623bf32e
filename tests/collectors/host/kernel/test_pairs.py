from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bts_collectors.host.kernel.pairs import Pairs, parse
from bts_exporter import Metric, Scrape, gauge

A, B = gauge("a", "A."), gauge("b", "B.")


def wanted(name: bytes) -> Metric | None:
    """Return the metric of a selected name."""
    return {b"a": A, b"b": B}.get(name)


def emitted(pairs: Pairs, content: bytes) -> dict[str, float]:
    """Return the samples of `content`, up to the first error."""
    scrape = Scrape(math.inf)
    try:
        pairs.emit(scrape, content)
    except ValueError:
        scrape.emit(gauge("unreadable", "A line is unreadable."), 1)
    return {
        metric.name: value for metric, found in scrape.samples.items() for value in found.values()
    }


def test_selected_numbers() -> None:
    """Each scrape has the numbers of the current file, whatever lines were added, removed or moved."""
    pairs = Pairs(wanted)

    assert emitted(pairs, b"a 1\nx 2\nb 3\n") == {"a": 1, "b": 3}
    assert emitted(pairs, b"a 4\nx 5\nb 6\n") == {"a": 4, "b": 6}
    assert emitted(pairs, b"x 7\na 8\n") == {"a": 8}
    assert emitted(pairs, b"b 9\nx 10\na 11\n") == {"b": 9, "a": 11}


@pytest.mark.parametrize("bad", [b"a -1", b"a 1_0", b"a", b"a 1 2", b"a many", b"a \xb2"])
def test_unreadable_line_loses_only_itself(bad: bytes) -> None:
    """The lines around an unreadable one are served, in the first scrape and in later ones."""
    pairs = Pairs(wanted)

    for _ in range(2):
        assert emitted(pairs, bad + b"\nb 3\n") == {"b": 3, "unreadable": 1}
        assert emitted(pairs, b"a 1\nb 2\n") == {"a": 1, "b": 2}


def test_last_line_without_its_end() -> None:
    """A number that may be truncated is not served; it is served once the line is complete."""
    pairs = Pairs(wanted)

    assert emitted(pairs, b"a 1\nb 2") == {"a": 1}
    assert emitted(pairs, b"a 1\nb 2\n") == {"a": 1, "b": 2}
    assert emitted(pairs, b"a 1\nb 2") == {"a": 1}


def test_error_comes_at_the_end() -> None:
    """The error for the first unreadable line is raised after all other lines."""
    rows = parse(b"pgpgin 1\npgpgout -2\noom_kill 3\n")

    assert (next(rows), next(rows)) == ((b"pgpgin", 1), (b"oom_kill", 3))
    with pytest.raises(ValueError, match="unexpected content: 'pgpgout -2'"):
        next(rows)


lines_of_pairs = st.lists(
    st.tuples(st.sampled_from([b"a", b"b", b"x"]), st.sampled_from([b"1", b"2", b"-", b""])),
    max_size=4,
    unique_by=lambda pair: pair[0],
).map(lambda pairs: b"".join(b"%b %b\n" % pair for pair in pairs))


@given(st.lists(lines_of_pairs | st.binary(max_size=12), max_size=6))
@example([b"a -\nb 1\n", b"\n"])
@example([b"\n"])
@example([b"a 1\n", b"a \n"])
def test_result_is_independent_of_previous_scrapes(contents: list[bytes]) -> None:
    """The result does not depend on previous scrapes."""
    pairs = Pairs(wanted)

    for content in contents:
        assert emitted(pairs, content) == emitted(Pairs(wanted), content)
