"""Lag of the consumers of streams, from /api/stream/consumers, which is current.

Consumers of a stream over AMQP are not listed there.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from time import monotonic
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from bts_collectors.rabbitmq.api.models import (
    ApiModel,
    Flag,
    Key,
    Nothing,
    Number,
    QueueName,
    columns,
    known,
)
from bts_collectors.rabbitmq.api.responses import content
from bts_collectors.rabbitmq.metrics.backlog import GROUP, SYSTEM, destination
from bts_collectors.rabbitmq.metrics.queue_limits import Limits
from bts_collectors.rabbitmq.metrics.remaining import emit_stream_limits
from bts_exporter import HttpResponse, Scrape, backlog, gauge

LABELS = ("vhost", "queue")

MAX_OFFSET_LAG = gauge(
    "rabbitmq_stream_consumer_max_offset_lag",
    "Largest number of messages not yet sent to a consumer (/api/stream/consumers offset_lag).",
    LABELS,
)
CONSUMERS = gauge(
    "rabbitmq_stream_consumers",
    "Consumers over the stream protocol (/api/stream/consumers).",
    LABELS,
)
SUPER_STREAM_LAG = gauge(
    "rabbitmq_super_stream_offset_lag",
    "Messages in all partitions not yet sent to the consumers of this name"
    " (/api/stream/consumers offset_lag, properties.super-stream).",
    ("vhost", "super_stream", "consumer"),
)
METRICS = (MAX_OFFSET_LAG, CONSUMERS, SUPER_STREAM_LAG)


class Properties(ApiModel):
    """`properties` of a consumer, set by the client."""

    name: Any = None
    super_stream: Any = msgspec.field(default=None, name="super-stream")


class StreamConsumer(ApiModel):
    """An item of /api/stream/consumers."""

    queue: QueueName
    offset: Number = None
    offset_lag: Number = None
    #: False for an inactive single active consumer.
    active: Flag = None
    properties: Properties | Nothing = None


PATH = f"/api/stream/consumers?{columns(StreamConsumer)}"
_CONSUMERS = msgspec.json.Decoder(list[StreamConsumer])


class Reader(NamedTuple):
    """The consumers of one stream that have the same name."""

    name: str
    super_stream: str
    #: Offset of the last message sent to the consumer with the largest lag.
    offset: float
    lag: float


def read_consumers(response: HttpResponse) -> list[StreamConsumer]:
    """Return the consumers, none if the broker lacks the plugin; TargetError for an invalid response."""
    return [] if response.status == HTTPStatus.NOT_FOUND else content(response, _CONSUMERS)


class StreamLags:
    """The lag of all consumers of streams; the lag in seconds needs several collections."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        """Start without history; `clock` is monotonic, in seconds."""
        self._clock = clock
        self._timelines: dict[Key, backlog.Timeline] = {}

    def emit(
        self,
        scrape: Scrape,
        streams: Collection[Key],
        consumers: Iterable[StreamConsumer],
        limits: Mapping[Key, Limits] = MappingProxyType({}),
    ) -> None:
        """Emit the lag of the `consumers` of `streams`, and the `limits` of each stream."""
        now = self._clock()
        by_stream: defaultdict[Key, list[StreamConsumer]] = defaultdict(list)
        for consumer in consumers:
            by_stream[consumer.queue.vhost, consumer.queue.name].append(consumer)
        before = self._timelines
        self._timelines = {key: before.get(key) or backlog.Timeline() for key in streams}
        super_streams: Counter[tuple[str, str, str]] = Counter()
        for key, timeline in self._timelines.items():
            readers = list(readers_of(by_stream[key]))
            scrape.emit(CONSUMERS, len(by_stream[key]), *key)
            if readers:
                _emit_readers(scrape, key, readers, timeline, now)
            for group in [reader.name for reader in readers] or [GROUP]:
                emit_stream_limits(scrape, limits.get(key), SYSTEM, destination(*key), group)
            for reader in readers:
                if reader.super_stream:
                    super_streams[key[0], reader.super_stream, reader.name] += int(reader.lag)
        for labels, lag in super_streams.items():
            scrape.emit(SUPER_STREAM_LAG, lag, *labels)


def readers_of(consumers: Iterable[StreamConsumer]) -> Iterator[Reader]:
    """Yield the consumer with the largest lag for each name."""
    slowest: dict[str, Reader] = {}
    for consumer in consumers:
        offset, lag = known(consumer.offset), known(consumer.offset_lag)
        if offset is None or lag is None or consumer.active is False:
            continue
        properties = (
            consumer.properties if isinstance(consumer.properties, Properties) else Properties()
        )
        reader = Reader(_text(properties.name), _text(properties.super_stream), offset, max(lag, 0))
        if reader.name not in slowest or slowest[reader.name].lag < reader.lag:
            slowest[reader.name] = reader
    yield from slowest.values()


def _emit_readers(
    scrape: Scrape, key: Key, readers: Sequence[Reader], timeline: backlog.Timeline, now: float
) -> None:
    scrape.emit(MAX_OFFSET_LAG, max(reader.lag for reader in readers), *key)
    # Offsets start at 0, so the number of messages is the last offset plus 1.
    timeline.observe(now, max(reader.offset + reader.lag for reader in readers) + 1)
    for reader in readers:
        labels = (SYSTEM, destination(*key), reader.name)
        scrape.emit(backlog.BACKLOG, reader.lag, *labels)
        age = timeline.age(reader.offset + 1, now)
        lag = age if reader.lag else backlog.Age(0.0, "interpolation")
        backlog.emit_lag(scrape, lag, *labels)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
