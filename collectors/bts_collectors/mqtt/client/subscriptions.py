"""Subscribes to each filter separately, so that one forbidden filter does not affect the others.

Brokers deny a subscription in SUBACK, do not answer it, or close the connection (AWS IoT does so for
filters that its policy forbids, and for `$SYS`). A filter without SUBACK at the end of a connection is
suspect: the next connection subscribes to it after all others, one suspect at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from time import monotonic

from paho.mqtt.reasoncodes import ReasonCode

from bts_collectors.mqtt.client.state import ConnectionState
from bts_collectors.mqtt.client.topics import Subscription

log = logging.getLogger(__name__)

#: Seconds to wait for SUBACK before the next suspect is tried and the filter counts as unanswered.
REPLY_SECONDS = 2.0
#: Connections that a filter may end before it is left out, and for how long it is left out.
MAX_HANGUPS = 2
LEAVE_OUT_SECONDS = 3600.0
CLOSES_CONNECTION = "the broker closes the connection on this subscription"
#: Reason codes from here on are failures (MQTT 5, 2.4).
_DENIED = 128

#: Sends SUBSCRIBE for a filter and QoS; returns the packet identifier.
Subscribe = Callable[[str, int], int | None]


class Suspects:
    """Filters that may make the broker close the connection; kept across connections."""

    def __init__(self, broker: str = "") -> None:
        """Take the broker's address, for the log. At first only `$SYS` is suspect."""
        self._broker = broker
        self._denied: dict[str, str] = {}
        self._hangups: dict[str, int] = {}
        self._left_out_until: dict[str, float] = {}

    def __contains__(self, filter_: str) -> bool:
        return filter_ in self._hangups or filter_.startswith("$SYS")

    def leaves_out(self, filter_: str) -> bool:
        """Return whether the filter ended too many connections recently."""
        return monotonic() < self._left_out_until.get(filter_, 0.0)

    def note_hangup(self, requested: Iterable[str]) -> None:
        """Record the filters without SUBACK when the broker closed the connection."""
        waiting = list(requested)
        for name in waiting:
            before = self._hangups.setdefault(name, 0)
            if len(waiting) == 1:
                self._hangups[name] = before + 1
            if self._hangups[name] >= MAX_HANGUPS:
                self._left_out_until[name] = monotonic() + LEAVE_OUT_SECONDS

    def forget(self) -> None:
        """Clear all suspicions: the broker was restarted, which closes connections as well."""
        self._hangups.clear()
        self._left_out_until.clear()

    def log_denied(self, filter_: str, why: str) -> None:
        """Log a denied filter once; a collection in which only `$SYS` is denied has not failed."""
        if self._denied.get(filter_) != why:
            self._denied[filter_] = why
            log.warning("%s: subscription to %s denied: %s", self._broker, filter_, why)

    def clear(self, filter_: str) -> None:
        """Clear a filter: the broker has answered it."""
        self._hangups.pop(filter_, None)
        self._left_out_until.pop(filter_, None)


class Subscriptions:
    """The subscriptions of one connection."""

    def __init__(
        self, wanted: Iterable[Subscription], suspects: Suspects, state: ConnectionState
    ) -> None:
        """Take the subscriptions to make."""
        self._wanted = list(wanted)
        self._suspects = suspects
        self._state = state
        self._later: list[Subscription] = []
        self._requested: dict[int, str] = {}  # by packet identifier
        self._reply_deadline = 0.0

    def begin(self, subscribe: Subscribe) -> None:
        """Subscribe to every filter that is not suspect."""
        for subscription in self._wanted:
            if self._suspects.leaves_out(subscription.filter):
                self._deny(subscription.filter, CLOSES_CONNECTION)
            elif subscription.filter in self._suspects:
                self._later.append(subscription)
            else:
                self._request(subscribe, subscription)
        self.advance(subscribe)

    def advance(self, subscribe: Subscribe) -> None:
        """Subscribe to the next suspect if no SUBACK is outstanding, or one is overdue."""
        late = monotonic() > self._reply_deadline
        if self._later and (late or not self._requested):
            # `$SYS` last: most brokers do not have it.
            self._later.sort(key=lambda later: later.filter.startswith("$SYS"))
            self._request(subscribe, self._later.pop(0))
        elif late and self._requested:
            self._state.unanswered = self.waiting

    def answer(self, number: int, codes: list[ReasonCode]) -> None:
        """Handle the SUBACK with this packet identifier."""
        name = self._requested.pop(number, None)
        if name is None:
            return
        self._suspects.clear(name)
        code = codes[0] if codes else None
        if code is None or code.value >= _DENIED:
            self._deny(name, f"{code} ({code.value})" if code else "SUBACK without a reason code")
        else:
            self._state.granted = self._state.granted | {name: code.value}
        if self._state.unanswered:
            self._state.unanswered = self.waiting

    @property
    def waiting(self) -> tuple[str, ...]:
        """Return the filters without SUBACK."""
        return tuple(self._requested.values())

    @property
    def settled(self) -> bool:
        """Return whether every filter that is not suspect was answered, or is overdue."""
        waits = any(name not in self._suspects for name in self._requested.values())
        return not waits or monotonic() > self._reply_deadline

    def end(self, *, closed_by_broker: bool) -> None:
        """Handle the end of the connection; `closed_by_broker` if the broker closed it."""
        if closed_by_broker and self._requested:
            self._suspects.note_hangup(self._requested.values())

    def _request(self, subscribe: Subscribe, subscription: Subscription) -> None:
        number = subscribe(subscription.filter, subscription.qos)
        if number is not None:
            self._requested[number] = subscription.filter
            self._reply_deadline = monotonic() + REPLY_SECONDS

    def _deny(self, name: str, why: str) -> None:
        self._suspects.log_denied(name, why)
        self._state.denied = self._state.denied | {name: why}
        self._state.granted = self._state.granted | {name: -1}
