"""A collector that is too slow for scrapes: collected at its own interval, served with its age."""

from __future__ import annotations

import threading
import time

from bts_exporter.config import Common
from bts_exporter.lanes import Lane
from bts_exporter.plugin import Collector
from bts_exporter.runner import Outcome, Run, Runner, Snapshot


class BackgroundRunner(Runner):
    """A runner whose scrapes get the last collection that ended; only the first one is waited for."""

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
        try:
            self.lane.submit(self._refresh)
        except RuntimeError as error:
            self.current.fail("os", f"no thread to collect in: {error}")

    def stop(self, patience: float = 0.0) -> Lane:
        """End after the collection under way."""
        self._stopped.set()
        return super().stop(patience)

    def begin(self, deadline: float, shared: list[Run] | None = None) -> Run:  # noqa: ARG002  # a collection of its own
        """Return the last collection that ended, or the very first one while it is under way."""
        current = self.current
        if current is None:
            return self._next_run().fail("busy", "not started yet")
        if not current.ended and time.monotonic() >= current.deadline:
            current.expire()
        return self._latest or current

    def look(self, run: Run) -> Snapshot:
        """Return what `run` found, its age, and how the newest collection fares."""
        if not run.ended:
            return run.snapshot(age=0.0)
        outcome = self.outcome or Outcome()
        age = time.monotonic() - run.ended_at
        return Snapshot(self, outcome, run.scrape.samples, run.duration, age)

    def _refresh(self) -> None:
        while not self._stopped.is_set():
            run = self.current or self._next_run()
            run.execute()
            self._latest = run
            self._stopped.wait(max(run.began + self._interval - time.monotonic(), 0))
            self.current = self._next_run()

    def _next_run(self) -> Run:
        return Run(self, time.monotonic() + self._interval)
