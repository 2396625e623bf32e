"""What is learned over AMQP: declared apart from the code, which needs a client library of 4 MB."""

from __future__ import annotations

from typing import Literal, get_args

from bts_exporter import counter, gauge, histogram

EXISTS = gauge(
    "rabbitmq_queue_exists",
    "Whether there is a queue of this name (AMQP passive declaration).",
    ("vhost", "queue"),
)

#: How a probe ends.
Result = Literal[
    "ok",
    "blocked",  # the broker has an alarm and takes no messages
    "unroutable",  # it took the message, and the queue was gone
    "rejected",  # it refused the message
    "lost",  # it confirmed the message and did not deliver it
    "timeout",  # it did not answer at all
    "denied",  # it does not let the user do that
    "unreachable",  # there is no connection, or it broke
]
RESULTS: tuple[Result, ...] = get_args(Result)

#: What the names of the canary's queues begin with, so that permissions can name them.
CANARY_QUEUES = "bts-exporter-canary-"

_PROBE = ("vhost", "queue_type")
CANARY_UP = gauge(
    "rabbitmq_canary_up",
    "Whether the latest message went through a queue of this type in time (AMQP publish, get).",
    _PROBE,
)
CANARY_CONFIRM = histogram(
    "rabbitmq_canary_publish_confirm_seconds",
    "Time until the broker confirmed a message (AMQP basic.publish, basic.ack).",
    _PROBE,
)
CANARY_END_TO_END = histogram(
    "rabbitmq_canary_end_to_end_seconds",
    "Time from publishing a message until it was received (AMQP basic.publish, basic.get).",
    _PROBE,
)
CANARY_PROBES = counter(
    "rabbitmq_canary_probes_total",
    "Messages sent through a queue of this type by what became of them (AMQP publish, get).",
    (*_PROBE, "result"),
)
METRICS = (EXISTS, CANARY_UP, CANARY_CONFIRM, CANARY_END_TO_END, CANARY_PROBES)
