"""When a broker is up, and the error if it is not."""

from dataclasses import dataclass, field
from threading import Event

import pytest

from bts_collectors.mqtt.client.state import ConnectionState, Failure
from bts_collectors.mqtt.diagnosis import Health
from bts_collectors.mqtt.sys.values import SysValues
from bts_exporter import TargetError, Url

URL = Url("mqtt", "broker.example", 1883)
GRANTED = {"$SYS/#": 0}


@dataclass
class Running:
    """The attributes of a network thread that Health reads."""

    state: ConnectionState
    alive: bool = True


@dataclass
class Returned:
    """A canary whose last message came back some seconds ago."""

    seconds: float = field(default=float("inf"))

    def age_seconds(self) -> float:
        """Return the seconds."""
        return self.seconds


def heard(*topics: str) -> SysValues:
    """Return values after a message on each of `topics`."""
    values = SysValues(Event())
    for topic in topics:
        values.receive(topic, b"1")
    return values


def why_down(
    state: ConnectionState,
    values: SysValues | None,
    canary: Returned | None = None,
    *,
    listens: bool = False,
) -> str:
    """Return reason and message if the broker is down; "" if it is up."""
    found = health(state, values, canary, listens=listens).why_down()
    return said(found) if found else ""


def health(
    state: ConnectionState,
    values: SysValues | None,
    canary: Returned | None = None,
    *,
    listens: bool = False,
) -> Health:
    """Return the health of a broker with `stale_after` -1, so that all values are old."""
    return Health(URL, -1, Running(state), values, canary, listens)  # type: ignore[arg-type]


def said(error: TargetError) -> str:
    """Return reason and message without the address."""
    return f"{error.reason}: {str(error).removeprefix(f'{URL}: ')}"


@pytest.mark.parametrize(
    ("state", "values", "expected"),
    [
        (ConnectionState(), heard(), "timeout: no reply to CONNECT yet"),
        (ConnectionState(failure=Failure("auth", f"{URL}: no")), heard(), "auth: no"),
        (
            ConnectionState(connected=True, failure=Failure("refused", "before")),
            heard(),
            "timeout: no reply to SUBSCRIBE to $SYS/#",
        ),
        (
            ConnectionState(
                connected=True, granted={"$SYS/#": -1}, denied={"$SYS/#": "Not authorized (135)"}
            ),
            heard(),
            "noperm: subscription to $SYS/# (Not authorized (135)) denied; allow",
        ),
        (
            ConnectionState(connected=True, granted=GRANTED),
            heard(),
            "noperm: connected, but no message under $SYS/; allow it",
        ),
        (
            ConnectionState(connected=True, granted=GRANTED),
            heard("$SYS/brokers"),
            "protocol: connected, but no $SYS/broker/uptime",
        ),
        (
            ConnectionState(connected=True, granted=GRANTED),
            heard("$SYS/broker/uptime"),
            "timeout: no $SYS/broker/uptime for ",
        ),
    ],
)
def test_cause_of_silence_is_named(
    state: ConnectionState, values: SysValues, expected: str
) -> None:
    """From the state that the network thread recorded."""
    assert why_down(state, values).startswith(expected)


@pytest.mark.parametrize("values", [heard(), heard("$SYS/brokers"), None])
def test_lost_canary_leads_to_its_permissions(values: SysValues | None) -> None:
    """Without an uptime, only the canary shows whether the broker is up."""
    state = ConnectionState(connected=True, granted=GRANTED)

    expected = "timeout: no canary message came back within"
    assert why_down(state, values, Returned()).startswith(expected)


def test_silent_broker_with_a_canary_is_named_by_its_uptime() -> None:
    """A broker that published an uptime before is expected to continue."""
    state = ConnectionState(connected=True, granted=GRANTED)
    error = why_down(state, heard("$SYS/broker/uptime"), Returned())

    assert error.startswith("timeout: no $SYS/broker/uptime for ")


@pytest.mark.parametrize(
    "state",
    [
        ConnectionState(connected=True, granted={"$SYS/#": -1}, denied={"$SYS/#": "no"}),
        ConnectionState(connected=True, granted=GRANTED),
        ConnectionState(connected=True, unanswered=("$SYS/#",)),
    ],
)
@pytest.mark.parametrize("returned", [Returned(-2), None])
def test_broker_without_sys_is_up_by_canary_or_rules(
    state: ConnectionState, returned: Returned | None
) -> None:
    """If $SYS is denied, silent or unanswered, a returning canary or rules are sufficient."""
    assert why_down(state, heard(), returned, listens=True) == ""
    assert health(state, heard(), returned, listens=True).why_incomplete() is None


def test_connection_is_sufficient_without_other_sources() -> None:
    """With `sys: false` and no other settings."""
    assert why_down(ConnectionState(connected=True), None) == ""


def test_subscription_of_a_rule_that_is_denied_is_named() -> None:
    """The broker is up nevertheless."""
    state = ConnectionState(
        connected=True, denied={"bts/#": "Not authorized (135)", "$SYS/#": "no"}
    )
    missing = health(state, None, listens=True).why_incomplete()

    assert missing
    assert said(missing).startswith("noperm: subscription to bts/# (Not authorized (135)) denied;")


def test_subscription_of_a_rule_that_is_not_answered_is_named() -> None:
    """The broker hangs only for this subscription."""
    state = ConnectionState(connected=True, unanswered=("bts/#", "$SYS/#"))
    missing = health(state, None, listens=True).why_incomplete()

    assert missing
    assert said(missing) == "timeout: no reply to SUBSCRIBE to bts/#"


def test_network_thread_that_is_gone_is_the_first_reason() -> None:
    """All other information is outdated."""
    running = Running(ConnectionState(connected=True), alive=False)
    found = Health(URL, 60, running, None, None, listens=True).why_down()  # type: ignore[arg-type]

    assert found
    assert found.reason == "internal"


def test_denied_sys_is_named_where_something_needs_it() -> None:
    """The broker's log and rules for `$SYS` have no other source."""
    state = ConnectionState(connected=True, denied={"$SYS/#": "Not authorized (135)"})
    judge = Health(URL, 60, Running(state), None, None, listens=True, needs_sys=True)  # type: ignore[arg-type]
    missing = judge.why_incomplete()

    assert missing
    assert said(missing).startswith("noperm: subscription to $SYS/# (Not authorized (135)) denied")
