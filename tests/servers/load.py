"""A light, steady load on real brokers: producers and consumers that tests can stop and resume."""

from __future__ import annotations

import json
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from contextlib import ExitStack, suppress
from typing import Any

import pika
import redis
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion
from pika.exceptions import AMQPError

from servers import wait_until
from servers.mosquitto import Mosquitto
from servers.rabbitmq import RabbitMQ
from servers.rabbitstream import StreamReader
from servers.redis import RedisServer

#: Seconds between two messages.
PAUSE = 0.2


class Load(ABC):
    """A producer and its consumers, in a thread; both come back after a restart of their broker."""

    def __init__(self) -> None:
        """Prepare the thread; `start` starts it."""
        self.consuming = True
        self.producing = True
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Start producing and consuming."""
        self._thread.start()

    def stop_consumers(self) -> None:
        """Detach the consumers: messages wait from now on."""
        self.consuming = False

    def resume_consumers(self) -> None:
        """Attach the consumers again: what waits is consumed."""
        self.consuming = True

    def stop_producers(self) -> None:
        """Send nothing from now on."""
        self.producing = False

    def resume_producers(self) -> None:
        """Send messages again."""
        self.producing = True

    def stop(self) -> None:
        """End the thread and its connections."""
        self._stopping.set()
        self._thread.join(30)
        assert not self._thread.is_alive(), f"{type(self).__name__} did not stop"

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._session()
            self._stopping.wait(PAUSE)

    @abstractmethod
    def _session(self) -> None:
        """Produce and consume until the broker fails or the load is stopped."""


class RabbitLoad(Load):
    """A reading each time to `bts.readings` (classic) and `bts.results` (quorum), both consumed.

    With `troubled`, three messages wait in `bts.alarms`, which has no consumer; one of `bts.blind` takes
    messages without acknowledging them; `bts.slow` has a backlog that its consumer never gets through; and
    the reader `archive` of the stream `bts.log` is behind.
    """

    QUEUES = ("bts.readings", "bts.results")

    def __init__(self, broker: RabbitMQ, *, troubled: bool) -> None:
        super().__init__()
        self._broker = broker
        self._troubled = troubled
        broker.queue("bts.readings", max_length=1_000_000)
        broker.queue("bts.results", queue_type="quorum")
        if troubled:
            self._trouble()

    def _trouble(self) -> None:
        for name in ("bts.alarms", "bts.blind", "bts.slow"):
            self._broker.queue(name)
        now = int(time.time())
        self._broker.publish("bts.alarms", 3, timestamp=now)
        self._broker.publish("bts.slow", 20, timestamp=now)
        self._broker.queue("bts.log", queue_type="stream")
        self._broker.publish("bts.log", 5)

    def _session(self) -> None:
        address = pika.ConnectionParameters("127.0.0.1", self._broker.amqp, heartbeat=0)
        with suppress(AMQPError, OSError), ExitStack() as open_ones:
            connection = pika.BlockingConnection(address)
            open_ones.callback(_close, connection)
            channel = connection.channel()
            channel.confirm_delivery()
            channel.basic_qos(prefetch_count=10)
            if self._troubled:
                channel.basic_consume("bts.slow", _never_acknowledge)
                channel.basic_consume("bts.blind", _never_acknowledge, auto_ack=True)
                reader = StreamReader(self._broker.stream, "bts.log", "archive")
                open_ones.enter_context(reader).read(1)
            self._serve(connection, channel)

    def _serve(self, connection: Any, channel: Any) -> None:
        queues = (*self.QUEUES, "bts.blind") if self._troubled else self.QUEUES
        attached: list[str] = []
        while not self._stopping.is_set():
            if self.consuming and not attached:
                attached = [channel.basic_consume(queue, _acknowledge) for queue in self.QUEUES]
            while attached and not self.consuming:
                channel.basic_cancel(attached.pop())
            if self.producing:
                now = pika.BasicProperties(timestamp=int(time.time()), delivery_mode=2)
                for queue in queues:
                    channel.basic_publish("", queue, b"12.5", now, mandatory=True)
            connection.sleep(PAUSE)


def _close(connection: Any) -> None:
    with suppress(AMQPError, OSError):
        connection.close()


def _acknowledge(channel: Any, method: Any, *_: object) -> None:
    channel.basic_ack(method.delivery_tag)


def _never_acknowledge(*_: object) -> None:
    pass


class RedisLoad(Load):
    """An entry each time to the stream `bts:predictions`, and a job to the queues.

    The group `bts-api` reads the stream. The queues are `celery`, Sidekiq's `default`, and the list `jobs`.
    With `troubled`, three jobs stay in each queue, and one command was slow.
    """

    def __init__(self, server: RedisServer, *, troubled: bool) -> None:
        super().__init__()
        self._server = server
        self._left = 3 if troubled else 0
        if troubled:
            server.client.config_set("latency-monitor-threshold", 10)
            server.client.execute_command("DEBUG", "SLEEP", "0.05")

    def _session(self) -> None:
        client = redis.Redis(port=self._server.port, retry=None, decode_responses=True)
        with suppress(redis.RedisError, OSError), client:
            with suppress(redis.ResponseError):  # it exists
                client.xgroup_create("bts:predictions", "bts-api", id="0", mkstream=True)
            client.sadd("queues", "default")
            while not self._stopping.wait(PAUSE):
                if self.producing:
                    self._produce(client)
                if self.consuming:
                    self._consume(client)

    @staticmethod
    def _produce(client: Any) -> None:
        client.xadd("bts:predictions", {"value": "12.5"}, maxlen=10_000)
        client.lpush("celery", json.dumps({"body": "e30=", "headers": {"task": "predict"}}))
        client.lpush("queue:default", json.dumps({"class": "Predict", "enqueued_at": time.time()}))
        client.lpush("jobs", "job")

    def _consume(self, client: Any) -> None:
        read = {"bts:predictions": ">"}
        for _, entries in client.xreadgroup("bts-api", "api-1", read, count=100) or ():
            client.xack("bts:predictions", "bts-api", *(entry for entry, _ in entries))
        for queue in ("celery", "queue:default", "jobs"):
            while client.llen(queue) > self._left:
                client.rpop(queue)


class MqttLoad(Load):
    """A reading each time to `bts/7/122` with QoS 1; a service answers at `predict/7/122`.

    While its consumers are stopped, the service collects readings, and answers them afterwards. With `troubled`, the session `bts-archive` is not connected, and
    five alarms wait for it.
    """

    def __init__(self, broker: Mosquitto, *, troubled: bool) -> None:
        super().__init__()
        self._broker = broker
        self._unanswered: deque[str] = deque()
        if troubled:
            broker.subscribe_and_leave("bts-archive", "alarm/#")
        broker.publish("alarm/7/122/308", "0,1764000000,241.5,240,true", count=5)

    def _session(self) -> None:
        service = Client(CallbackAPIVersion.VERSION2, client_id="bts-service", clean_session=False)
        service.on_connect = lambda client, *_: client.subscribe("bts/+/+", qos=1)
        service.on_message = self._answer
        sensors = Client(CallbackAPIVersion.VERSION2, client_id="bts-sensors")
        clients = (service, sensors)
        for client in clients:
            client.reconnect_delay_set(1, 1)
            client.connect_async("127.0.0.1", self._broker.port, keepalive=5)
            client.loop_start()
        wait_until(lambda: all(client.is_connected() for client in clients), "clients connected")
        while not self._stopping.wait(PAUSE):
            if self.producing and sensors.is_connected():
                reading = {"value": 12.5, "reading_time": time.time()}
                sensors.publish("bts/7/122", json.dumps(reading), qos=1)
        for client in clients:
            client.disconnect()
            client.loop_stop()

    def _answer(self, client: Client, _: object, message: MQTTMessage) -> None:
        self._unanswered.append(message.topic)
        while self.consuming and self._unanswered:
            topic = self._unanswered.popleft().replace("bts/", "predict/")
            client.publish(topic, "12.5", qos=1)
