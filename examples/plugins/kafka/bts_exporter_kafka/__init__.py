"""Consumer groups of Kafka: their backlog, and their lag from the time of the oldest record."""

from __future__ import annotations

import math
import re
import time
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import ConsumerGroupTopicPartitions as Offsets
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

import bts_exporter as bts
from bts_exporter import Scrape, Secret, TargetError, backlog

#: Text of an error, its reason and its cure.
ERRORS: tuple[tuple[str, bts.Reason, str], ...] = (
    ("AUTHORIZATION", "noperm", "permit DESCRIBE of groups and topics, and READ of topics"),
    ("AUTHENTICATION", "auth", "check `password`, and sasl.* of `client`"),
    ("SSL", "tls", "check security.protocol and ssl.* of `client`"),
    ("_RESOLVE", "dns", "check its spelling, and the name servers of this machine"),
    ("refused", "refused", "is Kafka running there?"),
    ("_TRANSPORT|TIMED_OUT", "timeout", "does it hang, or need client: {security.protocol: ...}?"),
    ("", "protocol", "check `client`"),
)
#: Of the client that reads single records: it fetches no more than it must.
READER = {"group.id": "bts-exporter", "enable.auto.commit": False, "enable.partition.eof": True}
READER |= {"fetch.message.max.bytes": 1, "queued.min.messages": 1}
EARLIEST, LATEST = OffsetSpec.earliest(), OffsetSpec.latest()  # type: ignore[no-untyped-call]
Record = tuple[str, int, int]  # topic, partition, offset


class Kafka(bts.Collector):
    """Consumer groups of Kafka."""

    class Config(bts.CollectorConfig, frozen=True):
        """A cluster, and regular expressions that are searched in names of groups and topics."""

        #: Some brokers, host:port, separated by commas; the others are found.
        brokers: str = "127.0.0.1:9092"
        password: Secret | None = None
        #: Settings of librdkafka, such as `security.protocol: SASL_SSL` and `sasl.username`.
        client: dict[str, str] | None = None
        groups: re.Pattern[str] = re.compile("")
        topics: re.Pattern[str] = re.compile("")

    config: Config
    up = bts.gauge("kafka_up", "Whether a broker answers.")
    vocabulary = (backlog.BACKLOG, backlog.CONSUMED, backlog.LAG_SECONDS, backlog.LAG_METHOD)
    _clients: tuple[AdminClient, Consumer] | None = None

    def collect(self, scrape: Scrape) -> None:
        """Emit the metrics of all groups; what the user may not read is reported."""
        scrape.emit(self.up, 0)
        try:
            admin, reader = self._clients = self._clients or self._connect()
            admin.poll(0)  # brings errors of connections
            self._events.clear()
            behind = self._emit_counts(scrape, admin)
            self._read_times(scrape, reader, set[Record]().union(*behind.values()))
        except KafkaException as error:
            self.stop()  # so that new clients have the password as it is then
            causes = [event for event in self._events if "DOWN" not in event.name()]
            raise self._failure(KafkaException(*causes[:1] or error.args)) from error
        for labels, records in behind.items():
            if records <= self._times.keys():
                oldest = min((self._times[record] for record in records), default=math.inf)
                age = backlog.Age(max(time.time() - oldest, 0.0), "message_time")
                backlog.emit_lag(scrape, age, *labels)

    def stop(self) -> None:
        """Close the connections."""
        if self._clients:
            self._clients[0].poll(0)
            self._clients[1].close()
        self._clients = None

    def _connect(self) -> tuple[AdminClient, Consumer]:
        self._events: list[KafkaError] = []
        self._times: dict[Record, float] = {}  # inf where there is no record
        settings: dict[str, Any] = {"bootstrap.servers": self.config.brokers, "log_level": 0}
        if self.config.password:
            settings["sasl.password"] = self.config.password.reread().reveal()
        settings |= {"error_cb": self._events.append, **(self.config.client or {})}
        return AdminClient(settings), Consumer(settings | READER)

    def _emit_counts(self, scrape: Scrape, admin: AdminClient) -> dict[Any, set[Record]]:
        """Emit how far groups are behind; return the oldest records that they have not consumed."""
        topics = admin.list_topics(timeout=scrape.remaining() / 2).topics
        scrape.replace(self.up, 1)
        partitions = {n: topics[n].partitions for n in filter(self.config.topics.search, topics)}
        limit = {"request_timeout": scrape.remaining() / 4}  # there are four steps
        listed = admin.list_consumer_groups(**limit).result()
        for error in listed.errors:
            scrape.report(self._failure(error))
        names = [g.group_id for g in listed.valid if self.config.groups.search(g.group_id)]
        asked = {n: admin.list_consumer_group_offsets([Offsets(n)], **limit)[n] for n in names}
        committed = defaultdict[Any, list[TopicPartition]](list)
        for name, offsets in self._results(scrape, asked).items():
            for at in offsets.topic_partitions:
                if at.offset >= 0 and at.partition in partitions.get(at.topic, ()):
                    committed["kafka", at.topic, name].append(at)
        places = {at for group in committed.values() for at in group}
        starts = self._results(scrape, admin.list_offsets(dict.fromkeys(places, EARLIEST), **limit))
        ends = self._results(scrape, admin.list_offsets(dict.fromkeys(places, LATEST), **limit))
        behind = {}
        for labels, group in committed.items():
            scrape.emit(backlog.CONSUMED, sum(at.offset for at in group), *labels)
            if not all(at in starts and at in ends for at in group):
                continue
            spans = [(at, max(at.offset, starts[at].offset), ends[at].offset) for at in group]
            scrape.emit(backlog.BACKLOG, sum(max(end - n, 0) for _, n, end in spans), *labels)
            behind[labels] = {(at.topic, at.partition, n) for at, n, end in spans if n < end}
        return behind

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
        for future in futures.values():
            if error := future.exception():
                scrape.report(self._failure(error))
        return {key: future.result() for key, future in futures.items() if not future.exception()}

    def _failure(self, exception: BaseException) -> TargetError:
        error = exception.args[0]
        reason, cure = next(row[1:] for row in ERRORS if re.search(row[0], str(exception)))
        return TargetError(reason, f"Kafka at {self.config.brokers}: {error.str()}; {cure}")
