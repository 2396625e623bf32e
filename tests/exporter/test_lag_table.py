"""The table of the command `lag`."""

from __future__ import annotations

import pytest

from bts_exporter.lag_report import Destination, LagReport
from bts_exporter.lag_table import duration, table

#: A name that clears the screen, changes the direction of writing and begins a new line.
HOSTILE = "\x1b[2J\u202e\u200fevil\nname\x9b31m"


def row(**fields: object) -> Destination:
    """Return a destination."""
    names = {"collector": "redis", "target": "", "system": "redis", "destination": "q", "group": ""}
    return Destination(**(names | fields))  # type: ignore[arg-type]  # fields of one test each


def lines(*rows: Destination, width: int | None = None) -> list[str]:
    """Return the table of these destinations."""
    return table(LagReport(time=0, destinations=list(rows), collectors=[]), width=width)


def test_table() -> None:
    """Columns are aligned, numbers have human units, and what is not known is no number."""
    late = row(
        target="cache",
        destination="orders",
        group="billing",
        backlog_messages=12345,
        lag_seconds=125,
        lag_method="message_time",
        published_per_second=8.333,
        consumed_per_second=0,
        drains=False,
    )
    known_longer = row(lag_seconds=42, lag_method="lower_bound", drain_seconds=4000, drains=True)
    unknown = row(destination="jobs", backlog_messages=3)

    assert lines(late, known_longer, unknown) == [
        "DESTINATION  GROUP    BROKER       WAITING     LAG  METHOD        IN/S  OUT/S  DRAINED IN",
        "orders       billing  redis/cache    12.3k  2m 05s  message_time  8.33      0       never",
        "q            -        redis              -    >42s  lower_bound      -      -      1h 06m",
        "jobs         -        redis              3       ?  -                -      -           -",
    ]


def test_empty_table() -> None:
    """Without destinations the table says so."""
    assert lines() == ["no destinations"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.04, "<0.1s"),
        (4.24, "4.2s"),
        (42, "42s"),
        (59.7, "1m 00s"),
        (3599.6, "1h 00m"),
        (7505, "2h 05m"),
        (90000, "1d 01h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    """Durations have their two largest units."""
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.25, "0.25"),
        (8, "8"),
        (9999, "9999"),
        (1234567, "1.23M"),
        (2.5e9, "2.5G"),
        (999_600, "1M"),
        (1e20, "1e+20"),
    ],
)
def test_numbers(number: float, text: str) -> None:
    """Large numbers have a unit."""
    assert text in lines(row(backlog_messages=number))[1].split()


def test_hostile_names() -> None:
    """Control characters and marks of direction are shown as escapes, in every column."""
    text = "\n".join(
        lines(row(destination=HOSTILE, group=HOSTILE, target=HOSTILE, lag_method=HOSTILE))
    )

    assert text.count("\n") == 1
    assert all(it.isprintable() for it in text.replace("\n", ""))
    assert r"\x1b[2J\u202e\u200fevil\nname\x9b31m" in text


@pytest.mark.parametrize("width", [20, 80, 100])
def test_width(width: int) -> None:
    """No line is wider than the terminal; names lose their middle, and columns stay aligned."""
    name = "orders." + "x" * 90 + ".eu"
    shown = lines(row(destination=name, group=name, lag_seconds=3), row(lag_seconds=1), width=width)

    assert max(map(len, shown)) <= width
    if width == 100:
        assert shown[1].startswith("orders.x")
        assert ".eu  orders.x" in shown[1]
    if width >= 80:
        assert len({line.rindex("  -") for line in shown[1:]}) == 1


def test_wide_characters() -> None:
    """Characters that take two columns, or none, do not break the alignment."""
    shown = lines(
        row(destination="日本語", lag_seconds=3), row(destination="e\u0301", lag_seconds=3)
    )

    assert shown[1].index("redis") + 3 == shown[0].index("BROKER")
    assert shown[2].index("redis") - 1 == shown[0].index("BROKER")
