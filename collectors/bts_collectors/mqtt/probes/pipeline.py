"""Pipelines: the time from a message of one topic to the matching message of another.

Two messages match if they have the same key: topic levels, a payload value, or both. Messages with
the same key are matched in their order.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import islice
from threading import Lock

import msgspec

from bts_collectors.mqtt.client.router import Handler, Publish
from bts_collectors.mqtt.client.topics import Pattern, Subscription, disjoint
from bts_collectors.mqtt.rules.payloads import Format, Path, PayloadError, decoder
from bts_exporter import (
    CollectorConfig,
    Duration,
    HistogramAccumulator,
    Metric,
    Scrape,
    backlog,
    counter,
    gauge,
    histogram,
)

#: Seconds.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
MAX_ID = 256  # characters
_MAX_PENDING = 100_000
#: Pending messages that are stored for a restart of the exporter; the oldest ones.
MOST_STORED = 1000

LATENCY = histogram(
    "mqtt_pipeline_latency_seconds",
    "Time from a message of in_topic to the message of out_topic with the same key, both as received.",
    "pipeline",
)
PENDING = gauge(
    "mqtt_pipeline_pending_messages",
    "Input messages without a matching output message so far.",
    "pipeline",
)
UNMATCHED = counter(
    "mqtt_pipeline_unmatched_total",
    "Messages that cannot be matched, by side (in: without a key, beyond max_pending, or pending when the"
    " connection was lost; out: without a pending input message).",
    ("pipeline", "side"),
)
TIMEOUTS = counter(
    "mqtt_pipeline_timeouts_total",
    "Input messages without a matching output message within the pipeline's timeout.",
    "pipeline",
)
METRICS: tuple[Metric, ...] = (
    LATENCY,
    PENDING,
    UNMATCHED,
    TIMEOUTS,
    backlog.BACKLOG,
    backlog.LAG_SECONDS,
    backlog.LAG_METHOD,
    backlog.PUBLISHED,
    backlog.CONSUMED,
)

Key = tuple[str, ...]
Identify = Callable[[bytes], str | None]


class PipelineState(msgspec.Struct, frozen=True):
    """A pipeline as it is stored."""

    #: Key and time of arrival of each pending message, the oldest first.
    pending: list[tuple[Key, float]]
    overfull_until: float


class PipelineConfig(CollectorConfig, frozen=True):
    """Settings of a pipeline: two topics, and the key that matches their messages."""

    in_topic: Pattern
    out_topic: Pattern
    #: Path of the id in the payload.
    in_id: Path | None = None
    out_id: Path | None = None
    in_format: Format = "json"
    out_format: Format = "json"
    timeout: Duration = Duration(60)
    max_pending: int = 10_000

    def __post_init__(self) -> None:
        """Check values and their combinations; ValueError explains the problem."""
        both = (Subscription(self.in_topic.filter), Subscription(self.out_topic.filter))
        if len(disjoint(both)) < len(both):
            msg = f"out_topic: {self.out_topic} and in_topic {self.in_topic} match the same topics"
            raise ValueError(msg)
        if (self.in_id is None) != (self.out_id is None):
            msg = "in_id, out_id: the two ids are compared, set both or neither"
            raise ValueError(msg)
        if self.in_id is None and not self.common:
            msg = "no key: give in_topic and out_topic a {name} in common, or set in_id and out_id"
            raise ValueError(msg)
        for side, form, path in (
            ("in", self.in_format, self.in_id),
            ("out", self.out_format, self.out_id),
        ):
            if path is not None and not fits(form, path):
                msg = f"{side}_id: {path} is not a valid path for {side}_format {form}"
                raise ValueError(msg)
        if not self.timeout:
            msg = "timeout: must be more than 0 s"
            raise ValueError(msg)
        if not 0 < self.max_pending <= _MAX_PENDING:
            msg = f"max_pending: must be between 1 and {_MAX_PENDING}, got {self.max_pending}"
            raise ValueError(msg)

    @property
    def common(self) -> tuple[str, ...]:
        """Return the level names that both topics have."""
        return tuple(name for name in self.in_topic.labels if name in self.out_topic.labels)


class Pipeline:
    """Matches messages; the network thread writes, collections read."""

    def __init__(
        self, name: str, config: PipelineConfig, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Take the pipeline's name, for its label."""
        self.subscriptions = (
            Subscription(config.in_topic.filter),
            Subscription(config.out_topic.filter),
        )
        self.name = name
        self._config = config
        self._in_id = identifier(config.in_format, config.in_id)
        self._out_id = identifier(config.out_format, config.out_id)
        self._clock = clock
        self._lock = Lock()
        self._pending: dict[int, tuple[Key, float]] = {}  # by sequence number; the oldest is first
        # Sequence numbers by key; most keys have one.
        self._numbers: dict[Key, list[int]] = {}
        self._inputs = self._matches = self._timeouts = 0
        self._unmatched = {"in": 0, "out": 0}
        self._latency = HistogramAccumulator(BUCKETS)
        # Until these times the service may have a backlog that is not in _pending: messages from before
        # the connection or timed out (until the next match), or messages beyond max_pending.
        self._unknown_until = self._overfull_until = 0.0
        # Messages that were pending before a restart of the exporter, and when that was; until the first connection.
        self._stored: tuple[list[tuple[Key, float]], float] | None = None

    def begin(self) -> None:
        """Clear the pending messages: their outputs may have passed while disconnected."""
        with self._lock:
            self._unmatched["in"] += len(self._pending)
            self._pending.clear()
            self._numbers.clear()
            self._continue_stored()
            self._mark_unknown()

    def save(self) -> PipelineState | None:
        """Return what `restore` needs; None if that has not been used yet."""
        with self._lock:
            pending = list(islice(self._pending.values(), MOST_STORED))
            return None if self._stored else PipelineState(pending, self._overfull_until)

    def restore(self, state: PipelineState, downtime: float, shift: float) -> None:
        """Take the messages that were pending `downtime` seconds ago, for the first connection."""
        pending = [(key, arrived + shift) for key, arrived in state.pending]
        with self._lock:
            self._stored = pending, self._clock() - downtime
            self._overfull_until = state.overfull_until + shift

    def _continue_stored(self) -> None:
        """Continue with the stored messages that had waited longer than the exporter was not connected.

        Nothing shows whether the outputs of others passed in that time.
        """
        if self._stored is None:
            return
        (pending, saved), self._stored = self._stored, None
        begin = saved - (self._clock() - saved)
        kept = [(key, arrived) for key, arrived in pending if arrived <= begin]
        # Their numbers are negative; new messages begin with 1.
        for number, (key, arrived) in enumerate(kept, -len(kept)):
            self._pending[number] = key, arrived
            self._numbers.setdefault(key, []).append(number)

    def route(self, topic: str) -> Handler | None:
        """Return the handler for a topic of either side."""
        config = self._config
        if (levels := self._levels(config.in_topic, topic)) is not None:
            return self._handler(self._add_input, "in", levels, self._in_id)
        if (levels := self._levels(config.out_topic, topic)) is not None:
            return self._handler(self._match_output, "out", levels, self._out_id)
        return None

    def tick(self, publish: Publish) -> None:  # noqa: ARG002  # Receiver
        """Expire messages that are pending for too long."""
        with self._lock:
            self._expire()

    def emit(self, scrape: Scrape, *, connected: bool) -> None:
        """Emit the measurements; pending messages only while connected, as only then they can be matched."""
        name = self.name
        labels = ("mqtt", name, "")
        with self._lock:
            self._expire()
            self._latency.emit(scrape, LATENCY, name)
            for side, count in self._unmatched.items():
                scrape.emit(UNMATCHED, count, name, side)
            scrape.emit(TIMEOUTS, self._timeouts, name)
            scrape.emit(backlog.PUBLISHED, self._inputs, *labels)
            scrape.emit(backlog.CONSUMED, self._matches, *labels)
            if connected:
                scrape.emit(PENDING, len(self._pending), name)
                self._emit_lag(scrape, labels)

    def _emit_lag(self, scrape: Scrape, labels: tuple[str, str, str]) -> None:
        """Emit backlog and age where they are known; else a lower bound of the age."""
        known = self._clock() >= max(self._unknown_until, self._overfull_until)
        if known:
            scrape.emit(backlog.BACKLOG, len(self._pending), *labels)
        if known or self._pending:
            is_stored = next(iter(self._pending), 0) < 0
            method = "message_time" if known and not is_stored else "lower_bound"
            scrape.emit(backlog.LAG_SECONDS, self._age_seconds(), *labels)
            scrape.emit(backlog.LAG_METHOD, 1, *labels, method)

    def _mark_unknown(self) -> None:
        self._unknown_until = self._clock() + self._config.timeout

    def _levels(self, pattern: Pattern, topic: str) -> Key | None:
        """Return the topic levels of the key; None if the topic does not match."""
        values = pattern.match(topic)
        if values is None:
            return None
        named = dict(zip(pattern.labels, values, strict=True))
        levels = tuple(named[name] for name in self._config.common)
        return levels if all(len(level) <= MAX_ID for level in levels) else None

    def _handler(
        self, match: Callable[[Key], None], side: str, levels: Key, identify: Identify
    ) -> Handler:
        def handle(payload: bytes, retained: bool, _properties: bytes = b"") -> None:  # noqa: FBT001  # Handler
            if retained:  # sent before the subscription
                return
            identity = identify(payload)
            with self._lock:
                if identity is None:
                    self._unmatched[side] += 1
                else:
                    match((*levels, identity))

        return handle

    def _add_input(self, key: Key) -> None:
        self._inputs += 1
        if len(self._pending) >= self._config.max_pending:
            self._expire()
        if len(self._pending) >= self._config.max_pending:
            # Discard the new message, not the oldest: its age is the pipeline's lag.
            self._unmatched["in"] += 1
            self._overfull_until = self._clock() + self._config.timeout
            return
        self._pending[self._inputs] = key, self._clock()
        self._numbers.setdefault(key, []).append(self._inputs)

    def _match_output(self, key: Key) -> None:
        if key not in self._numbers:
            self._unmatched["out"] += 1
            return
        if self._numbers[key][0] < 0 and self._config.in_id is None:
            self._drop_stored(key)
            self._unmatched["out"] += 1
            return
        arrived = self._pop(key)
        self._matches += 1
        self._unknown_until = 0.0
        self._latency.observe(self._clock() - arrived)

    def _pop(self, key: Key) -> float:
        """Remove the oldest message with this key; return its arrival time."""
        numbers = self._numbers[key]
        _, arrived = self._pending.pop(numbers.pop(0))
        if not numbers:
            del self._numbers[key]
        return arrived

    def _drop_stored(self, key: Key) -> None:
        """Drop the messages with this key from before a restart: nothing shows which of them the output is of."""
        while self._numbers.get(key, [0])[0] < 0:
            self._pop(key)
            self._unmatched["in"] += 1

    def _expire(self) -> None:
        before = self._clock() - self._config.timeout
        while self._pending:
            key, arrived = next(iter(self._pending.values()))
            if arrived >= before:
                return
            self._pop(key)
            self._timeouts += 1
            self._mark_unknown()

    def _age_seconds(self) -> float:
        """Return the age of the oldest pending message in seconds; 0 if there is no such message."""
        if not self._pending:
            return 0.0
        _, arrived = next(iter(self._pending.values()))
        return self._clock() - arrived


def fits(form: Format, path: Path) -> bool:
    """Return whether a path is valid for a format: a column for CSV, any path for JSON, else none."""
    if form == "csv":
        return len(path.steps) == 1 and isinstance(path.steps[0], int)
    return form == "json" or not path.steps


def identifier(form: Format, path: Path | None) -> Identify:
    """Return a function that reads the id from a payload: a text or integer, None if missing.

    Without a path the id is always "": the key consists of topic levels only.
    """
    if path is None:
        return lambda _: ""
    decode = decoder(form)

    def identify(payload: bytes) -> str | None:
        try:
            value = path.find(decode(payload))
        except PayloadError:
            return None
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        return value if isinstance(value, str) and len(value) <= MAX_ID else None

    return identify
