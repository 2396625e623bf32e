"""One configured collector: isolation, deadline, limits, and its history.

The only place where a collector's errors are caught.
"""

from __future__ import annotations

import fnmatch
import logging
import re
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import msgspec

from bts_exporter.collection.collection import Collection
from bts_exporter.collection.outcome import SUCCESS, ChangeLog, LineLimit, Outcome, failure_of
from bts_exporter.collection.worker import SharedWorker, Worker
from bts_exporter.errors import (
    ExporterError,
    NotPresent,
    Reason,
    StateError,
    forget_frames,
    one_line,
    place_of,
    reason_of,
    text_of,
)
from bts_exporter.exposition.templates import TemplateCache
from bts_exporter.metric import Key, Metric
from bts_exporter.plugin import Collector
from bts_exporter.scrape import Scrape
from bts_exporter.settings.loader import Common

log = logging.getLogger("bts_exporter.collection.runner")

#: How much earlier than the scrape a collector's deadline is, in seconds: a collector whose I/O
#: times out still reports it. The only such reserve; a collector uses all of `Scrape.remaining()`.
_RESERVE = 0.25
#: The same as a share of the time there is, where that is short.
_RESERVE_SHARE = 0.1

#: Timeouts of two scrapes that differ by no more than this are equal, in seconds.
_SAME_TIMEOUT = 0.1

#: Outcomes of a target that has answered: from then on it is missed when it stops.
_ANSWERED = {None, "limited", "invalid_sample"}


class Snapshot(NamedTuple):
    """What there was of a collection when a scrape was answered."""

    runner: Runner
    outcome: Outcome
    samples: dict[Metric, dict[Key, float]]
    duration: float
    #: Seconds since the samples were collected in the background; None if they are this scrape's.
    age: float | None = None

    @property
    def series(self) -> int:
        """Return the number of samples."""
        try:
            return sum(map(len, self.samples.values()))
        except TypeError:  # not put there by `emit`
            return 0


@dataclass(slots=True)
class StateTotals:
    """How storing the state of one collector went since the start."""

    last_save: float = 0.0  # wall clock; 0: none yet
    #: By operation.
    errors: Counter[str] = field(default_factory=lambda: Counter(restore=0, save=0))


@dataclass(slots=True)
class Totals:
    """What the collections of one collector amount to since the start."""

    timeouts: int = 0
    series_dropped: int = 0
    errors: Counter[Reason] = field(default_factory=Counter)
    last_success: float = 0.0  # wall clock; 0: none yet
    state: StateTotals | None = None  # None: no state is stored
    #: The last failure: what was lost, when it was noticed last, and the beginning of the failures in a row.
    last_failure: Outcome | None = None
    last_failure_at: float = 0.0
    failing_since: float = 0.0


class Runner:
    """One configured collector with its name, its worker and its history."""

    def __init__(self, collector: Collector, kind: str, common: Common) -> None:
        """Give the name of the collector's type; `bind` has to follow."""
        self.collector = collector
        #: As they were at the start: a plug-in may change its attributes at any time.
        self.local = collector.local
        #: Whether it may serve metrics that it does not declare, such as those of a text file.
        self.open_ended = bool(collector.open_ended)
        self.outcome_metrics = collector.outcome_metrics
        #: Collectors of kernel files have no target that could be absent.
        self.may_be_absent = common.optional and not collector.local
        self.kind = kind
        self.name = collector.name or kind
        self.target = common.name
        self.common = common
        self.identity = f"{self.name}[{self.target}]" if self.target else self.name
        constant = {"target": self.target} if self.target else {}
        self.templates = TemplateCache(constant | common.labels)
        self.totals = Totals()
        self.seen = False
        self._changes = ChangeLog(self.identity)
        self._left_out: dict[Reason, str] = {}
        self._left_out_limit = LineLimit()
        self.outcome: Outcome | None = None
        self.current: Collection | None = None
        self._start_failed = False
        #: Held while the collector collects or returns its state: its code needs no lock for that.
        self._in_use = threading.RLock()
        self._allows = _any_of(common.metrics.allow)
        self._denies = _any_of(common.metrics.deny)
        self._lock = threading.Lock()

    def bind(self, worker: Worker | SharedWorker, *, exclusive: bool) -> None:
        """Have the collector collected by `worker`; `exclusive` if that serves no other collector."""
        self.worker = worker
        self.exclusive = exclusive

    def begin(
        self, deadline: float, shared: list[Collection] | None = None, *, again: bool = False
    ) -> Collection:
        """Start a collection, or join the one under way; one that is late is never started twice.

        For the shared worker it is appended to `shared` instead, for `submit_collections`. One that
        blocks and was given up by a scrape with a shorter timeout is returned, to be waited for,
        unless `again`.
        """
        self._repair()
        timeout = self.own_deadline(deadline) - time.monotonic()
        with self._lock:
            current = self.current
            if current and current.is_absence:
                return current
            running = current if current and current.blocks else None
            if running and not running.expired:
                running.extend(self.own_deadline(deadline))
                return running
            if running and not again and self.was_hurried(running, timeout):
                return running
            collection = self._new_collection(deadline)
            if running is None:
                self.current = collection
        if running is not None:
            return collection.fail_behind(running)
        if shared is None or self.exclusive:
            submit_collections(self.worker, [collection])
        else:
            shared.append(collection)
        return collection

    def was_hurried(self, collection: Collection, timeout: float) -> bool:
        """Return whether `collection` was late because the scrape that began it had less than `timeout`."""
        outcome = collection.outcome
        timed_out = outcome is not None and outcome.reason == "timeout"
        longest = min(timeout, self.common.timeout or timeout)
        return (collection.expired or timed_out) and longest - collection.granted > _SAME_TIMEOUT

    def _new_collection(self, deadline: float) -> Collection:
        deadline = self.own_deadline(deadline)
        scrape = self.new_scrape(deadline)
        return Collection(scrape, deadline, self.collect_into, self.note, exclusive=self.exclusive)

    def _repair(self) -> None:
        """Replace a thread that died in a collection, and begin what no thread was left for."""
        try:
            if self.current is not None and not self.current.ended:
                self.worker.revive()
            if self._start_failed:
                self.worker.submit(self._start)
                self._start_failed = False
        except RuntimeError:  # there is still none left: the collection will say so
            return

    def snapshot(self, collection: Collection) -> Snapshot:
        """Return what there is of `collection` now."""
        with self._lock:  # others that wait for it have it; ended, it would only keep its samples
            if self.current is collection and collection.ended and not collection.is_absence:
                self.current = None
        return Snapshot(self, *collection.result())

    def start(self) -> None:
        """Let the collector begin what it does between scrapes; never raises."""
        if type(self.collector).start is Collector.start:
            return
        try:
            self.worker.submit(self._start)
        except RuntimeError as error:
            self._start_failed = True
            self._log_failure("start", error)

    def stop(self, timeout: float = 0.0) -> Worker:
        """End the collector, without waiting for one that hangs; never raises.

        A collection under way has `timeout` seconds to end before. Returns the thread that does it.
        """
        last = Worker(f"bts-stop-{self.identity}")
        if type(self.collector).stop is not Collector.stop:
            self._submit_stop(last, timeout)
        last.stop()
        return last

    def _submit_stop(self, last: Worker, timeout: float) -> None:
        job = partial(self._stop, timeout)
        try:
            try:
                last.submit(job)
            except RuntimeError:
                if not self.exclusive:
                    raise
                self.worker.submit(job)  # which may be the one that hangs
        except RuntimeError as error:
            self._log_failure("stop", error)

    def _start(self) -> None:
        try:
            self.collector.start()
        except BaseException as error:  # noqa: BLE001  # a plug-in may even call sys.exit
            self._log_failure("start", error, place_of(error))

    def _stop(self, timeout: float) -> None:
        if self.current is not None:
            self.current.ends_by(time.monotonic() + timeout)
        try:
            self.collector.stop()
        except BaseException as error:  # noqa: BLE001  # a plug-in may even call sys.exit
            self._log_failure("stop", error, place_of(error))

    def _log_failure(self, what: str, error: BaseException, place: str = "") -> None:
        message = f"{type(error).__name__}: {text_of(error)}{place}"
        log.error("%s failed: %s", what, one_line(message), extra={"collector": self.identity})

    def collect_into(self, scrape: Scrape) -> Outcome:
        """Collect, and return how that ended; never raises because of the collector."""
        try:
            with self._in_use:
                self.collector.collect(scrape)
        except BaseException as error:  # noqa: BLE001  # a plug-in may even call sys.exit
            return self._outcome_of(error, scrape)
        return self.verdict(scrape)

    def read_state(self, timeout: float) -> tuple[str, msgspec.Struct] | None:
        """Return the collector's state and the identity of its target; None if it has none.

        StateError with the reason if that fails, or if a collection lasts longer than `timeout`.
        """
        # Until the result is known: an exception from another thread may be raised right after the call.
        held = True
        try:
            held = self._in_use.acquire(timeout=timeout)
            if held:
                return self._state()
        finally:
            if held:
                self._in_use.release()
        message = "the collection under way does not end"
        raise StateError(message)

    def _state(self) -> tuple[str, msgspec.Struct] | None:
        try:
            found = self.collector.save_state()
            if found is not None:
                _check_state(self.collector, *found)
        except BaseException as error:  # noqa: BLE001  # a plug-in may even call sys.exit
            message = one_line(f"save_state: {type(error).__name__}: {text_of(error)}")
            message += place_of(error)
            forget_frames(error)
            raise StateError(message) from None
        else:
            return found

    def _outcome_of(self, error: BaseException, scrape: Scrape) -> Outcome:
        try:
            if not isinstance(error, NotPresent):
                return self.failure(error, scrape)
            message = one_line(text_of(error))
            if not scrape.emitted:
                return Outcome(supported=False, absent=True, message=message)
            verdict = self.verdict(scrape)  # of what else was there to read
            return Outcome(message=message) if verdict.success else verdict
        except BaseException:  # noqa: BLE001  # the error's own code may raise
            message = f"{type(error).__name__}: its own code raises"
            return Outcome(success=False, reason="internal", message=message)
        finally:
            forget_frames(error)

    def failure(self, error: BaseException, scrape: Scrape) -> Outcome:
        """Return the outcome that `error` means."""
        reason = reason_of(error)
        if reason == "refused" and self.common.optional and not self.seen:
            scrape.samples.clear()
            message = f"not there, and optional: {text_of(error)}"
            return Outcome(supported=False, message=one_line(message))
        known = isinstance(error, ExporterError | OSError)
        message = text_of(error) if known else f"{type(error).__name__}: {text_of(error)}"
        if reason == "internal":
            message += place_of(error)
            log.debug("%s failed", self.identity, exc_info=error)
        return failure_of([(reason, message), *scrape.losses], scrape.unlisted)

    def verdict(self, scrape: Scrape) -> Outcome:
        """Return the outcome of a collection that returned: what it lost makes it a failure."""
        losses = scrape.losses
        return failure_of(losses, scrape.unlisted) if losses else SUCCESS

    def note(self, scrape: Scrape, outcome: Outcome) -> None:
        """Count how a collection ended, and log it where it differs from the one before."""
        with self._lock:
            totals = self.totals
            totals.series_dropped += scrape.dropped
            if outcome.supported and outcome.reason in _ANSWERED:
                self.seen = True
            if outcome.success and outcome.supported:
                totals.last_success = time.time()
            elif outcome.reason is not None:
                totals.errors.update(outcome.reasons)
                totals.timeouts += "timeout" in outcome.reasons
                totals.last_failure, totals.last_failure_at = outcome, time.time()
                if self.outcome is None or self.outcome.success:
                    totals.failing_since = totals.last_failure_at
            self.outcome = outcome
        self._changes.note(outcome)

    def own_deadline(self, deadline: float) -> float:
        """Return when a collection must have ended that is asked to by `deadline`."""
        if self.common.timeout is None:
            return deadline
        return min(deadline, time.monotonic() + self.common.timeout)

    def new_scrape(self, deadline: float) -> Scrape:
        """Return what a collection that ends at `deadline` writes to."""
        reserve = min(_RESERVE, (deadline - time.monotonic()) * _RESERVE_SHARE)
        return Scrape(
            deadline - reserve,
            max_series=self.common.max_series,
            allows=self._allows,
            denies=self._denies,
        )

    def with_invalid_samples(
        self, shot: Snapshot, samples: dict[Metric, dict[Key, float]], message: str
    ) -> Snapshot:
        """Return `shot` with only `samples`: the others cannot be rendered, as `message` says."""
        message = one_line(message)
        self._leave_out("invalid_sample", message)
        losses: list[tuple[Reason, str]] = [("invalid_sample", message)]
        if shot.outcome.reason is not None:
            losses.insert(0, (shot.outcome.reason, shot.outcome.message))
        return shot._replace(outcome=failure_of(losses), samples=samples)

    def conflict(self, message: str) -> None:
        """Count that samples could not be served because another collector serves them."""
        cure = "rename one, or leave one out by metrics: {deny: [NAME]}"
        self._leave_out("conflict", f"{message}: {cure}")

    def _leave_out(self, reason: Reason, message: str) -> None:
        with self._lock:
            totals = self.totals
            totals.errors[reason] += 1
            totals.last_failure = failure_of([(reason, message)])
            totals.last_failure_at = time.time()
            known = self._left_out.get(reason)
            self._left_out[reason] = message
        if message != known and self._left_out_limit.allows():
            log.error("samples left out: %s", message, extra={"collector": self.identity})


def _check_state(collector: Collector, identity: object, state: object) -> None:
    """Check what `save_state` returned; TypeError if it is not what the contract says."""
    if not isinstance(identity, str) or type(state) is not collector.State:
        msg = f"expected the identity as str and a {collector.State}, got {type(identity).__name__} and {type(state).__name__}"
        raise TypeError(msg)


def submit_collections(worker: Worker | SharedWorker, collections: Sequence[Collection]) -> None:
    """Have collections executed, handed over together: to wake the thread for each takes longer."""
    try:
        worker.submit_all(collections)
    except RuntimeError as error:
        for collection in collections:
            collection.fail("os", f"no thread to collect in: {error}")


def _any_of(globs: Sequence[str]) -> re.Pattern[str] | None:
    return re.compile("|".join(map(fnmatch.translate, globs))) if globs else None
