"""The canary: test messages through its own queues show whether the broker delivers, and how fast.

They are sent between scrapes in a separate thread, so a broker that hangs does not delay a scrape.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Event, Lock, Thread
from time import monotonic

from bts_collectors.rabbitmq.amqp.probe import Outcome, Prober
from bts_collectors.rabbitmq.errors import Failure
from bts_collectors.rabbitmq.metrics.amqp import (
    CANARY_CONFIRM,
    CANARY_END_TO_END,
    CANARY_PROBES,
    CANARY_UP,
    RESULTS,
    Result,
)
from bts_exporter import HistogramAccumulator, Scrape, TargetError

#: Upper bounds in seconds.
BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
#: Interval of checks for heartbeats.
POLL_SECONDS = 1.0
#: Time that `close` waits for the thread.
STOP_TIMEOUT = 1.0


class Record:
    """The results of the probes through one type of queue."""

    def __init__(self) -> None:
        self.latest: Result | None = None
        self.counts = dict.fromkeys(RESULTS, 0)
        self.confirm = HistogramAccumulator(BUCKETS)
        self.end_to_end = HistogramAccumulator(BUCKETS)

    def add(self, outcome: Outcome) -> None:
        """Add one result."""
        self.latest = outcome.result
        self.counts[outcome.result] += 1
        if outcome.times is not None:
            self.confirm.observe(outcome.times.confirm)
            self.end_to_end.observe(outcome.times.end_to_end)


class Canary:
    """Sends a probe through a queue of each type at intervals, in a separate thread."""

    def __init__(
        self, prober: Prober, kinds: Sequence[str], interval: float, timeout: float
    ) -> None:
        """Send through queues of the types `kinds` every `interval` seconds.

        A probe that takes more than `timeout` seconds is reported as failed before it ends.
        """
        self._prober = prober
        self._interval = interval
        self._timeout = timeout
        self._records = {kind: Record() for kind in kinds}
        self._failure: Failure | None = None
        #: Start of the current probe on the clock of `monotonic`; None between probes.
        self._started: float | None = None
        self._lock = Lock()
        self._stop = Event()
        self._thread: Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread = Thread(target=self._run, name="rabbitmq-canary", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the thread, which deletes its queues; a thread that hangs ends by its missing heartbeats."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(STOP_TIMEOUT)

    def collect(self, scrape: Scrape) -> None:
        """Emit the results; TargetError with the reason if the latest probes could not be sent."""
        with self._lock:
            late = self._started is not None and monotonic() - self._started > self._timeout
            for kind, record in self._records.items():
                self._emit(scrape, kind, record, late=late)
            failure = self._failure
        if self._thread is not None and not self._thread.is_alive() and not self._stop.is_set():
            self._started = None
            self.start()
            message = "canary: its thread ended with an error (see the log) and was restarted"
            raise TargetError(reason="internal", message=message)
        if failure is not None:
            raise failure.error()

    def _emit(self, scrape: Scrape, kind: str, record: Record, *, late: bool) -> None:
        labels = (self._prober.vhost, kind)
        if late or record.latest is not None:
            scrape.emit(CANARY_UP, not late and record.latest == "ok", *labels)
        for result, count in record.counts.items():
            scrape.emit(CANARY_PROBES, count, *labels, result)
        record.confirm.emit(scrape, CANARY_CONFIRM, *labels)
        record.end_to_end.emit(scrape, CANARY_END_TO_END, *labels)

    # The methods below run in the thread that owns the connection.

    def _run(self) -> None:
        due = monotonic()
        while not self._stop.wait(max(min(due - monotonic(), POLL_SECONDS), 0)):
            if monotonic() >= due:
                due = monotonic() + self._interval
                self._send_all()
            else:
                self._prober.process_heartbeats()
        self._prober.close()

    def _send_all(self) -> None:
        failure = None
        outcome: Outcome | None = None
        for kind, record in self._records.items():
            # If the connection failed for one type, the next one would take as long to fail.
            if outcome is None or self._prober.is_open:
                with self._lock:
                    self._started = monotonic()
                outcome = self._prober.send(kind)
            failure = failure or outcome.failure
            with self._lock:
                record.add(outcome)
                self._started = None
        with self._lock:
            self._failure = failure
