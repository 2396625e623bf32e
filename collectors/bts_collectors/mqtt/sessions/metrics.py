"""Metrics of client queues, common to all brokers.

Clients choose their own ids, so number and length of those that become labels are limited here.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import NamedTuple

from bts_exporter import Metric, Scrape, backlog, gauge

#: Clients emitted, those with the longest queues first.
MAX_CLIENTS = 1000
MAX_CLIENT_ID = 128  # characters

LEFT_OUT = gauge(
    "mqtt_client_queues_left_out",
    f"Clients whose queues are not exported: beyond the {MAX_CLIENTS} longest queues, or with an id that is"
    f" empty or longer than {MAX_CLIENT_ID} characters.",
)
METRICS: tuple[Metric, ...] = (LEFT_OUT, backlog.BACKLOG, backlog.IN_FLIGHT)


class Queue(NamedTuple):
    """Messages for one client: not sent, and sent but not acknowledged; None if unknown."""

    waiting: int | None
    in_flight: int | None


def emit(scrape: Scrape, queues: Mapping[str, Queue], others: int | None = 0) -> list[str]:
    """Emit the queues by client id; return the ids that were emitted.

    `others` is the number of further clients with unknown queues; None if that number is unknown.
    """
    usable = (name for name in queues if 0 < len(name) <= MAX_CLIENT_ID)
    shown = heapq.nlargest(MAX_CLIENTS, usable, key=lambda name: queues[name].waiting or 0)
    for name in shown:
        waiting, in_flight = queues[name]
        if waiting is not None:
            scrape.emit(backlog.BACKLOG, waiting, "mqtt", "", name)
        if in_flight is not None:
            scrape.emit(backlog.IN_FLIGHT, in_flight, "mqtt", "", name)
    if others is not None:
        scrape.emit(LEFT_OUT, len(queues) - len(shown) + others)
    return shown
