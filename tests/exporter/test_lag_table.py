"""The table of the command `lag`."""

from __future__ import annotations

from pathlib import Path

import pytest

from bts_exporter.lag_report import Destination, LagReport
from bts_exporter.lag_table import duration, table

PAGE = (Path(__file__).parents[2] / "docs/lag.md").read_text()
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
    """The table is that of the page about lag: aligned, in human units; what is not known is no number."""
    predictions = row(
        target="cache",
        destination="bts:predictions",
        group="bts-api",
        backlog_messages=12345,
        lag_seconds=125,
        lag_method="message_time",
        published_per_second=8.333,
        consumed_per_second=0,
        drains=False,
    )
    orders = row(
        system="rabbitmq",
        destination="orders",
        backlog_messages=210,
        lag_seconds=42,
        lag_method="interpolation",
        published_per_second=50,
        consumed_per_second=55,
        drain_seconds=4,
        drains=True,
    )
    celery = row(
        target="cache",
        destination="celery",
        backlog_messages=3,
        lag_seconds=10,
        lag_method="lower_bound",
    )
    mails = row(system="rabbitmq", destination="mails", backlog_messages=1)

    sample = PAGE.partition("$ bts-exporter lag\n")[2].partition("```")[0]
    assert lines(predictions, orders, celery, mails) == sample.splitlines()


def test_empty_table() -> None:
    """Without destinations the table says so."""
    assert lines() == ["no destinations"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.04, "<0.1s"),
        (1e308, ">1000000d"),
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


def test_name_without_end() -> None:
    """One name of a megabyte does not make a megabyte of each line; names of 255 characters are whole."""
    named = [row(destination="x" * 1_000_000), row(destination="y" * 255)]

    assert max(map(len, lines(*named))) < 500
    assert "y" * 255 in lines(*named)[2]


@pytest.mark.parametrize(
    ("width", "headings"),
    [
        (
            110,
            ["DESTINATION", "GROUP", "BROKER", "WAITING", "LAG", "METHOD", "IN/S", "OUT/S", "DRAINED", "IN"],
        ),
        (80, ["DESTINATION", "GROUP", "WAITING", "LAG", "IN/S", "OUT/S", "DRAINED", "IN"]),
        (60, ["DESTINATION", "GROUP", "WAITING", "LAG"]),
        (30, ["DESTINATION", "LAG"]),
        (15, ["DES..ON", "LAG"]),
    ],
)  # fmt: skip
def test_width(width: int, headings: list[str]) -> None:
    """No line is wider than the terminal: columns are left out, names lose their middle, numbers are whole."""
    name = "orders." + "x" * 90 + ".eu"
    late = row(destination=name, group=name, lag_seconds=88000, backlog_messages=123456)
    shown = lines(late, row(destination="q", lag_seconds=1), width=width)

    assert shown[0].split() == headings
    assert max(map(len, shown)) <= width
    assert "1d 00h" in shown[1]
    if width > 30:
        assert shown[1].startswith("orders.x")
        assert ".eu" in shown[1]
        assert "123k" in shown[1]


def test_wide_characters() -> None:
    """Characters that take two columns, or none, do not break the alignment."""
    shown = lines(
        row(destination="日本語", lag_seconds=3), row(destination="e\u0301", lag_seconds=3)
    )

    assert shown[1].index("redis") + 3 == shown[0].index("BROKER")
    assert shown[2].index("redis") - 1 == shown[0].index("BROKER")
