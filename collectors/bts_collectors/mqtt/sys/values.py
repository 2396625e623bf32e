"""The broker's newest values, how fresh they are, and whether they outlive a reconnection."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event, Lock

from bts_collectors.mqtt.client.router import Handler, Publish
from bts_collectors.mqtt.client.topics import Subscription
from bts_collectors.mqtt.sys import topics as systopics
from bts_collectors.mqtt.sys.topics import SysValue

#: Seconds without a value after which a burst of them is taken to be through: the broker writes
#: each message by itself, and without TCP_NODELAY on its side they come up to 90 ms apart.
QUIET_SECONDS = 0.1


class SysValues:
    """The values of `$SYS`: written by the network thread, read by collections.

    The broker publishes what changed and nothing else, all of it in one burst.
    """

    subscriptions = (Subscription(systopics.FILTER),)

    def __init__(self, replied: Event, clock: Callable[[], float] = time.monotonic) -> None:
        """Set `replied` as soon as there are values to show."""
        #: Whether anything under `$SYS/` came since the connection was made.
        self.heard = False
        #: Whether an uptime was among it.
        self.gave_uptime = False
        #: Unix time of the last uptime; None before the first.
        self.updated: float | None = None
        self._replied = replied
        self._clock = clock
        self._lock = Lock()
        self._values: dict[str, SysValue] = {}
        self._before: dict[str, SysValue] = {}  # of the connections before this one
        self._last_value = float("-inf")
        self._last_uptime = float("-inf")
        self._silent_since: float | None = None

    def begin(self) -> None:
        """Take note of a new connection: it may be to another process than the one before."""
        self.heard = self.gave_uptime = False
        with self._lock:
            self._before, self._values = self._before | self._values, {}
        if self._silent_since is None:  # else the connection before ended without an uptime
            self._silent_since = self._last_value

    def route(self, topic: str) -> Handler | None:
        """Return what keeps the values of a topic under `$SYS/`."""
        if not topic.startswith("$SYS/"):
            return None

        def receive(payload: bytes, _retained: bool, _properties: bytes = b"") -> None:  # noqa: FBT001  # Handler
            self.receive(topic, payload)

        return receive

    def tick(self, publish: Publish) -> None:
        """Do nothing: the broker speaks when it will."""

    def receive(self, topic: str, payload: bytes) -> None:
        """Keep the value that a message has; one that has none any more takes the old one away."""
        self.heard = True
        value = systopics.read(topic, payload)
        with self._lock:
            self._keep(topic, value)
        if value is not None:
            self._last_value = self._clock()
            if topic == systopics.UPTIME:
                self._note_uptime(value.value)

    def latest(self) -> dict[str, SysValue]:
        """Return the newest values by topic."""
        with self._lock:
            return self._before | self._values

    def age_seconds(self) -> float | None:
        """Return the seconds since the broker last gave its uptime; None before the first."""
        age = self._clock() - self._last_uptime
        return None if age == float("inf") else age

    def settle(self, seconds: float) -> None:
        """Wait until a burst of values is through, so that counts of one burst are seen together."""
        end = self._clock() + seconds
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

    def _note_uptime(self, uptime: float) -> None:
        self._last_uptime = self._last_value
        self.gave_uptime = True
        self.updated = time.time()
        if self._silent_since is not None:
            # Mosquitto before 2.0.16 lets its retained values expire after a minute: what did not
            # change is not sent again to a client that comes back, and is true all the same unless
            # the broker is younger than our silence.
            if uptime <= self._last_value - self._silent_since:
                with self._lock:
                    self._before = {}
            self._silent_since = None
        self._replied.set()
