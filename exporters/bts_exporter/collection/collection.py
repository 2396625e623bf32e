"""One collection of one collector: its deadline, how it ended, and what there is of it so far."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from bts_exporter.collection.outcome import Outcome, failure_of
from bts_exporter.errors import Reason
from bts_exporter.metric import Key, Metric
from bts_exporter.scrape import Scrape

#: For how long an absent source is not looked for again, in seconds: hardware and kernel modules
#: rarely appear while the exporter runs.
_ABSENT_SECONDS = 60.0

#: How much longer a collection may take, once, if no scrape gave it up when it was late, in seconds.
_EXTENSION = 0.4


#: What a collection has emitted, with how it ended, or that it is late, and its duration so far.
Result = tuple[Outcome, dict[Metric, dict[Key, float]], float]


class Collection:
    """One collection, shared by all scrapes that overlap it: a job of a worker.

    It ends exactly once. A scrape may give it up before: from then on it is late, however it ends.
    """

    def __init__(
        self,
        scrape: Scrape,
        deadline: float,
        collect: Callable[[Scrape], Outcome],
        on_outcome: Callable[[Scrape, Outcome], None],
        *,
        exclusive: bool,
    ) -> None:
        """Prepare the collection; a worker's thread calls `execute`.

        `collect` writes to `scrape` and never raises; `on_outcome` is called once, with how the
        collection ended. `exclusive` says that the worker serves this collector only.
        """
        self.began = time.monotonic()
        self.deadline = deadline
        #: The seconds that it was given by the scrape that began it: its time-outs are made of them.
        self.granted = self.deadline - self.began
        self.scrape = scrape
        self.ended_at = 0.0  # on the clock of time.monotonic
        self.duration = 0.0
        self.outcome: Outcome | None = None
        self.expired = False
        self.executing = False
        #: Whether the collection's thread is through with it.
        self.ended = False
        self._collect = collect
        self._on_outcome = on_outcome
        self._exclusive = exclusive
        self._was_extended = False
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
        self._conclude(self._collect(self.scrape))

    def abandon(self) -> None:
        """End a collection whose thread was interrupted in it by another, or died."""
        self.fail("internal", "an exception from another thread interrupted the collection")

    def fail(self, reason: Reason, message: str) -> Collection:
        """End the collection as a failure, unless it has ended."""
        self._conclude(Outcome(success=False, reason=reason, message=message))
        return self

    def fail_behind(self, running: Collection) -> Collection:
        """Fail because `running` of the same collector has not ended; take over its `*_up` metrics."""
        self.scrape.samples.update(
            (metric, values)
            for metric, values in _copy_of(running.scrape.samples).items()
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
            self._under_way.release()  # for the next thread that waits
        return self.ended

    def extend(self, deadline: float) -> None:
        """Give the collection until `deadline`, because a scrape with a longer timeout joins it."""
        now = time.monotonic()
        if self.executing or self._exclusive:
            # No more time in all than its own would have: or scrapes that overlap never give it up.
            deadline = min(deadline, self.began + deadline - now)
            if deadline < now and not self._was_extended:
                # No scrape noticed that it was late: the process may have been stopped.
                self._was_extended = True
                deadline = now + _EXTENSION
        self.postpone(deadline)

    def postpone(self, deadline: float) -> None:
        """Give the collection until `deadline`, if that is later than its own."""
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
        # One that waits for the shared worker has not failed: it had no turn.
        if self.executing or self._exclusive:
            self._on_outcome(self.scrape, self._late())

    @property
    def is_absence(self) -> bool:
        """Whether the source was absent, so recently that it is not looked for again."""
        absent = self.outcome is not None and self.outcome.absent and not self.expired
        return absent and time.monotonic() - self.ended_at < _ABSENT_SECONDS

    @property
    def blocks(self) -> bool:
        """Whether the collector cannot be collected before this one has ended."""
        # One given up before its turn never collects; but in its own worker something else hangs.
        return not self.ended and (self.executing or not self.expired or self._exclusive)

    def result(self) -> Result:
        """Return what there is now."""
        outcome = self.outcome
        if outcome is None or self.expired:
            seconds = time.monotonic() - self.began
            return self._late(), _copy_of(self.scrape.samples), seconds
        return outcome, self.scrape.samples, self.duration

    def _late(self) -> Outcome:
        if self.executing or self._exclusive:
            message = f"no answer within {self.deadline - self.began:.1f} s"
        else:
            message = "not begun: the collector before it did not end in time"
        return failure_of([("timeout", message), *self.scrape.losses], self.scrape.unlisted)

    def _conclude(self, outcome: Outcome) -> None:
        now = time.monotonic()
        with self._lock:
            first = self.outcome is None and not self.ended
            if first:
                # Threads of the collector that continue would change samples that are being rendered.
                self.scrape.closed = True
                self.outcome = outcome
                self.ended_at = now
                if not self.expired:
                    self.duration = now - self.began
        if first and not self.expired:
            self._on_outcome(self.scrape, outcome)
        self._end()

    def _end(self) -> None:
        if not self.ended:  # called by its thread, or after that thread was found interrupted
            self.ended = True
            self._under_way.release()


def _copy_of(
    samples: Mapping[Metric, Mapping[Key, float]],
) -> dict[Metric, dict[Key, float]]:
    """Return the samples of a collection that may still be emitting, without invalid ones."""
    # Copied in one step each, since another thread may change them.
    return {
        metric: dict(values)
        for metric, values in list(samples.items())
        if type(metric) is Metric and type(values) is dict
    }
