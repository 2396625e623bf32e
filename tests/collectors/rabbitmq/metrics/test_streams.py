from __future__ import annotations

from time import monotonic

import pytest

from bts_collectors.rabbitmq.api.models import Key, QueueName
from bts_collectors.rabbitmq.metrics.streams import (
    CONSUMERS,
    MAX_OFFSET_LAG,
    PATH,
    SUPER_STREAM_LAG,
    Properties,
    StreamConsumer,
    StreamLags,
    read_consumers,
)
from bts_exporter import HttpResponse, Metric, Scrape, TargetError, backlog

LOG: Key = ("/", "log")
#: Two consumers as RabbitMQ 3.10 lists them, one without a name, and one that waits for its turn.
ANSWER = b"""[
  {"connection_details": {"name": "a -> b", "user": "guest"}, "consumed": 0, "credits": 0, "offset": 1,
   "offset_lag": 48, "properties": {"name": "app"}, "queue": {"name": "log", "vhost": "/"},
   "subscription_id": 0},
  {"connection_details": {}, "offset": 0, "offset_lag": 49, "properties": [],
   "queue": {"name": "log", "vhost": "/"}},
  {"active": false, "activity_status": "waiting", "offset": 0, "offset_lag": 500,
   "properties": {"name": "app"}, "queue": {"name": "log", "vhost": "/"}}
]"""

Samples = dict[Metric, dict[tuple[str, ...], float]]


def consumer(
    offset: object, lag: object, name: object = "app", stream: str = "log", **fields: object
) -> StreamConsumer:
    """Return a consumer."""
    said = Properties(name=name, super_stream=fields.pop("super_stream", None))
    return StreamConsumer(QueueName(stream, "/"), offset, lag, properties=said, **fields)  # type: ignore[arg-type]


class Watch:
    """A stream that is looked at now and then."""

    def __init__(self) -> None:
        self.now = 0.0
        self.streams = StreamLags(lambda: self.now)

    def look(
        self, after: float, *consumers: StreamConsumer, streams: tuple[Key, ...] = (LOG,)
    ) -> Samples:
        """Let seconds pass and return what is emitted."""
        self.now += after
        scrape = Scrape(monotonic() + 10)
        self.streams.emit(scrape, streams, consumers)
        assert scrape.losses == []
        return scrape.samples


def test_consumers_are_shown_by_name_and_the_one_furthest_behind_for_the_stream() -> None:
    """Lag is given by consumer name and as the maximum of the stream; inactive consumers have none."""
    samples = Watch().look(0, *read_consumers(HttpResponse("", 200, ANSWER)))

    assert samples[MAX_OFFSET_LAG] == {LOG: 49}
    assert samples[CONSUMERS] == {LOG: 3}
    assert samples[backlog.BACKLOG] == {("rabbitmq", "log", "app"): 48, ("rabbitmq", "log", ""): 49}


def test_of_consumers_with_the_same_name_the_one_furthest_behind_counts() -> None:
    """Of consumers with the same name, the largest lag is emitted."""
    samples = Watch().look(0, consumer(95, 5), consumer(40, 60), consumer(99, 1))

    assert samples[backlog.BACKLOG] == {("rabbitmq", "log", "app"): 60}


def test_the_message_after_the_last_one_sent_is_as_old_as_the_offsets_say() -> None:
    """With 10 messages a second and 50 not sent, the lag is 5 seconds."""
    watch = Watch()
    watch.look(0, consumer(99, 0))
    samples = watch.look(10, consumer(149, 50))

    assert samples[backlog.LAG_SECONDS] == {("rabbitmq", "log", "app"): 5}
    assert samples[backlog.LAG_METHOD] == {("rabbitmq", "log", "app", "interpolation"): 1}


def test_a_consumer_that_was_away_is_as_far_behind_as_it_is_when_it_is_back() -> None:
    """The history of a stream is kept without consumers, and dropped with the stream."""
    watch = Watch()
    watch.look(0, consumer(99, 0))
    away = watch.look(500)
    back = watch.look(500, consumer(99, 100))

    assert away == {CONSUMERS: {LOG: 0}}
    assert back[backlog.LAG_SECONDS] == {("rabbitmq", "log", "app"): 1000}

    watch.look(10, streams=())
    assert backlog.LAG_SECONDS not in watch.look(10, consumer(99, 100))


def test_having_read_everything_is_no_lag() -> None:
    """A consumer at or beyond the end has no lag."""
    for lag in (0, -1):
        samples = Watch().look(0, consumer(99, lag))

        assert samples[backlog.BACKLOG] == {("rabbitmq", "log", "app"): 0}
        assert samples[backlog.LAG_SECONDS] == {("rabbitmq", "log", "app"): 0}


def test_an_unknown_offset_gives_no_lag() -> None:
    """Missing or textual offsets give no lag."""
    samples = Watch().look(0, consumer("undefined", 5), consumer(5, None))

    assert samples == {CONSUMERS: {LOG: 2}}


def test_the_partitions_of_a_super_stream_are_added_up() -> None:
    """The lag of a super stream is the sum of its partitions."""
    samples = Watch().look(
        0,
        consumer(9, 5, stream="in-0", super_stream="in"),
        consumer(9, 7, stream="in-1", super_stream="in"),
        consumer(9, 1, name="other", stream="in-1", super_stream="in"),
        streams=(("/", "in-0"), ("/", "in-1")),
    )

    assert samples[SUPER_STREAM_LAG] == {("/", "in", "app"): 12, ("/", "in", "other"): 1}


def test_consumers_of_streams_that_are_not_shown_are_left_out() -> None:
    """Consumers of streams that are not selected, or on other nodes, are ignored."""
    assert Watch().look(0, consumer(9, 5, stream="other"), streams=()) == {}


def test_a_broker_without_streams_has_no_consumers_of_any() -> None:
    """A missing stream plugin is not a failure; other errors are."""
    assert read_consumers(HttpResponse("", 404, b'{"error":"Object Not Found"}')) == []
    with pytest.raises(TargetError):
        read_consumers(HttpResponse("", 500, b"{}"))


def test_no_more_is_requested_than_is_used() -> None:
    """The list of stream consumers is limited to the used columns."""
    columns = PATH.partition("columns=")[2].split(",")

    assert "offset_lag" in columns
    assert "properties.super-stream" in columns
    assert not any(column.startswith("connection") for column in columns)
