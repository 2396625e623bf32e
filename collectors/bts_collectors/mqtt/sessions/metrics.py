"""Metrics of client queues, common to all brokers.

Clients choose their own ids, so number and length of those that become labels are limited here.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import Literal, NamedTuple

from bts_exporter import Metric, Scrape, backlog, gauge

#: Clients emitted, those with the longest queues first.
MAX_CLIENTS = 1000
MAX_CLIENT_ID = 128  # characters

LEFT_OUT = gauge(
    "mqtt_client_queues_left_out",
    f"Clients whose queues are not exported: beyond the {MAX_CLIENTS} longest queues, or with an id that is"
    f" empty or longer than {MAX_CLIENT_ID} characters.",
)
METRICS: tuple[Metric, ...] = (
    LEFT_OUT,
    backlog.BACKLOG,
    backlog.IN_FLIGHT,
    backlog.LAG_SECONDS,
    backlog.LAG_METHOD,
    backlog.LIMIT,
    backlog.OVERFLOW,
)

#: What a broker does with messages for a client whose queue is full: a value of the label `effect`.
Effect = Literal["drop_oldest", "reject_new"]


class Queue(NamedTuple):
    """Messages for one client: not sent, and sent but not acknowledged; None if unknown."""

    waiting: int | None
    in_flight: int | None
    #: Age of the oldest message that was not sent.
    age: backlog.Age | None = None
    #: Messages that fit into the queue.
    limit: int | None = None


def emit(
    scrape: Scrape,
    queues: Mapping[str, Queue],
    others: int | None = 0,
    *,
    effect: Effect = "drop_oldest",
) -> list[str]:
    """Emit the queues by client id; return the ids that were emitted.

    `effect` is what happens at the limit. `others` is the number of further clients with unknown queues; None if that number is unknown.
    """
    usable = (name for name in queues if 0 < len(name) <= MAX_CLIENT_ID)
    shown = heapq.nlargest(MAX_CLIENTS, usable, key=lambda name: queues[name].waiting or 0)
    for name in shown:
        waiting, in_flight, age, limit = queues[name]
        if waiting is not None:
            scrape.emit(backlog.BACKLOG, waiting, "mqtt", "", name)
        if in_flight is not None:
            scrape.emit(backlog.IN_FLIGHT, in_flight, "mqtt", "", name)
        if waiting == 0:
            scrape.emit(backlog.LAG_SECONDS, 0, "mqtt", "", name)
        elif age is not None:
            scrape.emit(backlog.LAG_SECONDS, age.seconds, "mqtt", "", name)
            scrape.emit(backlog.LAG_METHOD, 1, "mqtt", "", name, age.method)
        if limit is not None:
            scrape.emit(backlog.LIMIT, limit, "mqtt", "", name)
            scrape.emit(backlog.OVERFLOW, 1, "mqtt", "", name, "limit", effect, "setting")
    if others is not None:
        scrape.emit(LEFT_OUT, len(queues) - len(shown) + others)
    return shown
