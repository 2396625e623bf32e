"""The common vocabulary of queue depth and consumer lag, shared by every broker's collector.

A collector uses it by holding these objects as class attributes and emitting to them:
`(system, destination, group)` are the broker's kind (`redis`, `rabbitmq`, `mqtt`, `kafka`, ...),
the stream, key or queue, and the consumer group or an empty string.
An unknown value is not emitted: 0 means that there is nothing.
"""

from __future__ import annotations

from bts_exporter.plugin import Metric, counter, gauge

LABELS = ("system", "destination", "group")

BACKLOG = gauge(
    "messaging_backlog_messages",
    "Messages waiting for the consumer or consumer group, not delivered yet.",
    LABELS,
)
IN_FLIGHT = gauge(
    "messaging_in_flight_messages",
    "Messages delivered to a consumer and not acknowledged yet.",
    LABELS,
)
CONSUMERS = gauge("messaging_consumers", "Consumers attached.", LABELS)
LAG_SECONDS = gauge(
    "messaging_lag_seconds",
    "Age of the oldest message that waits for delivery; 0 when none waits.",
    LABELS,
)
LAG_METHOD = gauge(
    "messaging_lag_method_info",
    "How messaging_lag_seconds is found: message_time (the broker's own time of the message) or"
    " interpolation (of the count of published messages).",
    (*LABELS, "method"),
)
DRAIN_SECONDS = gauge(
    "messaging_drain_seconds",
    "Backlog divided by the recent rate of consumption; +Inf when nothing is consumed.",
    LABELS,
)
PUBLISHED = counter("messaging_published_messages_total", "Messages that came in.", LABELS)
CONSUMED = counter("messaging_consumed_messages_total", "Messages consumed.", LABELS)

#: All of the above, for a collector's class attribute.
VOCABULARY: tuple[Metric, ...] = (
    BACKLOG,
    IN_FLIGHT,
    CONSUMERS,
    LAG_SECONDS,
    LAG_METHOD,
    DRAIN_SECONDS,
    PUBLISHED,
    CONSUMED,
)
