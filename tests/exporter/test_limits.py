from __future__ import annotations

import re
from time import monotonic

from bts_exporter import Scrape, gauge


def new_scrape(
    *,
    max_series: int = 100,
    allows: re.Pattern[str] | None = None,
    denies: re.Pattern[str] | None = None,
) -> Scrape:
    """Return a scrape with a minute left."""
    return Scrape(monotonic() + 60, max_series=max_series, allows=allows, denies=denies)


def test_series_beyond_the_limit_are_dropped_and_counted() -> None:
    """`max_series` limits all metrics together; the first samples stay."""
    one, two = gauge("one", "One.", ("key",)), gauge("two", "Two.", ("key",))
    scrape = new_scrape(max_series=3)

    for key in "ab":
        scrape.emit(one, 1, key)
        scrape.emit(two, 2, key)
    scrape.emit(one, 1, "c")

    assert scrape.samples == {one: {("a",): 1, ("b",): 1}, two: {("a",): 2}}
    assert scrape.dropped == 2
    assert [reason for reason, _ in scrape.losses] == ["limited"]


def test_availability_metric_is_never_dropped() -> None:
    """A metric named *_up is served beyond the limit, and whatever `allow` leaves out."""
    up, other = gauge("redis_up", "Whether it answers."), gauge("redis_keys", "Keys.", ("db",))
    full = new_scrape(max_series=1)
    filtered = new_scrape(allows=re.compile("nothing"))

    for scrape in (full, filtered):
        for db in "01":
            scrape.emit(other, 1, db)
        scrape.emit(up, 1)

    assert full.samples == {other: {("0",): 1}, up: {(): 1}}
    assert full.dropped == 1
    assert filtered.samples == {up: {(): 1}}


def test_availability_metric_can_be_denied() -> None:
    """A glob in `deny` that matches a metric named *_up removes it."""
    scrape = new_scrape(denies=re.compile("redis_.*"))

    scrape.emit(gauge("redis_up", "Whether it answers."), 1)

    assert scrape.samples == {}
