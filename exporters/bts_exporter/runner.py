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
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from bts_exporter.config import Common
from bts_exporter.errors import ExporterError, NothingToRead, Reason, reason_of, text_of
from bts_exporter.frames import Frames
from bts_exporter.lanes import Lane
from bts_exporter.plugin import Collector, Key, Metric, Scrape

log = logging.getLogger("bts_exporter.runner")

#: How long what was absent is taken to be so, in seconds: hardware and kernel modules come seldom.
_ABSENT_SECONDS = 60.0

#: What a collector has at most, between the end of its I/O and the scrape's, in seconds.
_RESERVE = 0.25

#: Outcomes of a target that has answered: from then on it is missed when it stops.
_ANSWERED = {None, "limited", "invalid_sample"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a collection ended."""

    success: bool = True
    supported: bool = True
    reason: Reason | None = None
    message: str = ""


#: How most collections end.
_SUCCESS = Outcome()


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
    """One collection, shared by all scrapes that overlap it."""

    def __init__(self, runner: Runner, deadline: float) -> None:
        """Prepare the collection; `execute` in the lane's thread does it."""
        self.runner = runner
        self.deadline = runner.own_deadline(deadline)
        self.scrape = runner.new_scrape(self.deadline)
        #: Where it waits for its turn: one left behind in a stuck lane never runs.
        self.lane = runner.lane
        self.began = time.monotonic()
        self.ended_at = 0.0  # on the clock of time.monotonic
        self.duration = 0.0
        self.outcome: Outcome | None = None
        self.expired = False
        self.executing = False
        self.nothing_to_read = False
        #: Whether the collection's thread is through with it.
        self.ended = False
        self._lock = threading.Lock()
        # Held until then, and waited for: an Event costs ten times as much, for each collector.
        self._under_way = threading.Lock()
        self._under_way.acquire()

    def execute(self) -> None:
        """Collect, and remember how it ended; never raises."""
        with self._lock:
            if self.executing:  # in another lane, which it was moved to
                return
            self.executing = not self.expired
        if not self.executing:
            self._finish(Outcome(success=False, reason="timeout"))
            return
        self.began = time.monotonic()
        try:
            self.runner.collector.collect(self.scrape)
        except NothingToRead as error:
            self.nothing_to_read = True
            outcome = Outcome(supported=False, message=_one_line(text_of(error)))
        except BaseException as error:  # noqa: BLE001  # a plug-in may even call sys.exit
            outcome = self.runner.failure(error, self.scrape)
        else:
            outcome = self.runner.verdict(self.scrape)
        self._finish(outcome)

    def fail(self, reason: Reason, message: str) -> Run:
        """End the collection before it began."""
        self._finish(Outcome(success=False, reason=reason, message=message))
        return self

    def wait(self, deadline: float) -> None:
        """Wait until the collection has ended, at most until `deadline`."""
        end = min(deadline, self.deadline)
        if not self._ends_within(max(end - time.monotonic(), 0)) and deadline >= self.deadline:
            self.expire()

    @property
    def is_over(self) -> bool:
        """Return whether the collection has ended, or was given up."""
        return self.ended or self.expired

    def wait_a_little(self, seconds: float) -> bool:
        """Return whether the collection is over within `seconds`."""
        return self._ends_within(seconds) or self.expired

    def has_lasted(self, seconds: float) -> bool:
        """Return whether the collection has been at it for `seconds` and goes on."""
        return self.executing and not self.ended and time.monotonic() - self.began >= seconds

    def catch_up(self) -> None:
        """Wait for the turn where the collector is now, if it has left the lane meanwhile."""
        with self._lock:
            left_behind = self.lane is not self.runner.lane
            if not left_behind or self.executing or self.expired:
                return
            self.lane = self.runner.lane
        self.lane.submit(self.execute)

    def extend(self, deadline: float) -> None:
        """Give the collection until `deadline`, for the sake of a scrape with more patience."""
        with self._lock:
            more = deadline - self.deadline
            if more > 0:
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
        self.runner.note(self, self._late())

    @property
    def found_nothing_lately(self) -> bool:
        """Return whether there was nothing to read, so short ago that nobody need look again."""
        return self.nothing_to_read and time.monotonic() - self.ended_at < _ABSENT_SECONDS

    def hinders(self, lane: Lane) -> bool:
        """Return whether another collection of the same collector in `lane` has to wait for it."""
        # One that was given up before its turn, in a lane that the collector has left, never collects.
        left_behind = self.expired and not self.executing and self.lane is not lane
        return not self.ended and not left_behind

    def snapshot(self, age: float | None = None) -> Snapshot:
        """Return what there is now."""
        outcome = self.outcome
        if outcome is None or self.expired:
            # Copied at one stroke, since the collection may still be at it.
            samples = {metric: dict(found) for metric, found in list(self.scrape.samples.items())}
            return Snapshot(self.runner, self._late(), samples, time.monotonic() - self.began, age)
        return Snapshot(self.runner, outcome, self.scrape.samples, self.duration, age)

    def _late(self) -> Outcome:
        if self.executing or not self.runner.local:
            message = f"no answer within {self.deadline - self.began:.1f} s"
        else:
            message = "not begun: the collector before it did not end in time"
        return Outcome(success=False, reason="timeout", message=message)

    def _finish(self, outcome: Outcome) -> None:
        now = time.monotonic()
        with self._lock:
            late = self.expired
            # Threads of the collector's own that go on would change what is being rendered.
            self.scrape.closed = True
            self.outcome = outcome
            self.ended_at = now
            if not late:
                self.duration = now - self.began
        if not late:
            self.runner.note(self, outcome)
        self.ended = True
        self._under_way.release()

    def _ends_within(self, seconds: float) -> bool:
        if not self.ended and self._under_way.acquire(timeout=seconds):
            self._under_way.release()  # for the next one who waits
        return self.ended


@dataclass(slots=True)
class Totals:
    """What the collections of one collector amount to since the start."""

    timeouts: int = 0
    series_dropped: int = 0
    errors: Counter[Reason] = field(default_factory=Counter)
    last_success: float = 0.0  # wall clock; 0: none yet


class Runner:
    """One configured collector with its name, its thread and its past."""

    def __init__(self, collector: Collector, kind: str, common: Common, lane: Lane | None) -> None:
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
        self.lane = lane or Lane(f"bts-{self.identity}")
        constant = {"target": self.target} if self.target else {}
        self.frames = Frames(constant | common.labels)
        self.totals = Totals()
        self.seen = False
        self.conflicting = ""
        self.unservable = ""
        self.outcome: Outcome | None = None
        self.current: Run | None = None
        self._allows = _any_of(common.metrics.allow)
        self._denies = _any_of(common.metrics.deny)
        self._lock = threading.Lock()

    def begin(self, deadline: float, shared: list[Run] | None = None) -> Run:
        """Start a collection, or join the one under way; one that is late is never started twice.

        One in a thread that others share is appended to `shared` instead, for `start_together`.
        """
        with self._lock:
            current = self.current
            if current and current.found_nothing_lately:
                return current
            under_way = current and current.hinders(self.lane)
            if current and under_way and not current.expired:
                current.extend(self.own_deadline(deadline))
                return current
            run = Run(self, deadline)
            if not under_way:
                self.current = run
        if current and under_way:
            late = time.monotonic() - current.began
            return run.fail("busy", f"a collection begun {late:.0f} s ago is still running")
        if shared is None or self.own_lane:
            start_together([run])
        else:
            shared.append(run)
        return run

    def look(self, run: Run) -> Snapshot:
        """Return what `run` has to show now."""
        with self._lock:
            # Whoever else waits for it has it; ended, it would only keep its samples alive.
            if self.current is run and run.ended and not run.nothing_to_read:
                self.current = None
        return run.snapshot()

    def start(self) -> None:
        """Let the collector begin what it does between scrapes; never raises."""
        try:
            self.lane.submit(self._start)
        except RuntimeError as error:
            self._complain("start", error)

    def stop(self, patience: float = 0.0) -> Lane:
        """End the collector and its thread, without waiting for one that hangs; never raises.

        A collection under way has `patience` seconds to end before that. Returns the thread that
        does it, for who wants to wait for a while.
        """
        # In a thread of its own: the lane's may be the one that hangs.
        last = Lane(f"bts-stop-{self.identity}")
        try:
            last.submit(partial(self._stop, patience))
        except RuntimeError as error:
            self._complain("stop", error)
        last.stop()
        if self.own_lane:
            self.lane.stop()
        return last

    def _start(self) -> None:
        try:
            self.collector.start()
        except BaseException as error:  # noqa: BLE001  # a plug-in may even call sys.exit
            self._complain("start", error)

    def _stop(self, patience: float) -> None:
        if self.current is not None:
            self.current.wait_a_little(patience)
        try:
            self.collector.stop()
        except BaseException as error:  # noqa: BLE001  # a plug-in may even call sys.exit
            self._complain("stop", error)

    def _complain(self, what: str, error: BaseException) -> None:
        message = f"{type(error).__name__}: {text_of(error)}"
        log.error("%s failed: %s", what, _one_line(message), extra={"collector": self.identity})

    def failure(self, error: BaseException, scrape: Scrape) -> Outcome:
        """Return the outcome that `error` means."""
        reason = reason_of(error)
        if reason == "refused" and self.common.optional and not self.seen:
            scrape.samples.clear()
            message = f"not there, and optional: {text_of(error)}"
            return Outcome(supported=False, message=_one_line(message))
        known = isinstance(error, ExporterError | OSError)
        message = text_of(error) if known else f"{type(error).__name__}: {text_of(error)}"
        if reason == "internal":
            message += _place(error)
            log.debug("%s failed", self.identity, exc_info=error)
        return Outcome(success=False, reason=reason, message=_one_line(message))

    def verdict(self, scrape: Scrape) -> Outcome:
        """Return the outcome of a collection that returned: what it lost makes it a failure."""
        if scrape.rejected:
            reason, message = scrape.rejected
            return Outcome(success=False, reason=reason, message=message)
        if scrape.dropped:
            limit = self.common.max_series
            message = f"{scrape.dropped} series dropped: raise max_series (now {limit}), or filter metrics"
            return Outcome(success=False, reason="limited", message=message)
        return _SUCCESS

    def note(self, run: Run, outcome: Outcome) -> None:
        """Count an outcome, and log it where it differs from the one before."""
        with self._lock:
            totals = self.totals
            totals.series_dropped += run.scrape.dropped
            if outcome.supported and outcome.reason in _ANSWERED:
                self.seen = True
            if outcome.success and outcome.supported:
                totals.last_success = time.time()
            elif outcome.reason is not None:
                totals.errors[outcome.reason] += 1
                totals.timeouts += outcome.reason == "timeout"
            before, self.outcome = self.outcome, outcome
        if outcome is not before:
            _log_change(self.identity, before, outcome)

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
        message = _one_line(f"cannot be served: {type(error).__name__}: {text_of(error)}")
        outcome = Outcome(success=False, reason="invalid_sample", message=message)
        with self._lock:
            self.totals.errors["invalid_sample"] += 1
            known, self.unservable = self.unservable, message
        if message != known:
            log.error("samples left out: %s", message, extra={"collector": self.identity})
        return shot._replace(outcome=outcome, samples={})

    def conflict(self, message: str) -> None:
        """Count that samples could not be served because another collector serves them."""
        with self._lock:
            self.totals.errors["conflict"] += 1
            known, self.conflicting = self.conflicting, message
        if message != known:
            cure = "rename one, or leave one out by metrics: {deny: [NAME]}"
            log.error("samples left out: %s: %s", message, cure, extra={"collector": self.identity})


def start_together(runs: Sequence[Run]) -> None:
    """Have collections executed, those of one thread as one job: to wake it for each takes longer."""
    lanes: dict[Lane, list[Run]] = {}
    for run in runs:
        lanes.setdefault(run.lane, []).append(run)
    for lane, several in lanes.items():
        try:
            lane.submit(partial(_execute, several))
        except RuntimeError as error:
            for run in several:
                run.fail("os", f"no thread to collect in: {error}")


def _execute(runs: Sequence[Run]) -> None:
    for run in runs:
        run.execute()


def _log_change(identity: str, before: Outcome | None, now: Outcome) -> None:
    if before is not None and _state(before) == _state(now):
        return
    details = {"collector": identity}
    if not now.success:
        log.error("collection fails: %s", now.message, extra=details | {"reason": now.reason})
    elif not now.supported:
        level = logging.INFO if now.message.startswith("not there") else logging.DEBUG
        log.log(level, "nothing to read: %s", now.message, extra=details)
    elif before is not None:
        log.info("collection works again", extra=details)


def _state(outcome: Outcome) -> tuple[bool, bool, str | None]:
    # A collection that hangs is late once and in the way from then on: one state, one line.
    reason = "timeout" if outcome.reason == "busy" else outcome.reason
    return outcome.success, outcome.supported, reason


def _place(error: BaseException) -> str:
    """Return where in a plug-in's code an error was raised: what its author asks first."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return ""
    return f" ({Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno})"


def _one_line(message: str) -> str:
    return " ".join(message.split())[:500]


def _any_of(globs: Sequence[str]) -> re.Pattern[str] | None:
    return re.compile("|".join(map(fnmatch.translate, globs))) if globs else None
