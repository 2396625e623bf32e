"""What waits for each client of a broker, in the words of all brokers.

Any client chooses its own name: how many and how long ones become labels is limited here.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import NamedTuple

from bts_exporter import Metric, Scrape, backlog, gauge

#: Clients that are shown, those with the most messages waiting first.
MAX_CLIENTS = 1000
MAX_CLIENT_ID = 128  # characters

LEFT_OUT = gauge(
    "mqtt_client_queues_left_out",
    f"Clients whose queues are not shown: beyond the {MAX_CLIENTS} longest, or with an id of more"
    f" than {MAX_CLIENT_ID} characters or none.",
)
METRICS: tuple[Metric, ...] = (LEFT_OUT, backlog.BACKLOG, backlog.IN_FLIGHT)


class Queue(NamedTuple):
    """Messages for one client: not sent yet, sent but not acknowledged; None where unknown."""

    waiting: int | None
    in_flight: int | None


def emit(scrape: Scrape, queues: Mapping[str, Queue], others: int | None = 0) -> list[str]:
    """Emit the queues by client id; return the ids that are shown.

    `others` is how many more clients there are whose queues are not known; None if that is not known.
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
