"""What a collector can change of the samples that it emitted, and samples taken over from others."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

import pytest

from bts_exporter import Scrape, gauge, histogram, summary
from bts_exporter.errors import DeadlineExceeded

FILES = gauge("files", "Files.", ("path",))
UP = gauge("spool_up", "Whether the spool can be read.")
SIZE = histogram("size_bytes", "Sizes.", ("queue",))
DELAY = summary("delay_seconds", "Delays.", ("queue",))


def new_scrape(**options: Any) -> Scrape:
    """Return a scrape with a minute to go."""
    return Scrape(monotonic() + 60, **options)


def test_replacing_a_sample() -> None:
    """A sample is set to another value, or emitted if there is none; it counts once."""
    scrape = new_scrape(max_series=1)

    scrape.replace(FILES, 1, "/a")
    scrape.replace(FILES, 2, "/a")
    scrape.replace(FILES, 3, "/b")

    assert scrape.samples == {FILES: {("/a",): 2}}
    assert scrape.dropped == 1
    assert [reason for reason, _ in scrape.losses] == ["limited"]


def test_whether_there_is_a_sample() -> None:
    """`has` looks for one sample, or for any of a metric."""
    scrape = new_scrape()
    scrape.emit(FILES, 1, "/a")
    scrape.emit(UP, 0)

    assert scrape.has(FILES)
    assert scrape.has(FILES, "/a")
    assert not scrape.has(FILES, "/b")
    assert scrape.has(UP)
    assert not scrape.has(SIZE)


def test_discarding_samples() -> None:
    """Discarded samples make room for others; discarding a missing one is not an error."""
    scrape = new_scrape(max_series=3)
    scrape.emit_all(FILES, {("/a",): 1, ("/b",): 2, ("/c",): 3})

    scrape.discard(FILES, "/a")
    scrape.discard(FILES, "/x")
    scrape.discard(SIZE)
    assert scrape.samples == {FILES: {("/b",): 2, ("/c",): 3}}
    scrape.discard(FILES)
    assert not scrape.has(FILES)
    scrape.emit_all(FILES, {("/d",): 1, ("/e",): 2, ("/f",): 3})

    assert scrape.samples == {FILES: {("/d",): 1, ("/e",): 2, ("/f",): 3}}
    assert (scrape.losses, scrape.dropped) == ([], 0)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.replace(UP, 1),
        lambda s: s.discard(UP),
        lambda s: s.emit_family(FILES, [(("/a",), 1)]),
    ],
    ids=["replace", "discard", "family"],
)
def test_nothing_changes_when_the_scrape_is_over(change: Callable[[Scrape], None]) -> None:
    """After the deadline `replace` and `discard` raise, because the page is being rendered."""
    scrape = new_scrape()
    scrape.emit(UP, 0)
    scrape.closed = True

    with pytest.raises(DeadlineExceeded):
        change(scrape)

    assert scrape.samples == {UP: {(): 0}}


def test_emitting_a_family() -> None:
    """`emit_family` accepts samples of any kind of metric by their keys."""
    scrape = new_scrape()
    sizes = {
        ("_bucket", "q", "1.0"): 2,
        ("_bucket", "q", "+Inf"): 3,
        ("_sum", "q"): 4.5,
        ("_count", "q"): 3,
    }
    delays = {("", "q", "0.5"): 1.5, ("_sum", "q"): 3, ("_count", "q"): 2}

    scrape.emit_family(FILES, [(("/a",), 1), (("/b",), 2)])
    scrape.emit_family(SIZE, sizes.items())
    scrape.emit_family(DELAY, delays.items())

    assert scrape.samples == {FILES: {("/a",): 1, ("/b",): 2}, SIZE: sizes, DELAY: delays}
    assert scrape.losses == []


@pytest.mark.parametrize(
    "key",
    [
        (),
        ("q",),
        ("_bucket", "q"),
        ("_sum", "q", "1.0"),
        ("_max", "q"),
        ("_bucket", "q", "1.0", "x"),
    ],
)
def test_family_with_a_wrong_key(key: tuple[str, ...]) -> None:
    """A sample that does not belong to the metric is left out, and the others are kept."""
    scrape = new_scrape()

    scrape.emit_family(SIZE, [(("_count", "q"), 3), (key, 1)])
    scrape.emit_family(FILES, [(("/a",), 1), (("/a", "x"), 1)])

    assert scrape.samples == {SIZE: {("_count", "q"): 3}, FILES: {("/a",): 1}}
    assert scrape.losses == [
        ("invalid_sample", f"size_bytes: {key!r} is not the key of a histogram"),
        ("invalid_sample", "files takes 1 labels (path), got 2"),
    ]


def test_distribution_of_a_family_without_room() -> None:
    """A distribution that does not fit is left out as a whole; the others of the family are served."""
    scrape = new_scrape(max_series=3)
    first = {("_bucket", "a", "+Inf"): 3, ("_sum", "a"): 4.5, ("_count", "a"): 3}
    second = {("_bucket", "b", "+Inf"): 3, ("_sum", "b"): 4.5, ("_count", "b"): 3}

    scrape.emit_family(SIZE, [*first.items(), *second.items()])

    assert scrape.samples == {SIZE: first}
    assert scrape.dropped == 3
