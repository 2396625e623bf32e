from __future__ import annotations

from dataclasses import dataclass

import pytest

from bts_exporter.live.headline import headline


@dataclass
class Row:
    """A destination."""

    state: str = "ok"
    lag_seconds: float | None = 0.0
    destination: str = "orders"
    group: str = ""


@dataclass
class Source:
    """A collector."""

    id: str = "redis[cache]"
    state: str = "ok"


@pytest.mark.parametrize(
    ("rows", "state", "text"),
    [
        ([], "unknown", "There are no destinations: no queue, stream or client is monitored here."),
        ([Row()], "good", "Nothing is late: 1 destination."),
        (
            [Row("late", 725, group="billing"), Row("late", 400), Row("behind", 70)],
            "bad",
            "2 of 3 destinations are late. A message in \u2068orders (billing)\u2069 has waited for 12 min 5 s.",
        ),
        ([Row("behind", 70), Row()], "warning", "Nothing is late, but \u2068orders\u2069 is 1 min 10 s behind."),
        ([Row("outdated"), Row()], "bad", "The numbers of 1 of 2 destinations are outdated."),
        (
            [Row("no_consumer"), Row()],
            "warning",
            "Nothing is late, but 1 of 2 destinations has messages and no consumer: \u2068orders\u2069.",
        ),
        (
            [Row("lag_unknown"), Row()],
            "warning",
            "Nothing is known to be late, but the lag of 1 of 2 destinations is not known yet.",
        ),
    ],
)  # fmt: skip
def test_answer(rows: list[Row], state: str, text: str) -> None:
    """The answer names how many destinations are late, and the latest with its lag."""
    found = headline(rows, [Source()], collected=True)

    assert (found.state, found.text) == (state, text)


def test_failing_collectors_are_named() -> None:
    """With a failing collector the answer is bad, since there may be destinations that are not known."""
    failing = [Source(name, "failing") for name in ("a", "b", "c", "d")]

    one, many = (headline([Row()], sources, collected=True) for sources in (failing[:1], failing))

    assert (one.state, one.text) == (
        "bad",
        "Nothing is late: 1 destination. A collector fails: \u2068a\u2069.",
    )
    assert many.text.endswith(
        "4 collectors fail: \u2068a\u2069, \u2068b\u2069, \u2068c\u2069 and 1 more."
    )


def test_hostile_name_keeps_its_direction_to_itself() -> None:
    """Marks of direction in a name become escapes, and the name is isolated from the sentence."""
    found = headline([Row("late", 400, destination="gpj.\u202eexe")], [], collected=True)

    assert "\u2068gpj.\\u202eexe\u2069" in found.text


def test_before_the_first_scrape() -> None:
    """Nothing is said before there is data."""
    assert headline([], [], collected=False).text == "Waiting for the first scrape."
