"""Exchanges and queues in RabbitMQ.

Readings and alarms go through the topic exchange `bts`. A reading that no worker can decode ends in
`bts.readings.dead`, where a person can look at it.
"""

from __future__ import annotations

from typing import Final

from pika.adapters.blocking_connection import BlockingChannel  # type: ignore[import-untyped]
from pika.channel import Channel  # type: ignore[import-untyped]

EXCHANGE: Final = "bts"
READINGS: Final = "bts.readings"
ALARMS: Final = "bts.alarms"
DEAD_EXCHANGE: Final = "bts.dead"
DEAD: Final = "bts.readings.dead"


def declare(channel: BlockingChannel | Channel) -> None:
    """Declare everything; the same for each process, so that the order of their starts does not matter."""
    channel.exchange_declare(EXCHANGE, "topic", durable=True)
    channel.exchange_declare(DEAD_EXCHANGE, "fanout", durable=True)
    channel.queue_declare(DEAD, durable=True)
    channel.queue_bind(DEAD, DEAD_EXCHANGE)
    channel.queue_declare(
        READINGS, durable=True, arguments={"x-dead-letter-exchange": DEAD_EXCHANGE}
    )
    channel.queue_bind(READINGS, EXCHANGE, "reading.#")
    channel.queue_declare(ALARMS, durable=True)
    channel.queue_bind(ALARMS, EXCHANGE, "alarm.#")
