import pytest

from bts_collectors.mqtt.rules.event_time import LAG, SKEWED, EventLag, EventTime, converter, zone
from bts_collectors.mqtt.rules.payloads import Path, PayloadError
from bts_exporter import Scrape, backlog

WHEN = Path.from_setting("when")


def config(**settings: object) -> EventTime:
    """Return settings."""
    return EventTime(path=WHEN, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "raw"),
    [
        ({}, 1700000000.25),
        ({}, "1700000000.25"),
        ({"unit": "ms"}, 1700000000250),
        ({"unit": "us"}, 1700000000250000),
        ({"unit": "ns"}, 1700000000250000000),
        ({"unit": "iso8601"}, "2023-11-14T22:13:20.25Z"),
        ({"unit": "iso8601"}, "2023-11-14T22:13:20.25"),
        ({"unit": "iso8601"}, "2023-11-15T00:13:20.250+02:00"),
        ({"unit": "iso8601", "tz": "Europe/Prague"}, "2023-11-14T23:13:20.25"),
        ({"format": "%d.%m.%Y %H:%M:%S.%f"}, "14.11.2023 22:13:20.25"),
        ({"format": "%Y-%m-%d %H:%M:%S.%f", "tz": "Europe/Prague"}, "2023-11-14 23:13:20.25"),
    ],
)
def test_time_is_read_in_its_unit(settings: dict[str, object], raw: object) -> None:
    """Numbers in each unit, ISO 8601 and strptime formats, with or without an offset."""
    assert converter(config(**settings))(raw) == pytest.approx(1700000000.25, abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "raw"),
    [
        ({}, "yesterday"),
        ({}, []),
        ({}, "nan"),
        ({"unit": "iso8601"}, "14.11.2023"),
        ({"unit": "iso8601"}, 1700000000),
        ({"format": "%Y"}, "MMXXIII"),
    ],
)
def test_invalid_time_is_counted(settings: dict[str, object], raw: object) -> None:
    """With its own reason: the value may be valid."""
    with pytest.raises(PayloadError) as error:
        converter(config(**settings))(raw)

    assert error.value.reason == "event_time"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"unit": "ms", "format": "%Y"}, "format: set either format or unit"),
        ({"format": "%Y %Q"}, "format: '%Y %Q' is not a valid format of strptime"),
        ({"tz": "Mars/Olympus"}, "tz: 'Mars/Olympus' is not a known time zone"),
        ({"tz": "../../etc/passwd"}, "is not a known time zone"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, object], expected: str) -> None:
    """The message has the key and the cause, and no secrets."""
    with pytest.raises(ValueError, match=expected):
        config(**settings)


def test_zone_of_utc_needs_no_database() -> None:
    """The default works where no time zones are installed."""
    assert str(zone("UTC")) == "UTC"


@pytest.mark.parametrize(
    ("when", "lags", "skewed"),
    [
        (990.0, 1, 0),
        (1000.0, 1, 0),
        (1000.5, 1, 0),
        (1005.0, 1, 0),
        (1005.5, 0, 1),
        (1000 - 4e8, 0, 1),
        (1000 - 3e8, 1, 0),
    ],
)
def test_clock_that_is_wrong_is_counted_and_not_measured(
    when: float, lags: int, skewed: int
) -> None:
    """A time more than 5 s in the future or ten years ago shows a wrong clock, not a delay."""
    lag = EventLag(config(), WHEN, clock=lambda: 1000.0)
    lag.note({"when": when})
    scrape = Scrape(float("inf"))
    lag.emit(scrape, "rule")

    assert scrape.samples[LAG]["_count", "rule"] == lags
    assert scrape.samples[SKEWED] == {("rule",): skewed}


def test_message_without_event_time_is_an_error() -> None:
    """The rule counts it."""
    with pytest.raises(PayloadError, match="nothing at when"):
        EventLag(config(), WHEN).note({})


class Recent:
    """The lag of a rule in the metrics of all brokers, at any time."""

    def __init__(self) -> None:
        self.ticks = 0.0
        self._lag = EventLag(config(), WHEN, clock=lambda: 1000.0, ticks=lambda: self.ticks)

    def arrive(self, lag: float) -> None:
        """Let a message arrive whose event was `lag` seconds ago."""
        self._lag.note({"when": 1000.0 - lag})

    def after(self, seconds: float) -> dict[tuple[str, ...], float] | None:
        """Return the samples after some seconds; None without any."""
        self.ticks += seconds
        scrape = Scrape(float("inf"))
        self._lag.emit_recent(scrape, "rule")
        methods = scrape.samples.get(backlog.LAG_METHOD)
        assert methods in (None, {("mqtt", "rule", "", "event_time"): 1})
        return scrape.samples.get(backlog.LAG_SECONDS)


def test_the_largest_recent_lag_is_in_the_metrics_of_all_brokers() -> None:
    """Of the messages of the last half minute to minute, the one that was latest counts."""
    recent = Recent()
    for lag in (5, 90, 7):
        recent.arrive(lag)

    assert recent.after(0) == {("mqtt", "rule", ""): 90}
    assert recent.after(31) == {("mqtt", "rule", ""): 90}
    recent.arrive(3)
    assert recent.after(0) == {("mqtt", "rule", ""): 90}
    assert recent.after(30) == {("mqtt", "rule", ""): 3}


def test_without_messages_the_lag_is_unknown() -> None:
    """Before the first message and a minute after the last one there is no sample, rather than 0."""
    recent = Recent()
    assert recent.after(100) is None
    recent.arrive(5)

    assert recent.after(60) is None
    recent.arrive(4)
    assert recent.after(0) == {("mqtt", "rule", ""): 4}


def test_a_message_without_lag_is_a_lag_of_0() -> None:
    """A message whose event is now, or a little in the future, is not late."""
    recent = Recent()
    recent.arrive(-1)

    assert recent.after(0) == {("mqtt", "rule", ""): 0}
