"""The latest $SYS values, their age, and which of them remain valid after a reconnection."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event, Lock

from bts_collectors.mqtt.client.router import Handler, Publish
from bts_collectors.mqtt.client.topics import Subscription
from bts_collectors.mqtt.sys import topics as systopics
from bts_collectors.mqtt.sys.topics import SysValue

#: Seconds without a value that end a burst: the broker sends each message separately and, without
#: TCP_NODELAY, up to 90 ms apart.
QUIET_SECONDS = 0.1


class SysValues:
    """The latest values of `$SYS`: written by the network thread, read by collections.

    The broker publishes only values that changed, all of them in one burst.
    """

    subscriptions = (Subscription(systopics.FILTER),)

    def __init__(self, replied: Event, clock: Callable[[], float] = time.monotonic) -> None:
        """Take the event to set when the first uptime has arrived."""
        #: Whether any message under `$SYS/` has arrived on this connection.
        self.heard = False
        #: Whether an uptime has arrived on this connection.
        self.gave_uptime = False
        #: Unix time of the last uptime; None before the first.
        self.updated: float | None = None
        self._replied = replied
        self._clock = clock
        self._lock = Lock()
        self._values: dict[str, SysValue] = {}
        self._before: dict[str, SysValue] = {}  # from earlier connections
        self._last_value = float("-inf")
        self._last_uptime = float("-inf")
        self._silent_since: float | None = None

    def begin(self) -> None:
        """Handle a new connection: the broker may have restarted in between."""
        self.heard = self.gave_uptime = False
        with self._lock:
            self._before, self._values = self._before | self._values, {}
        if self._silent_since is None:  # else the previous connection had no uptime either
            self._silent_since = self._last_value

    def route(self, topic: str) -> Handler | None:
        """Return the handler for a topic under `$SYS/`."""
        if not topic.startswith("$SYS/"):
            return None

        def receive(payload: bytes, _retained: bool, _properties: bytes = b"") -> None:  # noqa: FBT001  # Handler
            self.receive(topic, payload)

        return receive

    def tick(self, publish: Publish) -> None:
        """Do nothing: there is no periodic work."""

    def receive(self, topic: str, payload: bytes) -> None:
        """Store the value of a message; an invalid payload removes the previous value."""
        self.heard = True
        value = systopics.read(topic, payload)
        with self._lock:
            self._keep(topic, value)
        if value is not None:
            self._last_value = self._clock()
            if topic == systopics.UPTIME:
                self._note_uptime(value.value)

    def latest(self) -> dict[str, SysValue]:
        """Return the latest values by topic."""
        with self._lock:
            return self._before | self._values

    def age_seconds(self) -> float | None:
        """Return the seconds since the last uptime; None before the first one."""
        age_seconds = self._clock() - self._last_uptime
        return None if age_seconds == float("inf") else age_seconds

    def settle(self, timeout_seconds: float) -> None:
        """Wait until a burst ends, at most `timeout_seconds`, so that its counts are read together."""
        end = self._clock() + timeout_seconds
        while (wait := min(self._last_value + QUIET_SECONDS, end) - self._clock()) > 0:
            time.sleep(wait)

    def _keep(self, topic: str, value: SysValue | None) -> None:
        if value is None:
            self._values.pop(topic, None)
            self._before.pop(topic, None)
        elif value.metric is not systopics.BRIDGE_UP or self._has_room(topic):
            self._values[topic] = value

    def _has_room(self, topic: str) -> bool:
        known = self._before | self._values
        bridges = sum(value.metric is systopics.BRIDGE_UP for value in known.values())
        return topic in known or bridges < systopics.MAX_BRIDGES

    def _note_uptime(self, uptime_seconds: float) -> None:
        self._last_uptime = self._last_value
        self.gave_uptime = True
        self.updated = time.time()
        if self._silent_since is not None:
            # Before 2.0.16, mosquitto's retained values expire after a minute, so that a client that
            # reconnects does not receive unchanged values again. The earlier values remain valid
            # unless the broker restarted since our last value.
            if uptime_seconds <= self._last_value - self._silent_since:
                with self._lock:
                    self._before = {}
            self._silent_since = None
        self._replied.set()
