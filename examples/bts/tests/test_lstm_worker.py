"""The message service of the public examples."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pika
import pytest
from bts_stack import Stack

from bts import model
from servers import wait_until

pytestmark = pytest.mark.live

WINDOW = {f"norm_{n}": n / 10 for n in range(1, 7)}


def client(stack: Stack, queue: str) -> tuple[pika.BlockingConnection, Any]:
    """Return a connection and a channel with exchange and queue as the public client declares them."""
    connection = pika.BlockingConnection(
        pika.ConnectionParameters("127.0.0.1", stack.rabbitmq.amqp)
    )
    channel = connection.channel()
    channel.exchange_declare(exchange="lstm_bts", exchange_type="topic")
    channel.queue_declare(queue=queue, exclusive=False)
    channel.queue_bind(exchange="lstm_bts", queue=queue, routing_key="lstm.response.user2")
    return connection, channel


def replies(channel: Any, queue: str, number: int) -> list[tuple[Any, Any]]:
    """Return `number` replies as (properties, decoded body)."""
    taken: list[tuple[Any, Any]] = []

    def take() -> bool:
        _, properties, body = channel.basic_get(queue, auto_ack=True)
        if body is not None:
            taken.append((properties, json.loads(body)))
        return len(taken) == number

    wait_until(take, "replies")
    return taken


@pytest.mark.parametrize("started_first", ["client", "worker"])
def test_public_client_gets_its_request_back_with_the_prediction(
    stack: Stack, started_first: str
) -> None:
    """The reply goes to `reply_to` with the correlation id, and holds the request and `LSTM`."""
    if started_first == "worker":
        stack.start("lstm_worker")
    connection, channel = client(stack, "in_user2")
    stack.start("lstm_worker") if started_first == "client" else None
    wait_until(lambda: consumers(stack, "in_lstm"), "consumer")
    request = {**WINDOW, "norm_value": 0.7, "start_time": time.time()}
    channel.basic_publish(
        exchange="lstm_bts",
        routing_key="lstm.request.user2",
        properties=pika.BasicProperties(reply_to="in_user2", correlation_id="7"),
        body=json.dumps(request),
    )

    [(properties, reply)] = replies(channel, "in_user2", 1)
    connection.close()

    expected = model.load().predict(np.array([list(WINDOW.values())]))[0]
    assert properties.correlation_id == "7"
    assert reply == {**request, "LSTM": pytest.approx(expected)}


def test_list_of_requests_gets_a_list_through_the_exchange(stack: Stack) -> None:
    """Without `reply_to` the answer goes to lstm.response.<client>; a list is answered with a list."""
    stack.start("lstm_worker")
    connection, channel = client(stack, "in_lstm_user2")
    wait_until(lambda: consumers(stack, "in_lstm"), "consumer")
    for body in (b"[]", b"{broken", json.dumps([WINDOW, WINDOW]).encode()):
        channel.basic_publish("lstm_bts", "lstm.request.user2", body)

    [(_, reply)] = replies(channel, "in_lstm_user2", 1)
    connection.close()

    assert [set(item) for item in reply] == [{*WINDOW, "LSTM"}] * 2
    assert stack.value("lstm_worker", 'bts_predictions_total{outcome="error",source="lstm"}') == 2


def test_queue_inside_the_worker_is_a_metric_and_is_lost_to_nobody(stack: Stack) -> None:
    """RabbitMQ shows no ready message while thousands wait in the worker; a kill gives them back."""
    stack.inject("slow-consumer")
    stack.start("lstm_worker")
    connection, channel = client(stack, "in_user2")
    wait_until(lambda: consumers(stack, "in_lstm"), "consumer")
    for number in range(500):
        properties = pika.BasicProperties(reply_to="in_user2", correlation_id=str(number))
        channel.basic_publish("lstm_bts", "lstm.request.user2", json.dumps(WINDOW), properties)
    wait_until(
        lambda: (stack.value("lstm_worker", "bts_worker_backlog_messages") or 0) > 400, "backlog"
    )
    stack.processes["lstm_worker"].kill()
    stack.inject()
    stack.start("lstm_worker")

    answers: set[str] = set()

    def all_answered() -> bool:
        properties, body = channel.basic_get("in_user2", auto_ack=True)[1:]
        if body is not None:
            answers.add(properties.correlation_id)
        return len(answers) == 500

    wait_until(all_answered, "all answers")
    connection.close()


def consumers(stack: Stack, queue: str) -> int:
    """Return how many consumers a queue has."""
    queues = {item["name"]: item.get("consumers", 0) for item in stack.rabbitmq.api("queues")}
    return int(queues.get(queue, 0))
