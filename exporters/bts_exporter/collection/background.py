"""A collector that is too slow for scrapes: collected at its own interval, served with its age."""

from __future__ import annotations

import threading
import time

from bts_exporter.collection.outcome import Outcome
from bts_exporter.collection.runner import Run, Runner, Snapshot
from bts_exporter.collection.worker import Lane
from bts_exporter.plugin import Collector
from bts_exporter.settings.loader import Common


class BackgroundRunner(Runner):
    """A runner whose scrapes get the last collection that ended; only the first one is waited for."""

    lane: Lane

    def __init__(self, collector: Collector, kind: str, common: Common, interval: float) -> None:
        """Give the seconds between the beginnings of two collections."""
        super().__init__(collector, kind, common, lane=None)
        self._interval = interval
        self._latest: Run | None = None
        self._stopped = threading.Event()

    def start(self) -> None:
        """Begin to collect."""
        super().start()
        self.current = self._next_run()
        self._submit_refresh()

    def stop(self, patience: float = 0.0) -> Lane:
        """End after the collection under way."""
        self._stopped.set()
        return super().stop(patience)

    def begin(
        self,
        deadline: float,  # noqa: ARG002  # its collections have a deadline of their own
        shared: list[Run] | None = None,  # noqa: ARG002  # and a thread
        *,
        again: bool = False,  # noqa: ARG002  # and do not begin for a scrape
    ) -> Run:
        """Return the last collection that ended, or the very first one while it is under way."""
        current = self.current
        if current is None:
            return self._next_run().fail("busy", "not started yet")
        self._repair()
        if self.lane.idle:  # there was no thread for it, or it was interrupted
            self._submit_refresh()
        if not current.ended and time.monotonic() >= current.deadline:
            current.expire()
        return self._latest or current

    def was_hurried(self, run: Run, patience: float) -> bool:  # noqa: ARG002  # it has its interval
        """Return that no scrape's patience matters to a collection in the background."""
        return False

    def look(self, run: Run) -> Snapshot:
        """Return what `run` found, its age, and how the newest collection fares."""
        if not run.ended:
            return run.snapshot(age=0.0)
        outcome = self.outcome or Outcome()
        age = time.monotonic() - run.ended_at
        return Snapshot(self, outcome, run.scrape.samples, run.duration, age)

    def _submit_refresh(self) -> None:
        if self._stopped.is_set():
            return
        try:
            self.lane.submit(self._refresh)
        except RuntimeError as error:
            if self.current is not None:
                self.current.fail("os", f"no thread to collect in: {error}")

    def _refresh(self) -> None:
        run = self.current
        if run is not None and run.executing:  # interrupted in it
            run.abandon()
        while not self._stopped.is_set():
            run = self.current
            if run is None or run.ended:
                run = self.current = self._next_run()
            run.execute()
            self._latest = run
            self._stopped.wait(max(run.began + self._interval - time.monotonic(), 0))
            self.current = self._next_run()

    def _next_run(self) -> Run:
        return Run(self, time.monotonic() + self._interval)
