"""The kinds of queues whose lag is measured: messages get in and out with the clients that people use."""

from __future__ import annotations

import importlib
import json
import select
import struct
from collections import deque
from queue import Empty
from typing import Any, Protocol

import pika
import redis
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from servers.rabbitstream import StreamReader

kombu: Any = importlib.import_module("kombu")  # without types
rq: Any = importlib.import_module("rq")

#: A delivered message: its number, and what its acknowledgement needs.
Taken = tuple[int, Any]

_PLAIN = ("steady", "burst", "stopped", "slow")
_ALL_BUT_TTL = (*_PLAIN, "several", "purge", "requeue", "dead-letter", "redeclare")
ALL = (*_ALL_BUT_TTL, "ttl")
_CONSUMERS = 3


class Driver(Protocol):
    """Uses the queues of one kind; for one thread."""

    schedules: tuple[str, ...]

    def declare(self, name: str, ttl: float | None, dead: str) -> None:
        """Create a queue, whose messages live `ttl` seconds; `dead` receives its dead letters."""

    def publish(self, name: str, number: int) -> None:
        """Add a message."""

    def take(self, name: str) -> list[Taken]:
        """Deliver the next message, or as many as come together; empty if there is none."""

    def acknowledge(self, name: str, taken: Taken) -> None:
        """Acknowledge a delivered message."""

    def give_back(self, name: str, taken: list[Taken]) -> None:
        """Return delivered messages, the oldest first, to where they were."""

    def bury(self, name: str, dead: str, taken: Taken) -> None:
        """Move a delivered message to the queue `dead`."""

    def expire(self, name: str, numbers: list[int], before: float) -> None:
        """Remove messages that arrived before a Unix time, unless the broker does that."""

    def purge(self, name: str) -> None:
        """Remove all waiting messages."""

    def redeclare(self, name: str) -> None:
        """Delete the queue and create it again."""

    def close(self) -> None:
        """Close the connections."""


class RabbitDriver:
    """Classic or quorum queues of RabbitMQ, over AMQP 0-9-1."""

    schedules = ALL

    def __init__(self, port: int, queue_type: str) -> None:
        self._type = queue_type
        self._connection = pika.BlockingConnection(
            pika.ConnectionParameters("127.0.0.1", port, heartbeat=0)
        )
        self._channels = [self._connection.channel() for _ in range(_CONSUMERS)]
        self._turn = 0
        self._arguments: dict[str, dict[str, Any]] = {}

    def declare(self, name: str, ttl: float | None, dead: str) -> None:
        """Declare it with its arguments."""
        arguments: dict[str, Any] = {"x-queue-type": self._type}
        if ttl is not None:
            arguments["x-message-ttl"] = int(ttl * 1000)
        if dead:
            arguments |= {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
        self._arguments[name] = arguments
        self._channels[0].queue_declare(name, durable=True, arguments=arguments)

    def publish(self, name: str, number: int) -> None:
        """Publish it to the default exchange."""
        self._channels[0].basic_publish("", name, str(number).encode())

    def take(self, name: str) -> list[Taken]:
        """Fetch one on the next channel."""
        self._turn += 1
        channel = self._channels[self._turn % _CONSUMERS]
        method, _, body = channel.basic_get(name)
        return [] if method is None else [(int(body), (channel, method.delivery_tag))]

    def acknowledge(self, name: str, taken: Taken) -> None:  # noqa: ARG002  # Driver
        """Acknowledge it on its channel."""
        channel, tag = taken[1]
        channel.basic_ack(tag)

    def give_back(self, name: str, taken: list[Taken]) -> None:  # noqa: ARG002  # Driver
        """Requeue them."""
        for _, (channel, tag) in taken:
            channel.basic_nack(tag, requeue=True)

    def bury(self, name: str, dead: str, taken: Taken) -> None:  # noqa: ARG002  # Driver
        """Reject it, so that the broker moves it."""
        channel, tag = taken[1]
        channel.basic_reject(tag, requeue=False)

    def expire(self, name: str, numbers: list[int], before: float) -> None:
        """Do nothing: the broker does it."""

    def purge(self, name: str) -> None:
        """Purge it."""
        self._channels[0].queue_purge(name)

    def redeclare(self, name: str) -> None:
        """Delete and declare it."""
        self._channels[0].queue_delete(name)
        self._channels[0].queue_declare(name, durable=True, arguments=self._arguments[name])

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class ChunkReader(StreamReader):
    """A reader of a RabbitMQ stream that says which messages it was sent."""

    def __init__(self, port: int, stream: str, name: str) -> None:
        super().__init__(port, stream, name)
        self._has_credit = False

    def next_chunk(self) -> range:
        """Return the offsets of a chunk that was sent; empty if none is there yet."""
        if not self._has_credit:
            self.read(1)
            self._has_credit = True
        if not select.select([self._socket], [], [], 0.02)[0]:
            return range(0)
        content = self._await(_DELIVER)
        # Subscription, magic and type; entries; records; time; epoch; offset of the first.
        _, entries, _, _, _, first = struct.unpack_from(">3sHIqQQ", content)
        self._has_credit = False
        return range(first, first + entries)


_DELIVER = 8


class StreamDriver(RabbitDriver):
    """Streams of RabbitMQ, read over the stream protocol."""

    schedules = _PLAIN

    def __init__(self, port: int, stream_port: int) -> None:
        super().__init__(port, "stream")
        self._port = stream_port
        self._readers: dict[str, ChunkReader] = {}

    def declare(self, name: str, ttl: float | None, dead: str) -> None:
        """Declare it, and subscribe from its beginning."""
        super().declare(name, ttl, dead)
        self._readers[name] = ChunkReader(self._port, name, f"reader-of-{name}")

    def take(self, name: str) -> list[Taken]:
        """Return the messages of a chunk; the offset is the number, since only one publisher writes."""
        return [(offset, None) for offset in self._readers[name].next_chunk()]

    def acknowledge(self, name: str, taken: Taken) -> None:
        """Do nothing: readers only move forward."""

    def close(self) -> None:
        """Close all connections."""
        for reader in self._readers.values():
            reader.__exit__()
        super().close()


class RedisStreamDriver:
    """Streams of Redis with a consumer group."""

    schedules = ALL
    group = "workers"

    def __init__(self, client: redis.Redis) -> None:
        self._client: Any = client
        self._turn = 0

    def declare(self, name: str, ttl: float | None, dead: str) -> None:  # noqa: ARG002  # Driver
        """Create stream and group."""
        self._client.xgroup_create(name, self.group, "0", mkstream=True)

    def publish(self, name: str, number: int) -> None:
        """Add an entry."""
        self._client.xadd(name, {"n": number})

    def take(self, name: str) -> list[Taken]:
        """Read an entry as the next consumer."""
        self._turn += 1
        consumer = f"c{self._turn % _CONSUMERS}"
        found = self._client.xreadgroup(self.group, consumer, {name: ">"}, count=1)
        return [(int(fields[b"n"]), key) for _, items in found for key, fields in items]

    def acknowledge(self, name: str, taken: Taken) -> None:
        """Acknowledge it."""
        self._client.xack(name, self.group, taken[1])

    def give_back(self, name: str, taken: list[Taken]) -> None:
        """Set the group back to the entry before."""
        time, _, sequence = taken[0][1].decode().partition("-")
        before = f"{time}-{int(sequence) - 1}" if int(sequence) else f"{int(time) - 1}-{2**64 - 1}"
        self._client.xgroup_setid(name, self.group, before)
        for _, key in taken:
            self._client.xack(name, self.group, key)

    def bury(self, name: str, dead: str, taken: Taken) -> None:
        """Add it to the other stream."""
        self.publish(dead, taken[0])
        self.acknowledge(name, taken)

    def expire(self, name: str, numbers: list[int], before: float) -> None:  # noqa: ARG002  # Driver
        """Trim old entries."""
        self._client.xtrim(name, minid=int(before * 1000), approximate=False)

    def purge(self, name: str) -> None:
        """Remove all entries."""
        self._client.xtrim(name, maxlen=0, approximate=False)

    def redeclare(self, name: str) -> None:
        """Delete and create it."""
        self._client.delete(name)
        self.declare(name, None, "")

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


class ListDriver:
    """Plain lists of Redis: LPUSH and RPOP, or RPUSH and LPOP for every second queue."""

    schedules = ALL

    def __init__(self, client: redis.Redis) -> None:
        self._client: Any = client
        self._from_left: dict[str, bool] = {}

    def declare(self, name: str, ttl: float | None, dead: str) -> None:  # noqa: ARG002  # Driver
        """Choose the direction."""
        self._from_left[name] = len(self._from_left) % 2 == 1

    def publish(self, name: str, number: int) -> None:
        """Push it."""
        push = self._client.rpush if self._from_left[name] else self._client.lpush
        push(name, number)

    def take(self, name: str) -> list[Taken]:
        """Pop one."""
        found = self._client.lpop(name) if self._from_left[name] else self._client.rpop(name)
        return [] if found is None else [(int(found), None)]

    def acknowledge(self, name: str, taken: Taken) -> None:
        """Do nothing: a popped element is gone."""

    def give_back(self, name: str, taken: list[Taken]) -> None:
        """Push them to the end that is read, the oldest last."""
        push = self._client.lpush if self._from_left[name] else self._client.rpush
        push(name, *[number for number, _ in reversed(taken)])

    def bury(self, name: str, dead: str, taken: Taken) -> None:  # noqa: ARG002  # Driver
        """Push it to the other list."""
        self.publish(dead, taken[0])

    def expire(self, name: str, numbers: list[int], before: float) -> None:  # noqa: ARG002  # Driver
        """Remove the elements, as a job that cleans up does."""
        for number in numbers:
            self._client.lrem(name, 1, number)

    def purge(self, name: str) -> None:
        """Delete the key."""
        self._client.delete(name)

    redeclare = purge

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


class CeleryDriver:
    """Queues of Celery, by its library kombu."""

    schedules = _ALL_BUT_TTL

    def __init__(self, url: str) -> None:
        self._connection = kombu.Connection(url)
        self._queues: dict[str, Any] = {}

    def declare(self, name: str, ttl: float | None, dead: str) -> None:  # noqa: ARG002  # Driver
        """Open it."""
        self._queues[name] = self._connection.SimpleQueue(name)

    def publish(self, name: str, number: int) -> None:
        """Send a message."""
        self._queues[name].put(number)

    def take(self, name: str) -> list[Taken]:
        """Fetch one."""
        try:
            message = self._queues[name].get(block=False)
        except Empty:
            return []
        return [(int(message.payload), message)]

    def acknowledge(self, name: str, taken: Taken) -> None:  # noqa: ARG002  # Driver
        """Acknowledge it."""
        taken[1].ack()

    def give_back(self, name: str, taken: list[Taken]) -> None:  # noqa: ARG002  # Driver
        """Requeue them, the oldest last: each becomes the next."""
        for _, message in reversed(taken):
            message.requeue()

    def bury(self, name: str, dead: str, taken: Taken) -> None:  # noqa: ARG002  # Driver
        """Send it to the other queue."""
        self.publish(dead, taken[0])
        taken[1].ack()

    def expire(self, name: str, numbers: list[int], before: float) -> None:
        """Do nothing: no schedule needs it."""

    def purge(self, name: str) -> None:
        """Purge it."""
        self._queues[name].clear()

    redeclare = purge

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class RqDriver:
    """Queues of RQ."""

    schedules = _ALL_BUT_TTL

    def __init__(self, client: redis.Redis) -> None:
        self._client: Any = client
        self._queues: dict[str, Any] = {}

    def declare(self, name: str, ttl: float | None, dead: str) -> None:  # noqa: ARG002  # Driver
        """Open it."""
        self._queues[name] = rq.Queue(name, connection=self._client)

    def publish(self, name: str, number: int) -> None:
        """Enqueue a job."""
        self._queues[name].enqueue("operator.abs", number, job_id=f"{name}-{number}")

    def take(self, name: str) -> list[Taken]:
        """Take a job's id out of the queue, as a worker does."""
        raw = self._client.lpop(self._queues[name].key)
        found = "" if raw is None else raw.decode()
        return [(int(found.rpartition("-")[2]), found)] if found else []

    def acknowledge(self, name: str, taken: Taken) -> None:  # noqa: ARG002  # Driver
        """Delete the job."""
        self._client.delete(f"rq:job:{taken[1]}")

    def give_back(self, name: str, taken: list[Taken]) -> None:
        """Put the ids back, the oldest last: each becomes the next."""
        for _, found in reversed(taken):
            self._queues[name].push_job_id(found, at_front=True)

    def bury(self, name: str, dead: str, taken: Taken) -> None:
        """Enqueue it in the other queue."""
        self.publish(dead, taken[0])
        self.acknowledge(name, taken)

    def expire(self, name: str, numbers: list[int], before: float) -> None:
        """Do nothing: no schedule needs it."""

    def purge(self, name: str) -> None:
        """Empty it."""
        self._queues[name].empty()

    redeclare = purge

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def mqtt_client(port: int, name: str = "") -> Client:
    """Return a connected client; with a name its session is kept, and it acknowledges by hand."""
    client = Client(
        CallbackAPIVersion.VERSION2, name, clean_session=not name, manual_ack=bool(name)
    )
    client.connect("127.0.0.1", port)
    client.loop_start()
    return client


class MqttSessionDriver:
    """Persistent sessions of MQTT clients; the broker sends one message at a time."""

    schedules = _PLAIN

    def __init__(self, port: int) -> None:
        self._port = port
        self._publisher = mqtt_client(port)
        self._clients: dict[str, Client] = {}
        self._received: dict[str, deque[MQTTMessage]] = {}

    def declare(self, name: str, ttl: float | None, dead: str) -> None:  # noqa: ARG002  # Driver
        """Subscribe."""
        received = self._received[name] = deque()
        client = self._clients[name] = mqtt_client(self._port, name)
        client.on_message = lambda _client, _data, message: received.append(message)
        client.subscribe(f"session/{name}", qos=1)

    def publish(self, name: str, number: int) -> None:
        """Publish it with QoS 1."""
        self._publisher.publish(f"session/{name}", str(number), qos=1)

    def take(self, name: str) -> list[Taken]:
        """Return the message that the broker has sent."""
        if not self._received[name]:
            return []
        message = self._received[name].popleft()
        return [(int(message.payload), message)]

    def acknowledge(self, name: str, taken: Taken) -> None:
        """Acknowledge it: the broker sends the next one."""
        self._clients[name].ack(taken[1].mid, taken[1].qos)

    def close(self) -> None:
        """End the connections."""
        for client in (self._publisher, *self._clients.values()):
            client.loop_stop()
            client.disconnect()


class MqttPipelineDriver:
    """Services that answer each message of a topic on another one."""

    schedules = _PLAIN

    def __init__(self, port: int) -> None:
        self._client = mqtt_client(port)
        self._inputs: dict[str, deque[int]] = {}

    def declare(self, name: str, ttl: float | None, dead: str) -> None:  # noqa: ARG002  # Driver
        """Begin without messages."""
        self._inputs[name] = deque()

    def publish(self, name: str, number: int) -> None:
        """Publish an input."""
        self._client.publish(f"in/{name}", json.dumps({"id": number}))
        self._inputs[name].append(number)

    def take(self, name: str) -> list[Taken]:
        """Publish the output of the next input."""
        if not self._inputs[name]:
            return []
        number = self._inputs[name].popleft()
        self._client.publish(f"out/{name}", json.dumps({"id": number}))
        return [(number, None)]

    def acknowledge(self, name: str, taken: Taken) -> None:
        """Do nothing: the output is out."""

    def close(self) -> None:
        """End the connection."""
        self._client.loop_stop()
        self._client.disconnect()
