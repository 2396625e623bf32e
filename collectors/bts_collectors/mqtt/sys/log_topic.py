"""What mosquitto logs and publishes nowhere else: whose messages it has begun to drop.

It logs the first drop of each time that a client's queue is full, under `$SYS/broker/log/N`,
where `log_dest topic` is set.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from threading import Lock

from bts_collectors.mqtt.client.router import Handler, Publish
from bts_collectors.mqtt.client.topics import Subscription
from bts_exporter import Metric, Scrape, counter, gauge

#: Of notices; `$SYS/#` reaches it.
TOPIC = "$SYS/broker/log/N"
#: Clients that are remembered, the latest that lost messages; any client may choose any id.
MAX_CLIENTS = 1000
MAX_CLIENT_ID = 128  # characters

_DROPPING = re.compile(rb"(?:.*: )?Outgoing messages are being dropped for client (.+)\.")

EPISODES = counter(
    "mosquitto_drop_episodes_total",
    "Times that the broker began to drop messages for a client, as it logs them since our start.",
)
CLIENT_EPISODES = counter(
    "mosquitto_client_drop_episodes_total",
    f"As mosquitto_drop_episodes_total, by client: the latest {MAX_CLIENTS} of them.",
    "client_id",
)
LAST_EPISODE = gauge(
    "mosquitto_client_last_drop_timestamp_seconds",
    "When the broker last began to drop messages for a client, in Unix time.",
    "client_id",
)
METRICS: tuple[Metric, ...] = (EPISODES, CLIENT_EPISODES, LAST_EPISODE)


def dropping(payload: bytes) -> str | None:
    """Return the id of the client that a notice says messages are dropped for; None of others."""
    notice = _DROPPING.fullmatch(payload)
    return notice[1].decode("utf-8", "replace") if notice else None


class DropEpisodes:
    """The times when clients began to lose messages: fed by the network thread, shown by collections."""

    subscriptions = (Subscription(TOPIC),)

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """Give the clock of the timestamps."""
        self._clock = clock
        self._lock = Lock()
        self._total = 0
        self._clients: dict[str, tuple[int, float]] = {}  # the latest to lose messages is last

    def begin(self) -> None:
        """Take note of a new connection: counts go on."""

    def route(self, topic: str) -> Handler | None:
        """Return what takes the broker's notices."""
        return self._receive if topic == TOPIC else None

    def tick(self, publish: Publish) -> None:
        """Do nothing: nothing is due."""

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
        """Emit how often messages began to be dropped, and for whom."""
        with self._lock:
            total, clients = self._total, dict(self._clients)
        scrape.emit(EPISODES, total)
        for client_id, (episodes, last) in clients.items():
            scrape.emit(CLIENT_EPISODES, episodes, client_id)
            scrape.emit(LAST_EPISODE, last, client_id)
