"""A collector that is too slow for scrapes: collected at its own interval, served with its age."""

from __future__ import annotations

import threading
import time

from bts_exporter.collection.collection import Collection
from bts_exporter.collection.outcome import Outcome
from bts_exporter.collection.runner import Runner, Snapshot
from bts_exporter.collection.worker import Worker
from bts_exporter.plugin import Collector
from bts_exporter.settings.loader import Common


class BackgroundRunner(Runner):
    """A runner whose scrapes get the last collection that ended; only the first one is waited for."""

    worker: Worker

    def __init__(self, collector: Collector, kind: str, common: Common, interval: float) -> None:
        """Give the seconds between the beginnings of two collections."""
        super().__init__(collector, kind, common)
        self._interval = interval
        self._latest: Collection | None = None
        self._stopped = threading.Event()

    def start(self) -> None:
        """Begin to collect."""
        super().start()
        self.current = self._next_collection()
        self._submit_refresh()

    def stop(self, timeout: float = 0.0) -> Worker:
        """End after the collection under way."""
        self._stopped.set()
        return super().stop(timeout)

    def begin(
        self,
        deadline: float,  # noqa: ARG002  # its collections have a deadline of their own
        shared: list[Collection] | None = None,  # noqa: ARG002  # and a thread
        *,
        again: bool = False,  # noqa: ARG002  # and do not begin for a scrape
    ) -> Collection:
        """Return the last collection that ended, or the very first one while it is under way."""
        current = self.current
        if current is None:
            return self._next_collection().fail("busy", "not started yet")
        self._repair()
        if self.worker.idle:  # there was no thread for it, or it was interrupted
            self._submit_refresh()
        if not current.ended and time.monotonic() >= current.deadline:
            current.expire()
        return self._latest or current

    def was_hurried(self, collection: Collection, timeout: float) -> bool:  # noqa: ARG002  # it has its interval
        """Return False: no scrape's timeout matters to a collection in the background."""
        return False

    def snapshot(self, collection: Collection) -> Snapshot:
        """Return the samples of `collection`, their age, and how the newest collection ended."""
        result = collection.result()
        if not collection.ended:
            return Snapshot(self, *result, age=0.0)
        age = time.monotonic() - collection.ended_at
        samples, duration = collection.scrape.samples, collection.duration
        return Snapshot(self, self.outcome or Outcome(), samples, duration, age)

    def _submit_refresh(self) -> None:
        if self._stopped.is_set():
            return
        try:
            self.worker.submit(self._refresh)
        except RuntimeError as error:
            if self.current is not None:
                self.current.fail("os", f"no thread to collect in: {error}")

    def _refresh(self) -> None:
        collection = self.current
        if collection is not None and collection.executing:  # interrupted in it
            collection.abandon()
        while not self._stopped.is_set():
            collection = self.current
            if collection is None or collection.ended:
                collection = self.current = self._next_collection()
            collection.execute()
            self._latest = collection
            self._stopped.wait(max(collection.began + self._interval - time.monotonic(), 0))
            self.current = self._next_collection()

    def _next_collection(self) -> Collection:
        return self._new_collection(time.monotonic() + self._interval)
