"""How long a pipeline takes: from a message that goes in to the one that comes out for it.

Two messages are a pair if they have the same key: levels of their topics, values in their
payloads, or both. The first that went in with a key is the first to come out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock

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

LATENCY = histogram(
    "mqtt_pipeline_latency_seconds",
    "Time from a message of in_topic to the one of out_topic with the same key, as they reach us.",
    "pipeline",
)
PENDING = gauge(
    "mqtt_pipeline_pending_messages", "Messages that went in and wait for their pair.", "pipeline"
)
UNMATCHED = counter(
    "mqtt_pipeline_unmatched_total",
    "Messages without a pair, by side: in, those without a key, beyond max_pending or before a lost"
    " connection; out, those that no message waited for.",
    ("pipeline", "side"),
)
TIMEOUTS = counter(
    "mqtt_pipeline_timeouts_total",
    "Messages that went in and had no pair within the pipeline's timeout.",
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


class PipelineConfig(CollectorConfig, frozen=True):
    """Two topics, and what makes their messages pairs."""

    in_topic: Pattern
    out_topic: Pattern
    #: Where an id is in the payload.
    in_id: Path | None = None
    out_id: Path | None = None
    in_format: Format = "json"
    out_format: Format = "json"
    timeout: Duration = Duration(60)
    max_pending: int = 10_000

    def __post_init__(self) -> None:
        """Check what the types cannot; ValueError with what is wrong."""
        both = (Subscription(self.in_topic.filter), Subscription(self.out_topic.filter))
        if len(disjoint(both)) < len(both):
            msg = f"out_topic: {self.out_topic} and in_topic {self.in_topic} match the same topics"
            raise ValueError(msg)
        if (self.in_id is None) != (self.out_id is None):
            msg = "in_id, out_id: an id is compared with another: set both or neither"
            raise ValueError(msg)
        if self.in_id is None and not self.common:
            msg = "no key: give in_topic and out_topic a {name} in common, or set in_id and out_id"
            raise ValueError(msg)
        for side, form, path in (
            ("in", self.in_format, self.in_id),
            ("out", self.out_format, self.out_id),
        ):
            if path is not None and not fits(form, path):
                msg = f"{side}_id: {path} is not in a payload of {side}_format {form}"
                raise ValueError(msg)
        if not self.timeout:
            msg = "timeout: must be more than 0 s"
            raise ValueError(msg)
        if not 0 < self.max_pending <= _MAX_PENDING:
            msg = f"max_pending: must be between 1 and {_MAX_PENDING}, got {self.max_pending}"
            raise ValueError(msg)

    @property
    def common(self) -> tuple[str, ...]:
        """Return the names of levels that both topics have."""
        return tuple(name for name in self.in_topic.labels if name in self.out_topic.labels)


class Pipeline:
    """Pairs messages; fed by the network thread, shown by collections."""

    def __init__(
        self, name: str, config: PipelineConfig, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Give the name of the pipeline, for labels."""
        self.subscriptions = (
            Subscription(config.in_topic.filter),
            Subscription(config.out_topic.filter),
        )
        self._name = name
        self._config = config
        self._in_id = identifier(config.in_format, config.in_id)
        self._out_id = identifier(config.out_format, config.out_id)
        self._clock = clock
        self._lock = Lock()
        self._pending: dict[int, tuple[Key, float]] = {}  # by number; the oldest is first
        # Most keys have one number, and a list of one is small.
        self._numbers: dict[Key, list[int]] = {}
        self._came_in = self._paired = self._timeouts = 0
        self._unmatched = {"in": 0, "out": 0}
        self._latency = HistogramAccumulator(BUCKETS)
        # Until then messages may wait that are not pending here: of before the connection or given
        # up, which a pair ends, since the service has come to ours; or beyond max_pending.
        self._unknown_until = self._overfull_until = 0.0

    def begin(self) -> None:
        """Give up what is pending: its pairs may have passed while there was no connection."""
        with self._lock:
            self._unmatched["in"] += len(self._pending)
            self._pending.clear()
            self._numbers.clear()
            self._mark_unknown()

    def route(self, topic: str) -> Handler | None:
        """Return what takes the messages of a topic on either side."""
        config = self._config
        if (levels := self._levels(config.in_topic, topic)) is not None:
            return self._handler(self._add_input, "in", levels, self._in_id)
        if (levels := self._levels(config.out_topic, topic)) is not None:
            return self._handler(self._match_output, "out", levels, self._out_id)
        return None

    def tick(self, publish: Publish) -> None:  # noqa: ARG002  # Receiver
        """Give up what has waited for too long."""
        with self._lock:
            self._expire()

    def emit(self, scrape: Scrape, *, connected: bool) -> None:
        """Emit what was measured; what is pending only while we are there to see it end."""
        name = self._name
        labels = ("mqtt", name, "")
        with self._lock:
            self._expire()
            self._latency.emit(scrape, LATENCY, name)
            for side, count in self._unmatched.items():
                scrape.emit(UNMATCHED, count, name, side)
            scrape.emit(TIMEOUTS, self._timeouts, name)
            scrape.emit(backlog.PUBLISHED, self._came_in, *labels)
            scrape.emit(backlog.CONSUMED, self._paired, *labels)
            if connected:
                scrape.emit(PENDING, len(self._pending), name)
                self._emit_lag(scrape, labels)

    def _emit_lag(self, scrape: Scrape, labels: tuple[str, str, str]) -> None:
        """Emit backlog and age where they are known; of the age at least how much it is."""
        known = self._clock() >= max(self._unknown_until, self._overfull_until)
        if known:
            scrape.emit(backlog.BACKLOG, len(self._pending), *labels)
        if known or self._pending:
            method = "message_time" if known else "lower_bound"
            scrape.emit(backlog.LAG_SECONDS, self._age(), *labels)
            scrape.emit(backlog.LAG_METHOD, 1, *labels, method)

    def _mark_unknown(self) -> None:
        self._unknown_until = self._clock() + self._config.timeout

    def _levels(self, pattern: Pattern, topic: str) -> Key | None:
        """Return the levels of the topic that belong to the key; None where it does not match."""
        values = pattern.match(topic)
        if values is None:
            return None
        named = dict(zip(pattern.labels, values, strict=True))
        levels = tuple(named[name] for name in self._config.common)
        return levels if all(len(level) <= MAX_ID for level in levels) else None

    def _handler(
        self, pair: Callable[[Key], None], side: str, levels: Key, identify: Identify
    ) -> Handler:
        def handle(payload: bytes, retained: bool, _properties: bytes = b"") -> None:  # noqa: FBT001  # Handler
            if retained:  # of before our time
                return
            found = identify(payload)
            with self._lock:
                if found is None:
                    self._unmatched[side] += 1
                else:
                    pair((*levels, found))

        return handle

    def _add_input(self, key: Key) -> None:
        self._came_in += 1
        if len(self._pending) >= self._config.max_pending:
            self._expire()
        if len(self._pending) >= self._config.max_pending:
            # The new one, not the oldest: that one's age is how late the pipeline is.
            self._unmatched["in"] += 1
            self._overfull_until = self._clock() + self._config.timeout
            return
        self._pending[self._came_in] = key, self._clock()
        self._numbers.setdefault(key, []).append(self._came_in)

    def _match_output(self, key: Key) -> None:
        if key not in self._numbers:
            self._unmatched["out"] += 1
            return
        entered = self._take(key)
        self._paired += 1
        self._unknown_until = 0.0
        self._latency.observe(self._clock() - entered)

    def _take(self, key: Key) -> float:
        """Take the first with this key away; return when it came in."""
        numbers = self._numbers[key]
        _, entered = self._pending.pop(numbers.pop(0))
        if not numbers:
            del self._numbers[key]
        return entered

    def _expire(self) -> None:
        before = self._clock() - self._config.timeout
        while self._pending:
            key, entered = next(iter(self._pending.values()))
            if entered >= before:
                return
            self._take(key)
            self._timeouts += 1
            self._mark_unknown()

    def _age(self) -> float:
        """Return for how long the oldest has been pending, in seconds; 0 if none is."""
        if not self._pending:
            return 0.0
        _, entered = next(iter(self._pending.values()))
        return self._clock() - entered


def fits(form: Format, path: Path) -> bool:
    """Return whether a payload can have something at a path: CSV has columns, others but JSON one value."""
    if form == "csv":
        return len(path.steps) == 1 and isinstance(path.steps[0], int)
    return form == "json" or not path.steps


def identifier(form: Format, path: Path | None) -> Identify:
    """Return what finds the id in a payload, a text or whole number: None where there is none.

    Without a path every message has the same: the topic alone makes its key.
    """
    if path is None:
        return lambda _: ""
    decode = decoder(form)

    def identify(payload: bytes) -> str | None:
        try:
            found = path.find(decode(payload))
        except PayloadError:
            return None
        if isinstance(found, int) and not isinstance(found, bool):
            found = str(found)
        return found if isinstance(found, str) and len(found) <= MAX_ID else None

    return identify
