"""Metrics read over AMQP, separate from the code, which needs pika (4 MB)."""

from __future__ import annotations

from typing import Literal, get_args

from bts_exporter import counter, gauge, histogram

EXISTS = gauge(
    "rabbitmq_queue_exists",
    "Whether there is a queue of this name (AMQP passive declaration).",
    ("vhost", "queue"),
)

#: Results of a probe.
Result = Literal[
    "ok",
    "blocked",  # the broker has an alarm and accepts no messages
    "unroutable",  # the queue did not exist
    "rejected",  # the broker rejected the message
    "lost",  # the message was confirmed but not delivered
    "timeout",  # the broker did not answer in time
    "denied",  # the login or permissions were refused
    "unreachable",  # there is no connection, or it was lost
]
RESULTS: tuple[Result, ...] = get_args(Result)

#: Prefix of the names of canary queues, for permissions.
CANARY_QUEUES = "bts-exporter-canary-"

_PROBE = ("vhost", "queue_type")
CANARY_UP = gauge(
    "rabbitmq_canary_up",
    "Whether the latest probe through a queue of this type was received in time (AMQP publish, get).",
    _PROBE,
)
CANARY_CONFIRM = histogram(
    "rabbitmq_canary_publish_confirm_seconds",
    "Time until the broker confirmed a probe (AMQP basic.publish, basic.ack).",
    _PROBE,
)
CANARY_END_TO_END = histogram(
    "rabbitmq_canary_end_to_end_seconds",
    "Time from publishing a probe until it was received (AMQP basic.publish, basic.get).",
    _PROBE,
)
CANARY_PROBES = counter(
    "rabbitmq_canary_probes_total",
    "Probes sent through a queue of this type by result (AMQP publish, get).",
    (*_PROBE, "result"),
)
METRICS = (EXISTS, CANARY_UP, CANARY_CONFIRM, CANARY_END_TO_END, CANARY_PROBES)
