"""The plug-in with replies of Kafka that the broker of the other tests does not give."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME, KafkaError, KafkaException, TopicPartition

import bts_exporter_kafka
from bts_exporter.testing import look
from bts_exporter_kafka import Kafka

NOW = time.time()


def done(result: object) -> Future[Any]:
    """Return the future of a request that has its result, or its error."""
    future: Future[Any] = Future()
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
    return future


class FakeClient:
    """In place of AdminClient and Consumer: a topic with two partitions, and committed offsets by group."""

    def __init__(self, groups: Mapping[str, tuple[int, int] | Exception], *records: object) -> None:
        self.groups = groups
        self.records = list(records)

    def list_topics(self, timeout: float) -> object:
        """Return the metadata of the topic."""
        return SimpleNamespace(topics={"orders": SimpleNamespace(partitions={0: None, 1: None})})

    def list_consumer_groups(self, request_timeout: float) -> Future[Any]:
        """Return the names of the groups, and the error of a broker."""
        valid = [SimpleNamespace(group_id=group) for group in self.groups]
        return done(SimpleNamespace(valid=valid, errors=[]))

    def list_consumer_group_offsets(self, requests: list[Any], request_timeout: float) -> Any:
        """Return the committed offsets of one group."""
        [request] = requests
        offsets = self.groups[request.group_id]
        if not isinstance(offsets, Exception):
            places = [TopicPartition("orders", *place) for place in enumerate(offsets)]
            offsets = SimpleNamespace(topic_partitions=places)  # type: ignore[assignment]
        return {request.group_id: done(offsets)}

    def list_offsets(self, wanted: Mapping[TopicPartition, Any], request_timeout: float) -> Any:
        """Return first offset 5 and last offset 10 for each partition."""
        return {
            place: done(SimpleNamespace(offset=5 if spec._value == -2 else 10))
            for place, spec in wanted.items()
        }

    def assign(self, places: list[TopicPartition]) -> None:
        """Accept the partitions to read."""

    def unassign(self) -> None:
        """Stop reading."""

    def poll(self, timeout: float) -> object:
        """Return the next record or event; None without any, and if it only calls back."""
        return self.records.pop(0) if self.records and timeout else None

    def close(self) -> None:
        """Do nothing."""


def event(partition: int, *, age: float = 0, error: int = 0) -> object:
    """Return a record of a partition, or an error."""
    return SimpleNamespace(
        topic=lambda: "orders",
        partition=lambda: partition,
        error=lambda: KafkaError(error) if error else None,
        timestamp=lambda: (TIMESTAMP_CREATE_TIME, (NOW - age) * 1000),
    )


def collected(client: FakeClient) -> tuple[Any, Any]:
    """Return the samples and the error of a collection."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AdminClient", "Consumer"):
            patch.setattr(bts_exporter_kafka, name, lambda _settings: client)
        return look(Kafka(Kafka.Config()), 5)


def test_deleted_records_do_not_wait() -> None:
    """Of a group that is behind the first record, only the records that are still there count."""
    samples, error = collected(FakeClient({"billing": (2, 10)}, event(0, age=60)))

    assert error is None
    assert samples.value("messaging_backlog_messages") == 5
    assert samples.value("messaging_lag_seconds") >= 60


def test_refused_group() -> None:
    """A group that may not be read is reported, and the others are served."""
    refused = KafkaException(KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED))
    samples, error = collected(FakeClient({"secret": refused, "billing": (10, 10)}))

    assert error.reason == "noperm"
    assert "permit DESCRIBE of groups and topics" in str(error)
    assert samples["messaging_backlog_messages"] == {("kafka", "orders", "billing"): 0}


def test_end_of_a_partition_without_a_record() -> None:
    """Offsets without records, such as the ends of transactions, are no lag in seconds."""
    end = event(0, error=KafkaError._PARTITION_EOF)
    samples, error = collected(FakeClient({"billing": (9, 10)}, end))

    assert error is None
    assert samples.value("messaging_backlog_messages") == 1
    assert samples.value("messaging_lag_seconds") == 0


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        ([], "timeout"),
        ([event(1, error=KafkaError.TOPIC_AUTHORIZATION_FAILED)], "noperm"),
    ],
)
def test_unknown_time(last: list[object], reason: str) -> None:
    """If the time of one record is unknown, so is the lag in seconds: the other may be younger."""
    samples, error = collected(FakeClient({"billing": (9, 9)}, event(0, age=60), *last))

    assert error.reason == reason
    assert samples.value("messaging_backlog_messages") == 2
    assert samples.find("messaging_lag_seconds") == []


def test_partition_without_a_committed_offset() -> None:
    """It does not count: where the group would begin there is unknown."""
    samples, error = collected(FakeClient({"billing": (9, -1001)}, event(0, age=60)))

    assert error is None
    assert samples.value("messaging_backlog_messages") == 1
