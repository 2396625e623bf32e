"""Subscribes to one filter after the other, so that one that the broker dislikes costs no other.

Brokers refuse a subscription (SUBACK), never answer it, or close the connection (AWS IoT does for
what its policy forbids, and for `$SYS`). A filter that was unanswered when the connection ended is
suspect: the next time it is asked for by itself, after all others.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from time import monotonic

from paho.mqtt.reasoncodes import ReasonCode

from bts_collectors.mqtt.client.state import ConnectionState
from bts_collectors.mqtt.client.topics import Subscription

log = logging.getLogger(__name__)

#: Seconds to wait for an answer before the next suspect is asked for, or it counts as unanswered.
REPLY_SECONDS = 2.0
#: Times that a filter asked for by itself ends the connection before it is left out, and for how long.
MAX_HANGUPS = 2
LEAVE_OUT_SECONDS = 3600.0
HUNG_UP = "the broker closes the connection when it is asked for"
#: Codes from here on are refusals (MQTT 5, 2.4).
_DENIED = 128

#: Sends SUBSCRIBE for one filter and QoS; returns the number of the packet.
Subscribe = Callable[[str, int], int | None]


class Suspects:
    """Filters that may make the broker close the connection; outlives connections."""

    def __init__(self, broker: str = "") -> None:
        """Begin with `$SYS` only; `broker` is its address, for the log."""
        self._broker = broker
        self._denied: dict[str, str] = {}
        self._hangups: dict[str, int] = {}
        self._left_out_until: dict[str, float] = {}

    def __contains__(self, filter_: str) -> bool:
        return filter_ in self._hangups or filter_.startswith("$SYS")

    def leaves_out(self, filter_: str) -> bool:
        """Return whether the filter has ended too many connections of late."""
        return monotonic() < self._left_out_until.get(filter_, 0.0)

    def note_hangup(self, requested: Iterable[str]) -> None:
        """Take note of filters that were unanswered when the broker closed the connection."""
        waiting = list(requested)
        for name in waiting:
            before = self._hangups.setdefault(name, 0)
            if len(waiting) == 1:
                self._hangups[name] = before + 1
            if self._hangups[name] >= MAX_HANGUPS:
                self._left_out_until[name] = monotonic() + LEAVE_OUT_SECONDS

    def forget(self) -> None:
        """Suspect nothing any more: the broker was restarted, which closes connections as well."""
        self._hangups.clear()
        self._left_out_until.clear()

    def log_denied(self, filter_: str, why: str) -> None:
        """Log that a filter is denied, once; `$SYS` may be denied without any failure."""
        if self._denied.get(filter_) != why:
            self._denied[filter_] = why
            log.warning("%s: subscription to %s denied: %s", self._broker, filter_, why)

    def clear(self, filter_: str) -> None:
        """Take note that the broker has answered."""
        self._hangups.pop(filter_, None)
        self._left_out_until.pop(filter_, None)


class Subscriptions:
    """The subscriptions of one connection."""

    def __init__(
        self, wanted: Iterable[Subscription], suspects: Suspects, state: ConnectionState
    ) -> None:
        """Give what to subscribe to."""
        self._wanted = list(wanted)
        self._suspects = suspects
        self._state = state
        self._later: list[Subscription] = []
        self._requested: dict[int, str] = {}  # by number of the packet
        self._reply_deadline = 0.0

    def begin(self, subscribe: Subscribe) -> None:
        """Ask for all that are no suspects."""
        for one in self._wanted:
            if self._suspects.leaves_out(one.filter):
                self._deny(one.filter, HUNG_UP)
            elif one.filter in self._suspects:
                self._later.append(one)
            else:
                self._ask(subscribe, one)
        self.advance(subscribe)

    def advance(self, subscribe: Subscribe) -> None:
        """Ask for the next suspect where nothing waits for an answer, or has for too long."""
        late = monotonic() > self._reply_deadline
        if self._later and (late or not self._requested):
            # Those of `$SYS` last: most brokers have none.
            self._later.sort(key=lambda one: one.filter.startswith("$SYS"))
            self._ask(subscribe, self._later.pop(0))
        elif late and self._requested:
            self._state.unanswered = self.waiting

    def answer(self, number: int, codes: list[ReasonCode]) -> None:
        """Take the broker's answer to the packet with this number."""
        name = self._requested.pop(number, None)
        if name is None:
            return
        self._suspects.clear(name)
        code = codes[0] if codes else None
        if code is None or code.value >= _DENIED:
            self._deny(name, f"{code} ({code.value})" if code else "an answer without a code")
        else:
            self._state.granted = self._state.granted | {name: code.value}
        if self._state.unanswered:
            self._state.unanswered = self.waiting

    @property
    def waiting(self) -> tuple[str, ...]:
        """Return the filters that the broker has not answered."""
        return tuple(self._requested.values())

    @property
    def settled(self) -> bool:
        """Return whether all but suspects were replied, or had the time for it."""
        waits = any(name not in self._suspects for name in self._requested.values())
        return not waits or monotonic() > self._reply_deadline

    def end(self, *, hung_up: bool) -> None:
        """Take note of the end of the connection, and whether the broker closed it."""
        if hung_up and self._requested:
            self._suspects.note_hangup(self._requested.values())

    def _ask(self, subscribe: Subscribe, one: Subscription) -> None:
        number = subscribe(one.filter, one.qos)
        if number is not None:
            self._requested[number] = one.filter
            self._reply_deadline = monotonic() + REPLY_SECONDS

    def _deny(self, name: str, why: str) -> None:
        self._suspects.log_denied(name, why)
        self._state.denied = self._state.denied | {name: why}
        self._state.granted = self._state.granted | {name: -1}
