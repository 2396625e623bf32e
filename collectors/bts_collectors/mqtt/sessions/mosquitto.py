"""The file in which mosquitto saves its sessions, read again only when it has changed."""

from __future__ import annotations

import os
import time
from typing import BinaryIO

from bts_collectors.mqtt.client import errors
from bts_collectors.mqtt.sessions import metrics, mosquitto_db
from bts_collectors.mqtt.sessions.metrics import Queue
from bts_collectors.mqtt.sessions.mosquitto_db import SavedQueue
from bts_exporter import CollectorConfig, Duration, Metric, Scrape, gauge

#: Bytes read at a time: payloads, which are most of the file, are skipped.
_BUFFER = 64 * 1024

QUEUED = gauge(
    "mosquitto_client_queued_messages",
    "Messages for a client with a persistent session that were not sent yet and have not expired (mosquitto.db).",
    "client_id",
)
SAVED = gauge(
    "mosquitto_persistence_saved_timestamp_seconds",
    "When the broker saved its sessions, in Unix time: the queues of clients are of then.",
)
METRICS: tuple[Metric, ...] = (QUEUED, SAVED, *metrics.METRICS)


def _open(file: str, flags: int) -> int:
    """Open a file; the opening of a pipe does not wait for somebody to write to it."""
    return os.open(file, flags | os.O_NONBLOCK)


class PersistenceConfig(CollectorConfig, frozen=True):
    """Where mosquitto saves its sessions, and when that is too long ago to show."""

    file: str = "/var/lib/mosquitto/mosquitto.db"
    stale_after: Duration = Duration(3600)


class SavedSessions:
    """The queue of each client that has a persistent session, as of the last time it was saved."""

    def __init__(self, config: PersistenceConfig) -> None:
        """Keep the settings; no I/O here."""
        self._config = config
        self._version: tuple[int, ...] = ()
        self._waiting: dict[str, SavedQueue] = {}

    def emit(self, scrape: Scrape) -> None:
        """Emit the queues; TargetError where the file cannot be read, or is too old."""
        file = self._config.file
        try:
            saved = self._refresh(scrape.remaining() / 2)
        except OSError as error:
            raise errors.sessions_unreadable(file, error) from error
        except mosquitto_db.DamagedError as error:
            raise errors.sessions_damaged(file, error) from error
        scrape.emit(SAVED, saved)
        age = time.time() - saved
        if age > self._config.stale_after:
            raise errors.sessions_too_old(file, age)
        now = time.time()
        queues = {
            name: Queue(of.queued_at(now), of.in_flight) for name, of in self._waiting.items()
        }
        for name in metrics.emit(scrape, queues):
            scrape.emit(QUEUED, queues[name].waiting or 0, name)

    def _refresh(self, seconds: float) -> float:
        """Read the file if it is another than before; return when it was written, in Unix time."""
        with open(self._config.file, "rb", _BUFFER, opener=_open) as stream:
            status = os.fstat(stream.fileno())
            version = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
            if version != self._version:
                self._waiting = self._read(stream, seconds)
                self._version = version
        return status.st_mtime

    def _read(self, stream: BinaryIO, seconds: float) -> dict[str, SavedQueue]:
        end = time.monotonic() + seconds

        def check() -> None:
            if time.monotonic() > end:
                raise errors.sessions_too_many(self._config.file, seconds)

        return mosquitto_db.read(stream, check)
