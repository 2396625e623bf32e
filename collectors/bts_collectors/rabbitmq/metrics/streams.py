"""How far the consumers of streams have read, from /api/stream/consumers: it is of this moment.

Consumers of a stream over AMQP are not among them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from http import HTTPStatus
from time import monotonic
from typing import Any, NamedTuple

import msgspec

from bts_collectors.rabbitmq.api.models import (
    Flag,
    Key,
    Nothing,
    Number,
    QueueName,
    Shape,
    columns,
    known,
)
from bts_collectors.rabbitmq.api.responses import content
from bts_collectors.rabbitmq.metrics.backlog import SYSTEM, destination, emit_lag
from bts_collectors.rabbitmq.metrics.lag import Lag
from bts_exporter import HttpResponse, Scrape, backlog, gauge

LABELS = ("vhost", "queue")

MAX_OFFSET_LAG = gauge(
    "rabbitmq_stream_consumer_max_offset_lag",
    "Messages that the consumer furthest behind was not sent yet (/api/stream/consumers offset_lag).",
    LABELS,
)
CONSUMERS = gauge(
    "rabbitmq_stream_consumers",
    "Consumers over the stream protocol (/api/stream/consumers).",
    LABELS,
)
SUPER_STREAM_LAG = gauge(
    "rabbitmq_super_stream_offset_lag",
    "Messages in all partitions that the consumers of this name were not sent yet"
    " (/api/stream/consumers offset_lag, properties.super-stream).",
    ("vhost", "super_stream", "consumer"),
)
METRICS = (MAX_OFFSET_LAG, CONSUMERS, SUPER_STREAM_LAG)


class Properties(Shape):
    """`properties` of a consumer: what the client says of itself."""

    name: Any = None
    super_stream: Any = msgspec.field(default=None, name="super-stream")


class StreamConsumer(Shape):
    """An item of /api/stream/consumers."""

    queue: QueueName
    offset: Number = None
    offset_lag: Number = None
    #: False for one that waits for another of its name to go.
    active: Flag = None
    properties: Properties | Nothing = None


PATH = f"/api/stream/consumers?{columns(StreamConsumer)}"
_CONSUMERS = msgspec.json.Decoder(list[StreamConsumer])


class Reader(NamedTuple):
    """What is known of the consumers of one stream that have the same name."""

    name: str
    super_stream: str
    #: Offset of the message that was sent last to the one furthest behind.
    offset: float
    lag: float


def read_consumers(answer: HttpResponse) -> list[StreamConsumer]:
    """Return the consumers, none where the broker has no streams; TargetError for any other answer."""
    return [] if answer.status == HTTPStatus.NOT_FOUND else content(answer, _CONSUMERS)


class Streams:
    """The lag of all streams' consumers; their ages become known with each collection."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        """Begin without any; `clock` never goes back."""
        self._clock = clock
        self._timelines: dict[Key, backlog.Timeline] = {}

    def emit(
        self, scrape: Scrape, streams: Collection[Key], consumers: Iterable[StreamConsumer]
    ) -> None:
        """Emit how far behind the `consumers` of `streams` are."""
        now = self._clock()
        by_stream: defaultdict[Key, list[StreamConsumer]] = defaultdict(list)
        for consumer in consumers:
            by_stream[consumer.queue.vhost, consumer.queue.name].append(consumer)
        before = self._timelines
        self._timelines = {key: before.get(key) or backlog.Timeline() for key in streams}
        over: Counter[tuple[str, str, str]] = Counter()
        for key, timeline in self._timelines.items():
            readers = list(readers_of(by_stream[key]))
            scrape.emit(CONSUMERS, len(by_stream[key]), *key)
            if readers:
                _emit_readers(scrape, key, readers, timeline, now)
            for reader in readers:
                if reader.super_stream:
                    over[key[0], reader.super_stream, reader.name] += int(reader.lag)
        for labels, lag in over.items():
            scrape.emit(SUPER_STREAM_LAG, lag, *labels)


def readers_of(consumers: Iterable[StreamConsumer]) -> Iterator[Reader]:
    """Yield the consumers of one stream name by name, of each the one furthest behind."""
    furthest: dict[str, Reader] = {}
    for consumer in consumers:
        offset, lag = known(consumer.offset), known(consumer.offset_lag)
        if offset is None or lag is None or consumer.active is False:
            continue
        said = consumer.properties if isinstance(consumer.properties, Properties) else Properties()
        reader = Reader(_text(said.name), _text(said.super_stream), offset, max(lag, 0))
        if reader.name not in furthest or furthest[reader.name].lag < reader.lag:
            furthest[reader.name] = reader
    yield from furthest.values()


def _emit_readers(
    scrape: Scrape, key: Key, readers: Sequence[Reader], timeline: backlog.Timeline, now: float
) -> None:
    scrape.emit(MAX_OFFSET_LAG, max(reader.lag for reader in readers), *key)
    # Offsets count from 0: so many messages came in before the one after the last.
    timeline.observe(now, max(reader.offset + reader.lag for reader in readers) + 1)
    for reader in readers:
        labels = (SYSTEM, destination(*key), reader.name)
        scrape.emit(backlog.BACKLOG, reader.lag, *labels)
        age = timeline.age(reader.offset + 1, now)
        emit_lag(scrape, Lag(age if reader.lag else backlog.Age(0.0, "interpolation")), *labels)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
