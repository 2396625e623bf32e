"""One collector at work: isolation, deadline, limits, and what is known of its past.

The only place where a collector's errors are caught.
"""

from __future__ import annotations

import fnmatch
import logging
import re
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from bts_exporter.collection.outcome import SUCCESS, Outcome, failure_of, log_change
from bts_exporter.collection.worker import Lane, SharedLane
from bts_exporter.errors import (
    ExporterError,
    NotPresent,
    Reason,
    forget_frames,
    one_line,
    place_of,
    reason_of,
    text_of,
)
from bts_exporter.exposition.templates import Frames
from bts_exporter.metric import Key, Metric
from bts_exporter.plugin import Collector
from bts_exporter.scrape import Scrape
from bts_exporter.settings.loader import Common

log = logging.getLogger("bts_exporter.collection.runner")

#: How long what was absent is taken to be so, in seconds: hardware and kernel modules come seldom.
_ABSENT_SECONDS = 60.0

#: What a collector has at most, between the end of its I/O and the scrape's, in seconds.
_RESERVE = 0.25

#: How much longer a collection has, once, that no scrape gave up when it was late, in seconds.
_RESPITE = 0.4
#: Two scrapes differ in patience only if it is by more than this, in seconds.
_SAME_PATIENCE = 0.1

#: Outcomes of a target that has answered: from then on it is missed when it stops.
_ANSWERED = {None, "limited", "invalid_sample"}


class Snapshot(NamedTuple):
    """What a collection had to show when a scrape was answered."""

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


class Run:
    """One collection, shared by all scrapes that overlap it: a job of its collector's lane.

    It ends exactly once. A scrape may give it up before: from then on it is late, however it ends.
    """

    def __init__(self, runner: Runner, deadline: float) -> None:
        """Prepare the collection; `execute` in the lane's thread does it."""
        self.runner = runner
        self.began = time.monotonic()
        self.deadline = runner.own_deadline(deadline)
        #: The seconds that it was given by the scrape that began it: its time-outs are made of them.
        self.granted = self.deadline - self.began
        self.scrape = runner.new_scrape(self.deadline)
        self.ended_at = 0.0  # on the clock of time.monotonic
        self.duration = 0.0
        self.outcome: Outcome | None = None
        self.expired = False
        self.executing = False
        self._had_respite = False
        #: Whether the collection's thread is through with it.
        self.ended = False
        self._lock = threading.Lock()
        # Held until then, and waited for: an Event costs ten times as much, for each collector.
        self._under_way = threading.Lock()
        self._under_way.acquire()

    def execute(self) -> None:
        """Collect, and remember how it ended; not at all if it was given up before its turn."""
        with self._lock:
            self.executing = not (self.expired or self.ended)
        if not self.executing:
            self._end()
            return
        self.began = time.monotonic()
        self._conclude(self.runner.collect_into(self.scrape))

    def abandon(self) -> None:
        """End a collection whose thread was interrupted in it by another, or died."""
        self.fail("internal", "an exception from another thread interrupted the collection")

    def fail(self, reason: Reason, message: str) -> Run:
        """End the collection, or leave it as it is if it has ended."""
        self._conclude(Outcome(success=False, reason=reason, message=message))
        return self

    def fail_behind(self, running: Run) -> Run:
        """End the collection because `running` has not; what that one found to be up is served."""
        self.scrape.samples.update(
            (metric, found)
            for metric, found in _copy_of(running.scrape.samples).items()
            if metric.availability
        )
        late = time.monotonic() - running.began
        return self.fail("busy", f"a collection begun {late:.0f} s ago is still running")

    def wait(self, deadline: float) -> None:
        """Wait until the collection has ended, at most until `deadline`; give it up at its own."""
        if not self.ends_by(min(deadline, self.deadline)) and deadline >= self.deadline:
            self.expire()

    def ends_by(self, moment: float) -> bool:
        """Return whether the collection has ended by `moment`, as soon as it has."""
        seconds = max(moment - time.monotonic(), 0)
        if not self.ended and self._under_way.acquire(timeout=seconds):
            self._under_way.release()  # for the next one who waits
        return self.ended

    def extend(self, deadline: float) -> None:
        """Give the collection until `deadline`, for the sake of a scrape with more patience."""
        now = time.monotonic()
        if self.executing or self.runner.own_lane:
            # No more time in all than its own would have: or scrapes that overlap never give it up.
            deadline = min(deadline, self.began + deadline - now)
            if (
                deadline < now and not self._had_respite
            ):  # unnoticed: the process may have stood still
                self._had_respite = True
                deadline = now + _RESPITE
        self.postpone(deadline)

    def postpone(self, deadline: float) -> None:
        """Give the collection until `deadline`, if that is later than what it has."""
        with self._lock:
            more = deadline - self.deadline
            if more > 0 and not self.expired:
                self.deadline += more
                self.scrape.deadline += more

    def expire(self) -> None:
        """Give the collection up: what it emitted stays, what it emits from now on is refused."""
        with self._lock:
            if self.outcome is not None or self.expired:
                return
            self.expired = True
            self.scrape.closed = True
            self.duration = time.monotonic() - self.began
        # One that waits in the lane that others share has not failed: it had no turn.
        if self.executing or self.runner.own_lane:
            self.runner.note(self, self._late())

    @property
    def found_nothing_lately(self) -> bool:
        """Return whether there was nothing to read, so recently that it is not looked for again."""
        absent = self.outcome is not None and self.outcome.absent and not self.expired
        return absent and time.monotonic() - self.ended_at < _ABSENT_SECONDS

    @property
    def blocks(self) -> bool:
        """Return whether the collector cannot be collected before this one has ended."""
        # One given up before its turn never collects; but in its own lane something else hangs.
        return not self.ended and (self.executing or not self.expired or self.runner.own_lane)

    def snapshot(self, age: float | None = None) -> Snapshot:
        """Return what there is now."""
        outcome = self.outcome
        if outcome is None or self.expired:
            samples = _copy_of(self.scrape.samples)
            return Snapshot(self.runner, self._late(), samples, time.monotonic() - self.began, age)
        return Snapshot(self.runner, outcome, self.scrape.samples, self.duration, age)

    def _late(self) -> Outcome:
        if self.executing or not self.runner.local:
            message = f"no answer within {self.deadline - self.began:.1f} s"
        else:
            message = "not begun: the collector before it did not end in time"
        losses = self.runner.losses(self.scrape)
        return failure_of([("timeout", message), *losses], self.scrape.unlisted)

    def _conclude(self, outcome: Outcome) -> None:
        now = time.monotonic()
        with self._lock:
            first = self.outcome is None and not self.ended
            if first:
                # Threads of the collector's own that go on would change what is being rendered.
                self.scrape.closed = True
                self.outcome = outcome
                self.ended_at = now
                if not self.expired:
                    self.duration = now - self.began
        if first and not self.expired:
            self.runner.note(self, outcome)
        self._end()

    def _end(self) -> None:
        if not self.ended:  # only its thread comes here, or who found that thread not to be at it
            self.ended = True
            self._under_way.release()


@dataclass(slots=True)
class Totals:
    """What the collections of one collector amount to since the start."""

    timeouts: int = 0
    series_dropped: int = 0
    errors: Counter[Reason] = field(default_factory=Counter)
    last_success: float = 0.0  # wall clock; 0: none yet


class Runner:
    """One configured collector with its name, its thread and its past."""

    def __init__(
        self, collector: Collector, kind: str, common: Common, lane: SharedLane | None
    ) -> None:
        """Give the name of the collector's type and the lane to share; None for one of its own."""
        self.collector = collector
        #: As they were at the start: a plug-in may change its attributes at any time.
        self.local = collector.local
        self.outcome_metrics = collector.outcome_metrics
        #: Collectors of kernel files have no target that could be absent.
        self.may_be_absent = common.optional and not collector.local
        self.kind = kind
        self.name = collector.name or kind
        self.target = common.name
        self.common = common
        self.identity = f"{self.name}[{self.target}]" if self.target else self.name
        self.own_lane = lane is None
        self.lane: Lane | SharedLane = lane or Lane(f"bts-{self.identity}")
        constant = {"target": self.target} if self.target else {}
        self.frames = Frames(constant | common.labels)
        self.totals = Totals()
        self.seen = False
        self._left_out: dict[Reason, str] = {}
        self.outcome: Outcome | None = None
        self.current: Run | None = None
        self._start_failed = False
        self._allows = _any_of(common.metrics.allow)
        self._denies = _any_of(common.metrics.deny)
        self._lock = threading.Lock()

    def begin(
        self, deadline: float, shared: list[Run] | None = None, *, again: bool = False
    ) -> Run:
        """Start a collection, or join the one under way; one that is late is never started twice.

        One in a thread that others share is appended to `shared` instead, for `submit_runs`. One in the
        way that a scrape with less patience gave up is returned, to be waited for; not if asked `again`.
        """
        self._repair()
        patience = self.own_deadline(deadline) - time.monotonic()
        with self._lock:
            current = self.current
            if current and current.found_nothing_lately:
                return current
            under_way = current if current and current.blocks else None
            if under_way and not under_way.expired:
                under_way.extend(self.own_deadline(deadline))
                return under_way
            if under_way and not again and self.was_hurried(under_way, patience):
                return under_way
            run = Run(self, deadline)
            if under_way is None:
                self.current = run
        if under_way is not None:
            return run.fail_behind(under_way)
        if shared is None or self.own_lane:
            submit_runs(self.lane, [run])
        else:
            shared.append(run)
        return run

    def was_hurried(self, run: Run, patience: float) -> bool:
        """Return whether `run` was late because the scrape that began it has less than `patience`."""
        timed_out = run.outcome is not None and run.outcome.reason == "timeout"
        longest = min(patience, self.common.timeout or patience)
        return (run.expired or timed_out) and longest - run.granted > _SAME_PATIENCE

    def _repair(self) -> None:
        """Replace a thread that died in a collection, and begin what no thread was left for."""
        try:
            if self.current is not None and not self.current.ended:
                self.lane.revive()
            if self._start_failed:
                self.lane.submit(self._start)
                self._start_failed = False
        except RuntimeError:  # there is still none left: the collection will say so
            return

    def look(self, run: Run) -> Snapshot:
        """Return what `run` has to show now."""
        with self._lock:  # others that wait for it have it; ended, it would only keep its samples
            if self.current is run and run.ended and not run.found_nothing_lately:
                self.current = None
        return run.snapshot()

    def start(self) -> None:
        """Let the collector begin what it does between scrapes; never raises."""
        if type(self.collector).start is Collector.start:
            return
        try:
            self.lane.submit(self._start)
        except RuntimeError as error:
            self._start_failed = True
            self._complain("start", error)

    def stop(self, patience: float = 0.0) -> Lane:
        """End the collector and its thread, without waiting for one that hangs; never raises.

        A collection under way has `patience` seconds to end before. Returns the thread that does it.
        """
        last = Lane(f"bts-stop-{self.identity}")
        if type(self.collector).stop is not Collector.stop:
            self._submit_stop(last, patience)
        last.stop()
        if self.own_lane:
            self.lane.stop()
        return last

    def _submit_stop(self, last: Lane, patience: float) -> None:
        job = partial(self._stop, patience)
        try:
            try:
                last.submit(job)
            except RuntimeError:
                if not self.own_lane:
                    raise
                self.lane.submit(job)  # which may be the one that hangs
        except RuntimeError as error:
            self._complain("stop", error)

    def _start(self) -> None:
        try:
            self.collector.start()
        except BaseException as error:  # noqa: BLE001  # a plug-in may even call sys.exit
            self._complain("start", error)

    def _stop(self, patience: float) -> None:
        if self.current is not None:
            self.current.ends_by(time.monotonic() + patience)
        try:
            self.collector.stop()
        except BaseException as error:  # noqa: BLE001  # a plug-in may even call sys.exit
            self._complain("stop", error)

    def _complain(self, what: str, error: BaseException) -> None:
        message = f"{type(error).__name__}: {text_of(error)}"
        log.error("%s failed: %s", what, one_line(message), extra={"collector": self.identity})

    def collect_into(self, scrape: Scrape) -> Outcome:
        """Collect, and return how that ended; never raises because of the collector."""
        try:
            self.collector.collect(scrape)
        except BaseException as error:  # noqa: BLE001  # a plug-in may even call sys.exit
            return self._outcome_of(error, scrape)
        return self.verdict(scrape)

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
        return failure_of([(reason, message), *self.losses(scrape)], scrape.unlisted)

    def verdict(self, scrape: Scrape) -> Outcome:
        """Return the outcome of a collection that returned: what it lost makes it a failure."""
        losses = self.losses(scrape)
        return failure_of(losses, scrape.unlisted) if losses else SUCCESS

    def losses(self, scrape: Scrape) -> list[tuple[Reason, str]]:
        """Return the losses of a collection besides the error that ended it."""
        if not scrape.dropped:
            return scrape.losses
        limit = self.common.max_series
        message = (
            f"{scrape.dropped} series dropped: raise max_series (now {limit}), or filter metrics"
        )
        return [*scrape.losses, ("limited", message)]

    def note(self, run: Run, outcome: Outcome) -> None:
        """Count an outcome, and log it where it differs from the one before."""
        with self._lock:
            totals = self.totals
            totals.series_dropped += run.scrape.dropped
            if outcome.supported and outcome.reason in _ANSWERED:
                self.seen = True
            if outcome.success and outcome.supported:
                totals.last_success = time.time()
            totals.errors.update(outcome.reasons)
            totals.timeouts += "timeout" in outcome.reasons
            before, self.outcome = self.outcome, outcome
        if outcome is not before:
            log_change(self.identity, before, outcome)

    def own_deadline(self, deadline: float) -> float:
        """Return when a collection must have ended that is asked to by `deadline`."""
        if self.common.timeout is None:
            return deadline
        return min(deadline, time.monotonic() + self.common.timeout)

    def new_scrape(self, deadline: float) -> Scrape:
        """Return what a collection that ends at `deadline` writes to."""
        # A collector whose I/O times out still has to say so: it is told an earlier end than ours.
        reserve = min(_RESERVE, (deadline - time.monotonic()) / 10)
        return Scrape(
            deadline - reserve,
            max_series=self.common.max_series,
            allows=self._allows,
            denies=self._denies,
        )

    def spoilt(self, shot: Snapshot, error: BaseException) -> Snapshot:
        """Return `shot` without its samples, which cannot be rendered because of `error`."""
        message = one_line(f"cannot be served: {type(error).__name__}: {text_of(error)}")
        self._leave_out("invalid_sample", message)
        outcome = Outcome(success=False, reason="invalid_sample", message=message)
        return shot._replace(outcome=outcome, samples={})

    def conflict(self, message: str) -> None:
        """Count that samples could not be served because another collector serves them."""
        cure = "rename one, or leave one out by metrics: {deny: [NAME]}"
        self._leave_out("conflict", f"{message}: {cure}")

    def _leave_out(self, reason: Reason, message: str) -> None:
        with self._lock:
            self.totals.errors[reason] += 1
            known = self._left_out.get(reason)
            self._left_out[reason] = message
        if message != known:
            log.error("samples left out: %s", message, extra={"collector": self.identity})


def submit_runs(lane: Lane | SharedLane, runs: Sequence[Run]) -> None:
    """Have collections executed, handed over together: to wake the thread for each takes longer."""
    try:
        lane.submit_all(runs)
    except RuntimeError as error:
        for run in runs:
            run.fail("os", f"no thread to collect in: {error}")


def _copy_of(
    samples: Mapping[Metric, Mapping[Key, float]],
) -> dict[Metric, dict[Key, float]]:
    """Return the samples of a collection that may still be emitting, without what is none."""
    # Copied in one step each, since another thread may change them.
    return {
        metric: dict(found)
        for metric, found in list(samples.items())
        if type(metric) is Metric and type(found) is dict
    }


def _any_of(globs: Sequence[str]) -> re.Pattern[str] | None:
    return re.compile("|".join(map(fnmatch.translate, globs))) if globs else None
