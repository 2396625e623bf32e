from __future__ import annotations

import math

from bts_collectors.redis.streams.columns import Columns
from bts_exporter import Scrape, gauge

SIZE = gauge("size", "Size.", ("name",))
AGE = gauge("age", "Age.", ("name",))


def test_a_sample_for_each_that_is_known() -> None:
    """Each value belongs to the object at the same position; None gives no sample, and 0 does."""
    scrape = Scrape(math.inf)
    columns = Columns(scrape, [("a",), ("b",), ("c",)])

    columns.emit(SIZE, [1, None, 0])
    columns.emit(AGE, [None, None, None])

    assert scrape.samples == {SIZE: {("a",): 1, ("c",): 0}}
    assert scrape.losses == []


def test_two_objects_with_equal_labels() -> None:
    """Of two objects with the same labels one is served, and the error has their labels."""
    scrape = Scrape(math.inf)

    Columns(scrape, [("a",), ("b",), ("a",)]).emit(SIZE, [1, 2, 3])

    assert scrape.samples == {SIZE: {("a",): 3, ("b",): 2}}
    assert scrape.losses == [
        ("invalid_sample", "two names have the same label values ('a',)"),
    ]
