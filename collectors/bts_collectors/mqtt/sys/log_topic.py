"""The clients for which mosquitto starts to drop messages, from its log messages.

With `log_dest topic`, mosquitto logs the first drop after a client's queue becomes full under
`$SYS/broker/log/N`. No $SYS statistic has this by client.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from threading import Lock

from bts_collectors.mqtt.client.router import Handler, Publish
from bts_collectors.mqtt.client.topics import Subscription
from bts_exporter import Metric, Scrape, counter, gauge

#: Topic of log messages at level notice; `$SYS/#` matches it.
TOPIC = "$SYS/broker/log/N"
#: Limits of the clients kept, the latest to lose messages first: clients choose their own ids.
MAX_CLIENTS = 1000
MAX_CLIENT_ID = 128  # characters

_DROPPING = re.compile(rb"(?:.*: )?Outgoing messages are being dropped for client (.+)\.")

EPISODES = counter(
    "mosquitto_drop_episodes_total",
    "Times that the broker started to drop messages for a client, since the exporter's start (log_dest topic).",
)
CLIENT_EPISODES = counter(
    "mosquitto_client_drop_episodes_total",
    f"Times that the broker started to drop messages for the client (log_dest topic); the latest {MAX_CLIENTS} clients.",
    "client_id",
)
LAST_EPISODE = gauge(
    "mosquitto_client_last_drop_timestamp_seconds",
    "Unix time when the broker last started to drop messages for the client (log_dest topic).",
    "client_id",
)
METRICS: tuple[Metric, ...] = (EPISODES, CLIENT_EPISODES, LAST_EPISODE)


def dropping(payload: bytes) -> str | None:
    """Return the client id in a log message about dropped messages; None for other log messages."""
    notice = _DROPPING.fullmatch(payload)
    return notice[1].decode("utf-8", "replace") if notice else None


class DropEpisodes:
    """Counts drop episodes; the network thread writes, collections read."""

    subscriptions = (Subscription(TOPIC),)

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """Take the clock for the timestamps."""
        self._clock = clock
        self._lock = Lock()
        self._total = 0
        self._clients: dict[str, tuple[int, float]] = {}  # the latest is last

    def begin(self) -> None:
        """Do nothing: counts continue after a reconnection."""

    def route(self, topic: str) -> Handler | None:
        """Return the handler for the broker's log messages."""
        return self._receive if topic == TOPIC else None

    def tick(self, publish: Publish) -> None:
        """Do nothing: there is no periodic work."""

    def _receive(self, payload: bytes, _retained: bool, _properties: bytes = b"") -> None:  # noqa: FBT001  # Handler
        client_id = dropping(payload)
        if client_id is None:
            return
        with self._lock:
            self._total += 1
            if len(client_id) > MAX_CLIENT_ID:
                return
            before, _ = self._clients.pop(client_id, (0, 0.0))
            self._clients[client_id] = before + 1, self._clock()
            if len(self._clients) > MAX_CLIENTS:
                del self._clients[next(iter(self._clients))]

    def emit(self, scrape: Scrape) -> None:
        """Emit the episodes in total and by client."""
        with self._lock:
            total, clients = self._total, dict(self._clients)
        scrape.emit(EPISODES, total)
        for client_id, (episodes, last) in clients.items():
            scrape.emit(CLIENT_EPISODES, episodes, client_id)
            scrape.emit(LAST_EPISODE, last, client_id)
