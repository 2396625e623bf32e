"""How many messages and seconds are left until messages are removed, or until a consumer is disconnected."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from bts_collectors.rabbitmq.api.models import STREAM, Key, Queue, known
from bts_collectors.rabbitmq.metrics.backlog import GROUP, SYSTEM, Samples, destination
from bts_collectors.rabbitmq.metrics.lag import Lag
from bts_collectors.rabbitmq.metrics.queue_limits import NO_LIMITS, Limits
from bts_exporter import Metric, Scrape, backlog

#: The first versions that close channels after consumer_timeout, and with a timeout of a single queue.
TIMEOUT_SINCE, QUEUE_TIMEOUT_SINCE = (3, 8, 15), (3, 12, 0)
#: How limits of queues are known: a value of the label `known_by`.
SETTING = "setting"

#: Returns the time to acknowledge of a queue with these limits in seconds; None if it has none or it is unknown.
AckTimeouts = Callable[[Limits], float | None]


def ack_timeouts(version: str | None, node_seconds: float) -> AckTimeouts:
    """Return the function that finds the time to acknowledge, on nodes of `version`.

    `node_seconds` is the node's consumer_timeout, 0 if it is disabled.
    """
    match = re.match(r"(\d+)\.(\d+)\.(\d+)", version or "")
    found = tuple(map(int, match.groups())) if match else (0, 0, 0)

    def of_queue(limits: Limits) -> float | None:
        if found < TIMEOUT_SINCE:
            return None
        if found >= QUEUE_TIMEOUT_SINCE:
            if not limits.is_complete:
                return None
            if limits.ack_timeout is not None:
                return limits.ack_timeout or None
        return node_seconds or None

    return of_queue


def emit_limits(scrape: Scrape, queues: Iterable[Queue], lags: Mapping[Key, Lag]) -> None:
    """Emit the limits of the queues that have some, as far as their policy is known; not of streams."""
    found: dict[Metric, Samples] = {backlog.LIMIT: {}, backlog.RETENTION: {}, backlog.OVERFLOW: {}}
    for queue in queues:
        lag = lags.get((queue.vhost, queue.name))
        if lag is None or lag.limits is NO_LIMITS or not lag.limits.is_complete:
            continue
        labels = (SYSTEM, destination(queue.vhost, queue.name), GROUP)
        limits = lag.limits
        if limits.length is not None:
            found[backlog.LIMIT][labels] = limits.length
            found[backlog.OVERFLOW][*labels, "limit", limits.at_length, SETTING] = 1
        if limits.ttl is not None:
            found[backlog.RETENTION][labels] = limits.ttl
            found[backlog.OVERFLOW][*labels, "retention", limits.at_ttl, SETTING] = 1
    _emit_all(scrape, found)


def emit_stream_limits(scrape: Scrape, limits: Limits | None, *labels: str) -> None:
    """Emit the maximum age of the messages of a stream, if it is known, for one of its consumers."""
    if limits is not None and limits.is_complete and limits.ttl is not None:
        scrape.emit(backlog.RETENTION, limits.ttl, *labels)
        scrape.emit(backlog.OVERFLOW, 1, *labels, "retention", limits.at_ttl, SETTING)


def emit_in_flight(
    scrape: Scrape,
    queues: Iterable[Queue],
    lags: Mapping[Key, Lag],
    auto_ack: Counter[Key] | None = None,
    timeout_of: AckTimeouts | None = None,
) -> None:
    """Emit how long consumers have held messages, and how long they may.

    `auto_ack` counts the consumers with automatic acknowledgement, if they are known: a queue that has
    no others has no unacknowledged messages.
    """
    found: dict[Metric, Samples] = {
        backlog.IN_FLIGHT_OLDEST: {},
        backlog.IN_FLIGHT_METHOD: {},
        backlog.ACK_TIMEOUT: {},
    }
    for queue in queues:
        key = (queue.vhost, queue.name)
        lag = lags.get(key)
        if queue.type == STREAM or lag is None or lag.in_flight is None:
            continue
        labels = (SYSTEM, destination(*key), GROUP)
        seconds, method = lag.in_flight
        if not seconds:
            if not (auto_ack and auto_ack[key] and auto_ack[key] == known(queue.consumers)):
                found[backlog.IN_FLIGHT_OLDEST][labels] = 0
            continue
        found[backlog.IN_FLIGHT_OLDEST][labels] = seconds
        found[backlog.IN_FLIGHT_METHOD][*labels, method] = 1
        timeout = None if timeout_of is None else timeout_of(lag.limits)
        if timeout is not None:
            found[backlog.ACK_TIMEOUT][labels] = timeout
    _emit_all(scrape, found)


def _emit_all(scrape: Scrape, found: Mapping[Metric, Samples]) -> None:
    for metric, samples in found.items():
        if samples:
            scrape.emit_all(metric, samples)
