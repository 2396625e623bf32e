"""Client queues from mosquitto's persistence file, read again only after a change."""

from __future__ import annotations

import os
import time
from typing import BinaryIO

from bts_collectors.mqtt.client import errors
from bts_collectors.mqtt.sessions import metrics, mosquitto_db
from bts_collectors.mqtt.sessions.arrivals import Arrivals
from bts_collectors.mqtt.sessions.metrics import Queue
from bts_collectors.mqtt.sessions.mosquitto_db import Saved, SavedQueue
from bts_exporter import CollectorConfig, Duration, Metric, Scrape, gauge

#: Bytes of one read: payloads, which are most of the file, are skipped.
_BUFFER = 64 * 1024

QUEUED = gauge(
    "mosquitto_client_queued_messages",
    "Messages queued for a client with a persistent session: neither sent nor expired (mosquitto.db).",
    "client_id",
)
SAVED = gauge(
    "mosquitto_persistence_saved_timestamp_seconds",
    "Unix time when the broker saved its sessions: the time of the client queues (mosquitto.db).",
)
METRICS: tuple[Metric, ...] = (QUEUED, SAVED, *metrics.METRICS)


def _open(file: str, flags: int) -> int:
    """Open a file; for a pipe, without waiting for a writer."""
    return os.open(file, flags | os.O_NONBLOCK)


class PersistenceConfig(CollectorConfig, frozen=True):
    """Settings of the persistence file."""

    #: The file that mosquitto saves its sessions to (persistence_location).
    file: str = "/var/lib/mosquitto/mosquitto.db"
    #: Age above which the file is too old to be used.
    stale_after: Duration = Duration(3600)
    #: The broker's max_queued_messages; 0 for no limit. Without it, the limit is unknown.
    max_queued_messages: int | None = None

    def __post_init__(self) -> None:
        """Check the range; ValueError explains the problem."""
        if self.max_queued_messages is not None and self.max_queued_messages < 0:
            msg = f"max_queued_messages: must not be negative, got {self.max_queued_messages}"
            raise ValueError(msg)


class SavedSessions:
    """The queues of clients with a persistent session, as of the last save."""

    def __init__(self, config: PersistenceConfig) -> None:
        """Keep the settings; no I/O here."""
        self._config = config
        self._version: tuple[int, ...] = ()
        self._saved: dict[str, SavedQueue] = {}
        self._arrivals = Arrivals()

    def emit(self, scrape: Scrape) -> None:
        """Emit the queues; TargetError if the file cannot be read or is too old."""
        file = self._config.file
        try:
            saved = self._refresh(scrape.remaining())
        except OSError as error:
            raise errors.sessions_unreadable(file, error) from error
        except mosquitto_db.DamagedError as error:
            raise errors.sessions_damaged(file, error) from error
        scrape.emit(SAVED, saved)
        age_seconds = time.time() - saved
        if age_seconds > self._config.stale_after:
            raise errors.sessions_too_old(file, age_seconds)
        now = time.time()
        limit = self._config.max_queued_messages or None
        queues = {
            name: Queue(
                queue.queued_at(now),
                queue.in_flight,
                self._arrivals.age(queue.oldest_at(now), saved, now),
                limit,
            )
            for name, queue in self._saved.items()
        }
        for name in metrics.emit(scrape, queues, effect="reject_new"):
            scrape.emit(QUEUED, queues[name].waiting or 0, name)

    def _refresh(self, timeout_seconds: float) -> float:
        """Read the file if it has changed; return the Unix time at which it was written."""
        with open(self._config.file, "rb", _BUFFER, opener=_open) as stream:
            status = os.fstat(stream.fileno())
            version = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
            if version != self._version:
                self._saved, latest = self._read(stream, timeout_seconds)
                self._arrivals.observe(status.st_mtime, latest)
                self._version = version
        return status.st_mtime

    def _read(self, stream: BinaryIO, timeout_seconds: float) -> Saved:
        deadline = time.monotonic() + timeout_seconds

        def check() -> None:
            if time.monotonic() > deadline:
                raise errors.sessions_too_many(self._config.file, timeout_seconds)

        return mosquitto_db.read(stream, check)
