"""One scrape: every collector asked at the same time, answered by the deadline, with what there is."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

from bts_exporter.collection.background import BackgroundRunner
from bts_exporter.collection.runner import Run, Runner, Snapshot, submit_runs
from bts_exporter.collection.worker import SharedLane
from bts_exporter.errors import SelectionError
from bts_exporter.plugin import Collector
from bts_exporter.settings.loader import Common

log = logging.getLogger("bts_exporter.collection.collector_set")

#: How long one collector may keep others waiting that share its thread, in seconds.
_HOLD_UP = 0.5
#: A thread that loses so much time besides waiting is not alone in that: the whole process stood
#: still or had no CPU. In seconds.
_LOST = 0.1
#: How much longer a scrape waits after that, in seconds: less than is kept back for sending the page.
_GRACE = 0.4
#: How often it does, each time after losing more.
_GRACES = 4
#: Collections are begun a second time only if there is so much time left, in seconds.
_WORTHWHILE = 0.5
#: One that was given up by a hurried scrape is waited for until it has lasted so long, in seconds.
_LONGEST = 10.0


class _Patience:
    """Until when a scrape waits: a little longer if the process itself stood still meanwhile."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._seen = time.monotonic()
        self.deadline = self._seen + seconds
        self._lost = 0.0
        self._graces = _GRACES

    @property
    def left(self) -> float:
        return self.deadline - time.monotonic()

    def wait(self, run: Run, seconds: float) -> bool:
        """Wait for the end of `run`; return False if it is late although the process went on."""
        begin = time.monotonic()
        end = begin + max(seconds, 0)
        ended = run.ends_by(end)
        now = time.monotonic()
        # What passed since the last wait, and after the end of this one: normally next to nothing.
        lost = begin - self._seen + max(now - end, 0)
        self._seen = now
        self._lost += lost
        if ended:
            return True
        if now < self.deadline:
            return lost >= _LOST
        if self._lost < _LOST or not self._graces:
            return False
        self.deadline = now + min(self._lost, _GRACE)
        self._lost = 0.0
        self._graces -= 1
        return True


class CollectorSet:
    """All configured collectors; a reload builds a new set that keeps what did not change."""

    def __init__(self, before: CollectorSet | None = None) -> None:
        """Begin empty, with the shared thread of the set that this one is to replace."""
        self.runners: list[Runner] = []
        self._local: SharedLane = before._local if before else SharedLane("bts-local")  # noqa: SLF001  # of this class
        #: Collections that the others were moved away from.
        self._parted: list[Run] = before._parted if before else []  # noqa: SLF001  # as above
        self._parting: threading.Lock = before._parting if before else threading.Lock()  # noqa: SLF001  # as above

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

    def close(self) -> None:
        """Let the shared thread end, when no set uses it any more."""
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

    def collect(
        self, runners: Sequence[Runner], timeout: float, granted: float | None = None
    ) -> list[Snapshot]:
        """Return what each of `runners` has to show within `timeout` seconds.

        A collection is late after `granted` seconds, where this is longer; until then it goes on.
        """
        patience = _Patience(timeout)
        deadline = patience.deadline + max((granted or 0) - timeout, 0)
        if self._parted:
            self._take_back()
        # Those that wait for somebody first, so that they wait while the others work.
        order = sorted(runners, key=lambda runner: runner.local)
        shared: list[Run] = []
        runs = {runner: runner.begin(deadline, shared) for runner in order}
        if shared:
            submit_runs(self._local, shared)
        locals_ = [run for run in runs.values() if not run.runner.own_lane]
        self._wait_for_shared(locals_, patience)
        _wait_for(list(runs.values()), patience)
        _ask_again(runs, patience)
        return [runner.look(runs[runner]) for runner in runners]

    def stalled(self, seconds: float) -> str:
        """Return why no collection in the shared thread can make progress; empty if it can.

        A collector that hangs does not count: the others get a new thread, which is given `seconds`.
        """
        if all(runner.own_lane for runner in self.runners):
            return ""
        done = threading.Event()
        try:
            self._local.revive()
            self._local.submit(done.set)
            if not done.wait(_HOLD_UP):
                self._replace_stuck(_HOLD_UP)
                done.wait(seconds)
        except RuntimeError as error:
            return f"no thread to collect in: {error}"
        return "" if done.is_set() else f"the thread {self._local.name} does not come to its jobs"

    def _wait_for_shared(self, runs: Sequence[Run], patience: _Patience) -> None:
        """Wait for those that share a thread; one that blocks the others keeps it to itself."""
        hold_up = min(_HOLD_UP, patience.seconds / 4)
        while waiting := [run for run in runs if not (run.ended or run.expired)]:
            if not patience.wait(waiting[-1], min(hold_up, patience.left)):
                if patience.left <= 0:
                    return
                self._replace_stuck(hold_up)

    def _replace_stuck(self, seconds: float) -> None:
        """Leave the shared thread to a collector that has been at it for `seconds`."""
        try:
            self._local.revive()
            found = self._local.replace_stuck(seconds)
        except RuntimeError as error:
            log.error("no thread in place of one that hangs: %s", error)  # noqa: TRY400  # the system's limit
            return
        if found is None:
            return
        lane, job = found
        if not isinstance(job, Run):
            lane.stop()
            return
        stuck = job.runner
        stuck.lane, stuck.own_lane = lane, True
        with self._parting:
            self._parted.append(job)
        if stuck not in self.runners:  # taken away by a reload: it will not be collected again
            lane.stop()

    def _take_back(self) -> None:
        """Have those share the thread again that blocked it no longer than they may.

        A hurried scrape waits less long for them, and on a machine without CPU everything is slow.
        """
        with self._parting:
            for run in list(self._parted):
                runner = run.runner
                lasted = (run.ended_at if run.ended else time.monotonic()) - run.began
                if lasted >= _HOLD_UP:
                    self._parted.remove(run)
                    who = {"collector": runner.identity}
                    log.warning("blocks the others: gets a thread of its own", extra=who)
                elif run.ended:
                    self._parted.remove(run)
                    runner.lane.stop()
                    runner.lane, runner.own_lane = self._local, False


def _wait_for(runs: Sequence[Run], patience: _Patience) -> None:
    """Wait for `runs`, and give up those that are late."""
    # The last first: when it has ended, so have most, and nobody is woken for each of them.
    for run in reversed(runs):
        if not (run.ended or run.expired or _ends_in_time(run, patience)):
            run.wait(patience.deadline)  # no longer: it is given up if it is late


def _ends_in_time(run: Run, patience: _Patience) -> bool:
    while patience.wait(run, min(patience.deadline, run.deadline) - time.monotonic()):
        if run.ended:
            return True
        run.postpone(min(patience.deadline, time.monotonic() + _GRACE))
    return False


def _ask_again(runs: dict[Runner, Run], patience: _Patience) -> None:
    """Have those collected once more that had too little time only for another scrape."""
    seconds = patience.seconds
    hurried = [runner for runner, run in runs.items() if runner.was_hurried(run, seconds)]
    again: list[Run] = []
    for runner in sorted(hurried, key=lambda runner: not runs[runner].ended):
        run = runs[runner]
        end = min(patience.deadline - _WORTHWHILE, run.began + min(seconds, _LONGEST))
        patience.wait(run, end - time.monotonic())
        run.granted = seconds  # scrapes with as much patience do not wait for it again
        if patience.left >= _WORTHWHILE:
            runs[runner] = runner.begin(patience.deadline, again=True)
            again.append(runs[runner])
    _wait_for(again, patience)
