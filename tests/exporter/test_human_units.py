from __future__ import annotations

from collections.abc import Callable

import pytest

from bts_exporter import human_units

CASES: dict[Callable[[float | None], str], dict[float | None, str]] = {
    human_units.count: {None: "–", 0: "0", 950: "950", 12_345: "12,345", 1_234_567: "1.23 M", 4e9: "4 G"},  # noqa: RUF001
    human_units.rate: {None: "–", 0: "0/s", 0.001: "<0.01/s", 0.25: "0.25/s", 12.34: "12.3/s", 1234: "1,234/s"},  # noqa: RUF001
    human_units.duration: {
        None: "–",  # noqa: RUF001
        0: "0 s",
        0.04: "<0.1 s",
        4.23: "4.2 s",
        59.4: "59 s",
        200: "3 min 20 s",
        7500: "2 h 5 min",
        273_600: "3 d 4 h",
        1e308: ">1,000,000 d",
    },
    human_units.share: {None: "–", 0.1234: "12.3 %"},  # noqa: RUF001
    human_units.bytes_per_second: {None: "–", 0: "0 B/s", 1_234_000: "1.23 MB/s"},  # noqa: RUF001
}  # fmt: skip


@pytest.mark.parametrize("spell", CASES, ids=lambda it: it.__name__)
def test_numbers(spell: Callable[[float | None], str]) -> None:
    """Numbers are spelled with few digits and a unit; one that is not known is a dash."""
    assert {value: spell(value) for value in CASES[spell]} == CASES[spell]


def test_moments() -> None:
    """A moment of another day has its date."""
    now = 1_796_036_170.0

    assert human_units.moment(now - 60, now) == "10:55:10 UTC"
    assert human_units.moment(now - 100_000, now) == "2026-11-29 07:09 UTC"
    assert human_units.moment(now - 1e308, now) == "before 1970"
