"""One scrape: all collectors are collected at the same time, and what there is by the deadline is served."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

from bts_exporter.collection.background import BackgroundRunner
from bts_exporter.collection.collection import Collection
from bts_exporter.collection.runner import Runner, Snapshot, submit_collections
from bts_exporter.collection.worker import SharedWorker, Worker
from bts_exporter.errors import SelectionError
from bts_exporter.plugin import Collector
from bts_exporter.settings.loader import Common

log = logging.getLogger("bts_exporter.collection.collector_set")

#: How long one collector may block others that share its worker, in seconds.
_MAX_BLOCKED = 0.5
#: A thread that loses so much time besides waiting is not the only one: the whole process was
#: stopped or had no CPU. In seconds.
_LOST = 0.1
#: How much longer a scrape waits after that, in seconds: less than is kept back for sending the page.
_GRACE = 0.4
#: How often it does, each time after losing more.
_GRACES = 4
#: Collections are begun a second time only if there is so much time left, in seconds.
_WORTHWHILE = 0.5
#: One that was given up by a hurried scrape is waited for until it has lasted so long, in seconds.
_LONGEST = 10.0


class _Timeout:
    """Until when a scrape waits: a little longer if the process itself was stopped meanwhile."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._seen = time.monotonic()
        self.deadline = self._seen + seconds
        self._lost = 0.0
        self._graces = _GRACES

    @property
    def left(self) -> float:
        return self.deadline - time.monotonic()

    def wait(self, collection: Collection, seconds: float) -> bool:
        """Wait for the end of `collection`; return False if it is late although the process went on."""
        begin = time.monotonic()
        end = begin + max(seconds, 0)
        ended = collection.ends_by(end)
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


class _Workers(NamedTuple):
    """The workers of all sets since the start: a reload continues with them."""

    shared: SharedWorker
    #: Collections that blocked the shared worker, which was left to them, and their runners.
    stuck: list[tuple[Runner, Collection]]
    lock: threading.Lock


class CollectorSet:
    """All configured collectors and their workers; a reload builds a new set that keeps what did not change."""

    def __init__(self, before: CollectorSet | None = None) -> None:
        """Begin empty, with the shared worker of the set that this one is to replace."""
        self.runners: list[Runner] = []
        self._workers: _Workers = (
            before._workers  # noqa: SLF001  # of this class
            if before
            else _Workers(SharedWorker("bts-local"), [], threading.Lock())
        )

    def add(self, collector: Collector, kind: str, common: Common) -> Runner:
        """Add a collector; it is idle until its `start`."""
        runner: Runner
        if common.interval is not None:
            runner = BackgroundRunner(collector, kind, common, common.interval)
            shared = False
        else:
            runner = Runner(collector, kind, common)
            # To start something is to do more than to read, and may hang.
            shared = collector.local and type(collector).start is Collector.start
        if shared:
            runner.bind(self._workers.shared, exclusive=False)
        else:
            runner.bind(Worker(f"bts-{runner.identity}"), exclusive=True)
        self.runners.append(runner)
        return runner

    @staticmethod
    def stop(runners: Sequence[Runner], timeout: float = 0.0) -> list[Worker]:
        """End collectors and their workers, without waiting for one that hangs; never raises.

        Collections under way have `timeout` seconds to end before. Returns the threads that do it.
        """
        last = [runner.stop(timeout) for runner in runners]
        for runner in runners:
            if runner.exclusive:
                runner.worker.stop()
        return last

    def close(self) -> None:
        """Let the shared worker end, when no set uses it any more."""
        self._workers.shared.stop()

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
        """Return the runners of the target `name`; SelectionError if there is none."""
        found = [runner for runner in self.runners if name and runner.target == name]
        if not found:
            known = sorted({runner.target for runner in self.runners if runner.target})
            msg = f"no target named {name!r}; there are: {', '.join(known) or 'none (a block of settings gets one by name:)'}"
            raise SelectionError(msg)
        return found

    def collect(
        self, runners: Sequence[Runner], timeout: float, granted: float | None = None
    ) -> list[Snapshot]:
        """Return what there is of each of `runners` within `timeout` seconds.

        A collection is late after `granted` seconds, where this is longer; until then it goes on.
        """
        limit = _Timeout(timeout)
        deadline = limit.deadline + max((granted or 0) - timeout, 0)
        if self._workers.stuck:
            self._rebind_unstuck()
        # Those that do I/O first, so that they wait while the others work.
        order = sorted(runners, key=lambda runner: runner.local)
        shared: list[Collection] = []
        collections = {runner: runner.begin(deadline, shared) for runner in order}
        if shared:
            submit_collections(self._workers.shared, shared)
        self._wait_for_shared([c for r, c in collections.items() if not r.exclusive], limit)
        _wait_for(list(collections.values()), limit)
        _collect_again(collections, limit)
        return [runner.snapshot(collections[runner]) for runner in runners]

    def give_up(self) -> None:
        """Fail the collections that scrapes wait for: they are answered, and the service can stop."""
        for runner in self.runners:
            collection = runner.current
            if collection is not None and not isinstance(runner, BackgroundRunner):
                collection.fail("timeout", "the exporter is stopping")

    def stalled(self, seconds: float) -> str:
        """Return why no collection in the shared thread can make progress; empty if it can.

        A collector that hangs does not count: the others get a new thread, which is given `seconds`.
        """
        if all(runner.exclusive for runner in self.runners):
            return ""
        shared = self._workers.shared
        done = threading.Event()
        try:
            shared.revive()
            shared.submit(done.set)
            if not done.wait(_MAX_BLOCKED):
                self._replace_stuck_worker(_MAX_BLOCKED)
                done.wait(seconds)
        except RuntimeError as error:
            return f"no thread to collect in: {error}"
        return "" if done.is_set() else f"the thread {shared.name} does not come to its jobs"

    def _wait_for_shared(self, collections: Sequence[Collection], limit: _Timeout) -> None:
        """Wait for those that share a thread; one that blocks the others keeps that thread."""
        blocked = min(_MAX_BLOCKED, limit.seconds / 4)
        while waiting := [it for it in collections if not (it.ended or it.expired)]:
            if not limit.wait(waiting[-1], min(blocked, limit.left)):
                if limit.left <= 0:
                    return
                self._replace_stuck_worker(blocked)

    def _replace_stuck_worker(self, seconds: float) -> None:
        """Leave the shared worker to a collector that has blocked it for `seconds`."""
        shared = self._workers.shared
        try:
            shared.revive()
            found = shared.replace_stuck(seconds)
        except RuntimeError as error:
            log.error("cannot replace a thread that hangs: %s", error)  # noqa: TRY400  # the system's limit
            return
        if found is None:
            return
        worker, job = found
        runner = next((runner for runner in self.runners if runner.current is job), None)
        if runner is None or not isinstance(job, Collection):
            worker.stop()  # of a collector that a reload removed: it will not be collected again
            return
        runner.bind(worker, exclusive=True)
        with self._workers.lock:
            self._workers.stuck.append((runner, job))

    def _rebind_unstuck(self) -> None:
        """Have those share the worker again that blocked it no longer than they may.

        A hurried scrape waits less long for them, and on a machine without CPU everything is slow.
        """
        shared, stuck, lock = self._workers
        blocking: list[Runner] = []
        with lock:
            for runner, collection in list(stuck):
                end = collection.ended_at if collection.ended else time.monotonic()
                if end - collection.began >= _MAX_BLOCKED:
                    stuck.remove((runner, collection))
                    blocking.append(runner)
                elif collection.ended:
                    stuck.remove((runner, collection))
                    runner.worker.stop()
                    runner.bind(shared, exclusive=False)
        for runner in blocking:
            details = {"collector": runner.identity}
            log.warning("blocks other collectors; it now has a separate thread", extra=details)


def _wait_for(collections: Sequence[Collection], limit: _Timeout) -> None:
    """Wait for `collections`; those that are late expire."""
    # The last first: when it has ended, so have most, and this thread is not woken for each of them.
    for collection in reversed(collections):
        if not (collection.ended or collection.expired or _ends_in_time(collection, limit)):
            collection.wait(limit.deadline)  # not longer: it expires if it is late


def _ends_in_time(collection: Collection, limit: _Timeout) -> bool:
    while limit.wait(collection, min(limit.deadline, collection.deadline) - time.monotonic()):
        if collection.ended:
            return True
        collection.postpone(min(limit.deadline, time.monotonic() + _GRACE))
    return False


def _collect_again(collections: dict[Runner, Collection], limit: _Timeout) -> None:
    """Have those collected once more that had too little time only for another scrape."""
    seconds = limit.seconds
    hurried = [runner for runner, it in collections.items() if runner.was_hurried(it, seconds)]
    again: list[Collection] = []
    for runner in sorted(hurried, key=lambda runner: not collections[runner].ended):
        collection = collections[runner]
        end = min(limit.deadline - _WORTHWHILE, collection.began + min(seconds, _LONGEST))
        limit.wait(collection, end - time.monotonic())
        collection.granted = seconds  # scrapes with the same timeout do not wait for it again
        if limit.left >= _WORTHWHILE:
            collections[runner] = runner.begin(limit.deadline, again=True)
            again.append(collections[runner])
    _wait_for(again, limit)
