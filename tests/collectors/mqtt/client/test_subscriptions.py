"""The order of subscriptions, and brokers that deny, ignore or close the connection on one."""

from __future__ import annotations

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from bts_collectors.mqtt.client import subscriptions as module
from bts_collectors.mqtt.client.state import ConnectionState
from bts_collectors.mqtt.client.subscriptions import CLOSES_CONNECTION, Subscriptions, Suspects
from bts_collectors.mqtt.client.topics import Subscription

WANTED = (Subscription("$SYS/#"), Subscription("a/#"), Subscription("b/#", 1))


class Connection:
    """One connection to a broker whose replies a test controls."""

    def __init__(self, suspects: Suspects, wanted: tuple[Subscription, ...] = WANTED) -> None:
        self.state = ConnectionState()
        self.requested: list[str] = []
        self.subscriptions = Subscriptions(wanted, suspects, self.state)
        self.subscriptions.begin(self.subscribe)

    def subscribe(self, name: str, _qos: int) -> int:
        """Record a subscription."""
        self.requested.append(name)
        return len(self.requested)

    def answer(self, name: str, code: int = 0) -> None:
        """Answer a subscription."""
        number = self.requested.index(name) + 1
        self.subscriptions.answer(number, [ReasonCode(PacketTypes.SUBACK, identifier=code)])
        self.subscriptions.advance(self.subscribe)


def test_sys_is_subscribed_to_last() -> None:
    """After all other filters are answered."""
    one = Connection(Suspects())
    first = list(one.requested)
    one.answer("a/#")
    between = list(one.requested)
    one.answer("b/#", 1)
    one.answer("$SYS/#")

    assert (first, between) == (["a/#", "b/#"], ["a/#", "b/#"])
    assert one.requested == ["a/#", "b/#", "$SYS/#"]
    assert one.state.granted == {"a/#": 0, "b/#": 1, "$SYS/#": 0}


def test_unanswered_filter_does_not_block_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unanswered filter is reported, and the next one is tried."""
    monkeypatch.setattr(module, "REPLY_SECONDS", -1.0)
    one = Connection(Suspects())
    one.answer("b/#")
    one.subscriptions.advance(one.subscribe)

    assert one.requested == ["a/#", "b/#", "$SYS/#"]
    assert one.state.unanswered == ("a/#", "$SYS/#")
    assert one.subscriptions.settled


def hang_up_until_left_out(suspects: Suspects, name: str) -> int:
    """Connect until a filter that ends the connection is left out; return the number of connections."""
    for attempt in range(10):
        one = Connection(suspects)
        if one.state.denied:
            assert one.state.denied == {name: CLOSES_CONNECTION}
            return attempt
        for requested in one.requested:
            if name in one.requested and requested != name:
                continue  # the connection has ended by then
            if requested != name:
                one.answer(requested)
        one.subscriptions.end(closed_by_broker=name in one.requested)
    return -1


@pytest.mark.parametrize("name", ["$SYS/#", "b/#"])
def test_filter_that_ends_connections_is_found_and_left_out(name: str) -> None:
    """Filters that were unanswered at the same time are soon cleared."""
    suspects = Suspects()

    assert 0 < hang_up_until_left_out(suspects, name) <= 4
    assert not suspects.leaves_out("a/#")


def test_restart_of_the_broker_clears_suspicions() -> None:
    """A restart closes connections too, but refuses attempts in between."""
    suspects = Suspects()
    hang_up_until_left_out(suspects, "$SYS/#")
    suspects.forget()

    assert Connection(suspects).state.denied == {}


def test_filter_is_tried_again_after_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker's permissions may have changed."""
    monkeypatch.setattr(module, "LEAVE_OUT_SECONDS", -1.0)
    suspects = Suspects()
    for _ in range(5):
        suspects.note_hangup(["$SYS/#"])

    assert not suspects.leaves_out("$SYS/#")


def test_connection_closed_by_us_raises_no_suspicion() -> None:
    """Nor does a ping timeout."""
    suspects = Suspects()
    for _ in range(5):
        one = Connection(suspects, WANTED[:1])
        one.subscriptions.end(closed_by_broker=False)

    assert Connection(suspects).state.denied == {}
