"""What a real broker does with waiting messages when a policy with a length below their number is set and removed."""

from __future__ import annotations

from typing import Any

import pika
import pika.exceptions
import pytest

from servers import wait_until
from servers.rabbitmq import RabbitMQ

pytestmark = pytest.mark.live

DURABLE = pika.BasicProperties(delivery_mode=2)
MESSAGES, LENGTH = 30, 5
REJECT = "reject-publish"


def publish(channel: Any, queue: str, message: int) -> bool:
    """Return whether the broker accepts a message."""
    try:
        channel.basic_publish("", queue, str(message).encode(), DURABLE)
    except pika.exceptions.NackError:
        return False
    return True


@pytest.mark.parametrize(
    ("kind", "arguments", "head"),
    [
        ("classic", {}, MESSAGES - LENGTH),
        ("classic", {"overflow": REJECT}, 0),
        ("quorum", {}, 0),
    ],
)
def test_only_a_classic_queue_that_did_not_reject_drops_its_oldest_messages(
    rabbitmq: RabbitMQ, kind: str, arguments: dict[str, str], head: int
) -> None:
    """The lag assumes it, and that channels of a quorum queue go on to reject after the policy is removed."""
    queue = f"policy-{kind}-{len(arguments)}"
    policy = f"policies/%2F/{queue}"
    definition = {"max-length": LENGTH, "overflow": REJECT}
    rabbitmq.queue(queue, queue_type=kind, **arguments)
    with rabbitmq.channel() as channel, rabbitmq.channel() as other:
        accepted = [publish(channel, queue, each) for each in range(MESSAGES)]
        assert all(accepted)
        rabbitmq.api(policy, "PUT", {"pattern": f"^{queue}$", "definition": definition})
        wait_until(lambda: not publish(channel, queue, MESSAGES), "the queue rejects messages")
        rabbitmq.api(policy, "DELETE")
        wait_until(lambda: publish(other, queue, MESSAGES), "the policy is removed")

        assert publish(channel, queue, MESSAGES) is (kind == "classic")
        assert channel.basic_get(queue, auto_ack=True)[2] == str(head).encode()
    rabbitmq.api(f"queues/%2F/{queue}", "DELETE")
