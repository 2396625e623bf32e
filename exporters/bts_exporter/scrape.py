"""One scrape: every collector asked at the same time, answered by the deadline, with what there is."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

from bts_exporter.background import BackgroundRunner
from bts_exporter.config import Common
from bts_exporter.errors import SelectionError
from bts_exporter.lanes import Lane
from bts_exporter.plugin import Collector
from bts_exporter.runner import Run, Runner, Snapshot, start_together

log = logging.getLogger("bts_exporter.scrape")

#: How long one collector may keep others waiting that share its thread, in seconds.
_HOLD_UP = 0.5


class CollectorSet:
    """All configured collectors; a reload builds a new set that keeps what did not change."""

    def __init__(self) -> None:
        """Begin empty."""
        self.runners: list[Runner] = []
        self._local = Lane("bts-local")
        self._closed = False
        self._parting = threading.Lock()

    def add(self, collector: Collector, kind: str, common: Common) -> Runner:
        """Take a collector in; it is idle until `start`."""
        runner: Runner
        if common.interval is not None:
            runner = BackgroundRunner(collector, kind, common, common.interval)
        else:
            # To start something is to do more than to read, and may hang.
            shared = collector.local and type(collector).start is Collector.start
            runner = Runner(collector, kind, common, self._local if shared else None)
        self.runners.append(runner)
        return runner

    def settle(self, runner: Runner) -> None:
        """Have a collector that shares a thread share this set's."""
        if not runner.own_lane:
            runner.lane = self._local

    def close(self) -> None:
        """Let the shared thread end; the runners are stopped one by one, since some live on."""
        with self._parting:
            self._closed = True
            self._local.stop()

    def select(self, include: Sequence[str], exclude: Sequence[str]) -> list[Runner]:
        """Return the runners that the names of collectors or types ask for.

        SelectionError for names that are not configured, and for both kinds of names at once.
        """
        if not include and not exclude:
            return list(self.runners)
        if include and exclude:
            msg = "collect[] and exclude[] cannot be combined"
            raise SelectionError(msg)
        known = {runner.name for runner in self.runners} | {runner.kind for runner in self.runners}
        unknown = sorted({*include, *exclude} - known)
        if unknown:
            msg = f"no such collector: {', '.join(unknown)}; there are: {', '.join(sorted(known))}"
            raise SelectionError(msg)
        if include:
            return [r for r in self.runners if r.name in include or r.kind in include]
        return [r for r in self.runners if r.name not in exclude and r.kind not in exclude]

    def target(self, name: str) -> list[Runner]:
        """Return the runners of the target `name`; SelectionError when there is none."""
        found = [runner for runner in self.runners if name and runner.target == name]
        if not found:
            known = sorted({runner.target for runner in self.runners if runner.target})
            msg = f"no target named {name!r}; there are: {', '.join(known) or 'none'}"
            raise SelectionError(msg)
        return found

    def collect(self, runners: Sequence[Runner], timeout: float) -> list[Snapshot]:
        """Return what each of `runners` has to show within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        self._part_from_stuck(_HOLD_UP)  # an earlier scrape may have had no time left to do it
        # Those that wait for somebody first, so that they wait while the others work.
        order = sorted(runners, key=lambda runner: runner.local)
        shared: list[Run] = []
        runs = {runner: runner.begin(deadline, shared) for runner in order}
        start_together(shared)
        locals_ = [run for run in runs.values() if not run.runner.own_lane]
        self._wait_for_shared(locals_, deadline, min(_HOLD_UP, timeout / 4))
        # The last first: when it has ended, so have most, and nobody is woken for each of them.
        for run in reversed(runs.values()):
            if not run.ended:
                run.wait(deadline)
        return [runner.look(runs[runner]) for runner in runners]

    def _wait_for_shared(self, runs: Sequence[Run], deadline: float, patience: float) -> None:
        """Wait for those that share a thread; one that holds the others up keeps it to itself."""
        while waiting := [run for run in runs if not run.is_over]:
            left = deadline - time.monotonic()
            if left <= 0:
                return
            if not waiting[-1].wait_a_little(min(patience, left)):
                self._part_from_stuck(patience)
                for run in waiting:
                    run.catch_up()

    def _part_from_stuck(self, patience: float) -> None:
        """Leave the shared thread to a collector that has been at it for `patience` seconds."""
        with self._parting:
            for runner in self.runners:
                run = runner.current
                if runner.lane is self._local and run is not None and run.has_lasted(patience):
                    self._part_from(runner)
                    return

    def _part_from(self, stuck: Runner) -> None:
        stuck.own_lane = True
        self._local = Lane("bts-local")
        if self._closed:
            self._local.stop()
        for runner in self.runners:
            # Not those that a newer set has taken over meanwhile.
            if runner.lane is stuck.lane:
                self.settle(runner)
        log.warning(
            "holds the others up: gets a thread of its own", extra={"collector": stuck.identity}
        )
