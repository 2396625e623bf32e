"""How many messages and seconds are left until messages are removed, or until a consumer is disconnected."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping

from bts_collectors.rabbitmq.api.models import Key
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


def emit_remaining(
    scrape: Scrape, lags: Mapping[Key, Lag], timeout_of: AckTimeouts | None = None
) -> None:
    """Emit the limits of queues as far as their policy is known, and how long consumers may hold messages.

    Few queues have limits, or a message that was held at the time of two scrapes.
    """
    found: defaultdict[Metric, Samples] = defaultdict(dict)
    for key, lag in lags.items():
        limits, held = lag.limits, lag.in_flight
        if limits is not NO_LIMITS and limits.is_complete:
            _add_limits(found, _labels(key), limits)
        if held is not None and held.seconds:
            labels = _labels(key)
            found[backlog.IN_FLIGHT_METHOD][*labels, held.method] = 1
            timeout = None if timeout_of is None else timeout_of(limits)
            if timeout is not None:
                found[backlog.ACK_TIMEOUT][labels] = timeout
    for metric, samples in found.items():
        scrape.emit_all(metric, samples)


def _labels(key: Key) -> tuple[str, str, str]:
    return SYSTEM, destination(*key), GROUP


def _add_limits(
    found: defaultdict[Metric, Samples], labels: tuple[str, str, str], limits: Limits
) -> None:
    if limits.length is not None:
        found[backlog.LIMIT][labels] = limits.length
        found[backlog.OVERFLOW][*labels, "limit", limits.at_length, SETTING] = 1
    if limits.ttl is not None:
        found[backlog.RETENTION][labels] = limits.ttl
        found[backlog.OVERFLOW][*labels, "retention", limits.at_ttl, SETTING] = 1


def emit_stream_limits(scrape: Scrape, limits: Limits | None, *labels: str) -> None:
    """Emit the maximum age of the messages of a stream, if it is known, for one of its consumers."""
    if limits is not None and limits.is_complete and limits.ttl is not None:
        scrape.emit(backlog.RETENTION, limits.ttl, *labels)
        scrape.emit(backlog.OVERFLOW, 1, *labels, "retention", limits.at_ttl, SETTING)
