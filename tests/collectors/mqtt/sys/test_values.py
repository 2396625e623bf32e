import time
from threading import Event

import pytest

from bts_collectors.mqtt.sys import topics as systopics
from bts_collectors.mqtt.sys.values import QUIET_SECONDS, SysValues

DROPPED = "$SYS/broker/publish/messages/dropped"


class Clock:
    """A clock that the test moves."""

    now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Return a clock that the test moves."""
    return Clock()


@pytest.fixture
def replied() -> Event:
    """Return the event that is set by the first uptime."""
    return Event()


@pytest.fixture
def values(replied: Event, clock: Clock) -> SysValues:
    """Return the values of a new connection."""
    values = SysValues(replied, clock)
    values.begin()
    return values


def shown(values: SysValues) -> dict[str, float]:
    """Return the values by topic."""
    return {topic: reading.value for topic, reading in values.latest().items()}


def test_nothing_is_known_at_first(values: SysValues) -> None:
    """Without a message there is no value and no age, rather than 0."""
    assert (shown(values), values.age_seconds(), values.updated, values.heard) == (
        {},
        None,
        None,
        False,
    )


def test_newest_value_is_kept(values: SysValues) -> None:
    """A later message of a topic replaces the earlier one."""
    values.receive(DROPPED, b"1")
    values.receive(DROPPED, b"2")

    assert shown(values) == {DROPPED: 2}


def test_value_that_becomes_unreadable_is_gone(values: SysValues) -> None:
    """An invalid payload removes the previous value."""
    values.receive(DROPPED, b"1")
    values.receive(DROPPED, b"?")

    assert shown(values) == {}


def test_age_counts_from_the_last_uptime(values: SysValues, clock: Clock) -> None:
    """Other topics are only published on change, so only the uptime shows that the broker is up."""
    values.receive(systopics.UPTIME, b"5 seconds")
    clock.now += 30
    values.receive(DROPPED, b"1")

    assert values.age_seconds() == 30


def test_collections_wait_for_the_first_uptime(values: SysValues, replied: Event) -> None:
    """No earlier message ends the wait."""
    values.receive(DROPPED, b"1")
    before = replied.is_set()
    values.receive(systopics.UPTIME, b"5 seconds")

    assert (before, replied.is_set()) == (False, True)


def test_invalid_uptime_does_not_count(values: SysValues, replied: Event) -> None:
    """An invalid uptime counts as a message under $SYS, but not as an uptime."""
    values.receive(systopics.UPTIME, b"forever")

    assert (values.heard, values.age_seconds(), replied.is_set()) == (True, None, False)


def test_values_outlive_a_reconnection_to_the_same_broker(values: SysValues, clock: Clock) -> None:
    """A broker with an uptime longer than the silence is the same: unchanged values remain valid."""
    values.receive(systopics.UPTIME, b"500 seconds")
    values.receive(DROPPED, b"7")
    clock.now += 20
    values.begin()
    values.receive(systopics.UPTIME, b"510 seconds")

    assert shown(values) == {systopics.UPTIME: 510, DROPPED: 7}


@pytest.mark.parametrize("uptime", [b"0 seconds", b"19 seconds", b"20 seconds"])
def test_values_do_not_outlive_the_broker(values: SysValues, clock: Clock, uptime: bytes) -> None:
    """A broker with an uptime shorter than the silence has restarted: earlier values are dropped."""
    values.receive(systopics.UPTIME, b"5 seconds")
    values.receive(DROPPED, b"7")
    clock.now += 20
    values.begin()
    values.receive(systopics.STORED, b"35")
    values.receive(systopics.UPTIME, uptime)

    assert shown(values) == {systopics.STORED: 35, systopics.UPTIME: float(uptime.split()[0])}


def test_connection_without_an_uptime_does_not_shorten_the_silence(
    values: SysValues, clock: Clock
) -> None:
    """Messages of a broken connection do not hide a restart."""
    values.receive(systopics.UPTIME, b"500 seconds")
    values.receive(DROPPED, b"7")
    clock.now += 20
    values.begin()
    values.receive("$SYS/broker/version", b"mosquitto version 2.0.11")
    clock.now += 1
    values.begin()
    values.receive(systopics.UPTIME, b"3 seconds")

    assert shown(values) == {systopics.UPTIME: 3}


def test_second_uptime_of_a_connection_drops_nothing(values: SysValues, clock: Clock) -> None:
    """Only the first uptime of a connection is compared with the silence."""
    values.receive(systopics.UPTIME, b"500 seconds")
    values.receive(DROPPED, b"7")
    values.begin()
    values.receive(systopics.UPTIME, b"510 seconds")
    clock.now += 600
    values.receive(systopics.UPTIME, b"511 seconds")

    assert DROPPED in shown(values)


def test_bridges_are_limited(values: SysValues) -> None:
    """Any client may publish states of bridges, so their number is bounded."""
    for number in range(systopics.MAX_BRIDGES + 5):
        values.receive(f"$SYS/broker/connection/{number}/state", b"1")
    values.receive("$SYS/broker/connection/0/state", b"0")

    assert len(shown(values)) == systopics.MAX_BRIDGES
    assert shown(values)["$SYS/broker/connection/0/state"] == 0


def test_settle_waits_for_the_end_of_a_burst() -> None:
    """Counts that belong together are read together."""
    values = SysValues(Event())
    values.receive(DROPPED, b"1")
    received = time.monotonic()
    values.settle(10)

    assert time.monotonic() >= received + QUIET_SECONDS


def test_settle_does_not_wait_for_values_that_are_old(values: SysValues, clock: Clock) -> None:
    """Without a burst there is no wait."""
    values.receive(DROPPED, b"1")
    clock.now += 1
    values.settle(10)

    assert shown(values) == {DROPPED: 1}
