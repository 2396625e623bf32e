"""Consumer groups of Kafka: their backlog, and their lag from the time of the oldest record."""

from __future__ import annotations

import math
import re
import time
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import ConsumerGroupTopicPartitions as Offsets
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

import bts_exporter as bts
from bts_exporter import Scrape, Secret, TargetError, backlog

#: Text of an error, its reason and its cure.
ERRORS: tuple[tuple[str, bts.Reason, str], ...] = (
    ("AUTHORIZATION", "noperm", "permit DESCRIBE of groups and topics, and READ of topics"),
    ("AUTHENTICATION", "auth", "check username, password and client: {sasl.mechanism: ...}"),
    ("SSL", "tls", "check security.protocol and ssl.* of `client`"),
    ("_RESOLVE", "dns", "check its spelling, and the name servers of this machine"),
    ("refused", "refused", "is Kafka running there?"),
    ("_TRANSPORT|TIMED_OUT", "timeout", "does it hang, or need client: {security.protocol: ...}?"),
    ("", "protocol", "check `client`"),
)
#: Of the client that reads single records: it fetches no more than it must.
READER: dict[str, Any] = {"group.id": "bts-exporter", "enable.auto.commit": False}
READER |= {"enable.partition.eof": True, "fetch.message.max.bytes": 1, "queued.min.messages": 1}
Labels = tuple[str, str, str]  # system, topic, group
Record = tuple[str, int, int]  # topic, partition, offset


class Kafka(bts.Collector):
    """Consumer groups of Kafka."""

    class Config(bts.CollectorConfig, frozen=True):
        """A cluster, and regular expressions that are searched in names of groups and topics."""

        #: Some brokers, host:port, separated by commas; the others are found.
        brokers: str = "127.0.0.1:9092"
        username: str = ""
        password: Secret | None = None
        #: Further settings of librdkafka, such as `security.protocol: SASL_SSL`.
        client: dict[str, str] = msgspec.field(default_factory=dict)
        groups: re.Pattern[str] = re.compile("")
        topics: re.Pattern[str] = re.compile("")

    config: Config
    up = bts.gauge("kafka_up", "Whether a broker answers.")
    vocabulary = (backlog.BACKLOG, backlog.CONSUMED, backlog.LAG_SECONDS, backlog.LAG_METHOD)

    def __init__(self, config: Config) -> None:
        """Keep the settings; no I/O here."""
        super().__init__(config)
        self._clients: tuple[AdminClient, Consumer] | None = None
        self._events: list[KafkaError] = []
        #: Times of the records that groups are at; inf where there is no record.
        self._times: dict[Record, float] = {}

    def collect(self, scrape: Scrape) -> None:
        """Emit the metrics of all groups; what the user may not read is reported."""
        scrape.emit(self.up, 0)
        try:
            admin, reader = self._clients = self._clients or self._connect()
            behind = self._emit_counts(scrape, admin)
            self._read_times(scrape, reader, set[Record]().union(*behind.values()))
        except KafkaException as error:
            self.stop()  # so that new clients have the password as it is then
            raise self._failure(error) from error
        for labels, records in behind.items():
            if records <= self._times.keys():
                oldest = min((self._times[record] for record in records), default=math.inf)
                age = backlog.Age(max(time.time() - oldest, 0.0), "message_time")
                backlog.emit_lag(scrape, age, *labels)

    def stop(self) -> None:
        """Close the connections."""
        if self._clients:
            self._clients[1].close()
        self._clients = None

    def _connect(self) -> tuple[AdminClient, Consumer]:
        settings: dict[str, Any] = {"bootstrap.servers": self.config.brokers, "log_level": 0}
        if self.config.password:
            settings["sasl.username"] = self.config.username
            settings["sasl.password"] = self.config.password.reread().reveal()
        settings |= {"error_cb": self._events.append, **self.config.client}
        return AdminClient(settings), Consumer(settings | READER)

    def _emit_counts(self, scrape: Scrape, admin: AdminClient) -> dict[Labels, set[Record]]:
        """Emit how far groups are behind; return the oldest records that they have not consumed."""
        topics = self._topics(scrape, admin)
        scrape.replace(self.up, 1)
        limit = {"request_timeout": scrape.remaining() / 4}  # there are four steps
        listed = admin.list_consumer_groups(**limit).result()
        for error in listed.errors:
            scrape.report(self._failure(error))
        names = [g.group_id for g in listed.valid if self.config.groups.search(g.group_id)]
        asked = {n: admin.list_consumer_group_offsets([Offsets(n)], **limit)[n] for n in names}
        committed = defaultdict[Labels, list[TopicPartition]](list)
        for name, offsets in self._results(scrape, asked).items():
            for at in offsets.topic_partitions:
                if at.offset >= 0 and at.partition in topics.get(at.topic, ()):
                    committed["kafka", at.topic, name].append(at)
        places = {at for group in committed.values() for at in group}
        starts, ends = (
            self._results(scrape, admin.list_offsets(dict.fromkeys(places, spec), **limit))
            for spec in (OffsetSpec.earliest(), OffsetSpec.latest())  # type: ignore[no-untyped-call]
        )
        behind = {}
        for labels, group in committed.items():
            scrape.emit(backlog.CONSUMED, sum(at.offset for at in group), *labels)
            if all(at in starts and at in ends for at in group):
                spans = [(at, max(at.offset, starts[at].offset), ends[at].offset) for at in group]
                number = sum(max(end - start, 0) for _, start, end in spans)
                scrape.emit(backlog.BACKLOG, number, *labels)
                behind[labels] = {
                    (at.topic, at.partition, start) for at, start, end in spans if start < end
                }
        return behind

    def _topics(self, scrape: Scrape, admin: AdminClient) -> dict[str, set[int]]:
        """Return the partitions of the selected topics."""
        self._events.clear()
        try:
            topics = admin.list_topics(timeout=scrape.remaining() / 2).topics
        except KafkaException as error:
            admin.poll(0)
            causes = [event for event in self._events if "DOWN" not in event.name()]
            raise KafkaException(*causes[:1] or error.args) from error
        selected = filter(self.config.topics.search, topics)
        return {name: set(topics[name].partitions) for name in selected}

    def _read_times(self, scrape: Scrape, reader: Consumer, wanted: set[Record]) -> None:
        """Read the times of records that are not known from before."""
        self._times = {r: at for r, at in self._times.items() if r in wanted and at < math.inf}
        waiting = wanted - self._times.keys()
        while waiting:  # each partition is read at one offset at a time
            batch: dict[Any, Record] = {record[:2]: record for record in waiting}
            waiting -= set(batch.values())
            reader.assign([TopicPartition(*record) for record in batch.values()])
            while batch and (found := reader.poll(scrape.remaining() * 0.9)):
                record = batch.pop((found.topic(), found.partition()), None)
                error, (kind, milliseconds) = found.error(), found.timestamp()
                if error and "EOF" not in error.name():
                    scrape.report(self._failure(KafkaException(error)))
                elif record and (error or kind):
                    self._times[record] = math.inf if error else milliseconds / 1000
            reader.unassign()
            if batch:
                message = f"Kafka at {self.config.brokers}: {len(batch)} records not read in time"
                scrape.report(TargetError(reason="timeout", message=message))

    def _results(self, scrape: Scrape, futures: Mapping[Any, Future[Any]]) -> dict[Any, Any]:
        """Return the results of requests, and report those that failed."""
        results = {}
        for key, future in futures.items():
            try:
                results[key] = future.result()
            except KafkaException as error:
                scrape.report(self._failure(error))
        return results

    def _failure(self, exception: KafkaException) -> TargetError:
        error = exception.args[0]
        text = f"{error.name()} {error.str()}"
        reason, cure = next((r, cure) for part, r, cure in ERRORS if re.search(part, text))
        return TargetError(reason, f"Kafka at {self.config.brokers}: {error.str()}; {cure}")


COLLECTOR = Kafka
