"""The list of selected queues, by the requests that cost the broker least."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from heapq import nlargest
from http import HTTPStatus
from typing import NamedTuple, TypeVar
from urllib.parse import quote

import msgspec

from bts_collectors.rabbitmq.api.models import (
    CONSUMERS,
    QUEUE,
    QUEUES,
    STREAM,
    VHOSTS,
    Consumer,
    Key,
    MessageStats,
    ObjectTotals,
    Overview,
    Queue,
    Totals,
    Vhost,
    columns,
    depth,
    is_live,
    known,
    normalize,
)
from bts_collectors.rabbitmq.api.requests import RequestBatch
from bts_collectors.rabbitmq.api.responses import content
from bts_collectors.rabbitmq.metrics.amqp import CANARY_QUEUES
from bts_collectors.rabbitmq.metrics.overview import counts_messages
from bts_exporter import HttpResponse, NameFilter, TargetError

T = TypeVar("T")

#: From this version on, a listing without `columns` is cheaper than one with them.
PLAIN_SINCE = (3, 13)
#: Depths only, for an eighth of the broker's CPU; available even if statistics are disabled.
TOTALS = "disable_stats=true&enable_queue_totals=true"
#: Instead of names of virtual hosts: all of them in one request.
ALL_VHOSTS: Sequence[None] = (None,)
#: Share of the time left for a request that is one of many, or not the most important one.
MAX_SHARE = 0.5
#: Queues requested one by one when only depths are listed; each takes a millisecond of the broker's CPU.
MAX_COMPLETED = 50
#: The counts of all queues of which nothing has been counted.
NO_COUNTS = MessageStats()


class Consumers(NamedTuple):
    """The number of consumers by queue."""

    all: Counter[Key]
    #: Consumers with automatic acknowledgement.
    auto_ack: Counter[Key]


class QueueListing(NamedTuple):
    """The selected queues, and whether some are missing."""

    queues: Sequence[Queue]
    #: Number of queues that the user has no permission to see; None if unknown.
    hidden: float | None = None
    #: Virtual hosts whose request failed.
    unlisted: frozenset[str] = frozenset()
    #: Consumers with automatic acknowledgement by queue; None if unknown.
    auto_ack: Counter[Key] | None = None


class QueueLister:
    """Requests the list of queues and their consumers."""

    def __init__(self, vhosts: NameFilter, queues: NameFilter, max_detailed: int) -> None:
        """Select by `vhosts` and `queues`; of more than `max_detailed` queues only depths are listed."""
        self.vhosts = vhosts
        self._queues = queues
        self._max_detailed = max_detailed
        #: Number of queues in the previous listing.
        self._listed: int | None = None

    def request(self, batch: RequestBatch, overview: Overview) -> QueueListing | None:
        """Return the selected queues; None if no request succeeded."""
        vhosts = self._request_vhosts(batch)
        if vhosts is None:
            return None
        no_statistics = overview.disable_stats is True
        totals = no_statistics or self._are_many(overview)
        query = queues_query(overview, totals=totals)
        listings = {vhost: _request_list(batch, "queues", vhost, query, QUEUES) for vhost in vhosts}
        lists = [found for found in listings.values() if found is not None]
        if listings and not lists:
            return None
        self._listed = sum(map(len, lists))
        queues = [
            queue
            for found in lists
            for queue in found
            if is_selected_name(self._queues, queue.name)
        ]
        counts = counts_messages(overview)
        for queue in queues:
            normalize(queue)
            if counts and not totals:
                _set_counted(queue)
        unlisted = frozenset(vhost for vhost, found in listings.items() if found is None and vhost)
        hidden = _hidden(overview, self._listed) if vhosts == ALL_VHOSTS else None
        if hidden and not self._listed:
            batch.failures.add(_no_permission(hidden))
        consumers = (
            None if no_statistics else _request_consumers(batch, vhosts, queues, totals=totals)
        )
        if totals and consumers is not None:
            _complete(batch, queues, consumers, counts=counts)
        return QueueListing(
            queues, hidden, unlisted, None if consumers is None else consumers.auto_ack
        )

    def _request_vhosts(self, batch: RequestBatch) -> Sequence[str | None] | None:
        """Return the selected virtual hosts, ALL_VHOSTS if all are; None if the request failed."""
        if not self.vhosts:
            return ALL_VHOSTS
        listed = batch.get(f"/api/vhosts?{columns(Vhost)}", VHOSTS, MAX_SHARE)
        if listed is None:
            return None
        selected = [vhost.name for vhost in listed if self.vhosts(vhost.name)]
        return ALL_VHOSTS if len(selected) == len(listed) else selected

    def _are_many(self, overview: Overview) -> bool:
        # The overview also counts queues of virtual hosts that are not selected.
        number = _total_queues(overview) if self._listed is None else self._listed
        return number is not None and number > self._max_detailed


def is_selected_name(names: NameFilter, queue: str) -> bool:
    """Return whether a queue is selected by name; queues of canaries never are: they belong to exporters."""
    return names(queue) and not queue.startswith(CANARY_QUEUES)


def queues_query(overview: Overview, *, totals: bool) -> str:
    """Return the query of the cheapest listing that this version supports."""
    if totals:
        return f"{TOTALS}&{columns(Totals)}"
    match = re.match(r"(\d+)\.(\d+)", overview.rabbitmq_version or "")
    if match and (int(match[1]), int(match[2])) >= PLAIN_SINCE:
        return ""
    return columns(Queue)


def count(consumers: Iterable[Consumer]) -> Consumers:
    """Return the number of consumers by queue."""
    found = Consumers(Counter(), Counter())
    for consumer in consumers:
        key = (consumer.queue.vhost, consumer.queue.name)
        found.all[key] += 1
        found.auto_ack[key] += consumer.ack_required is False
    return found


def _request_list(
    batch: RequestBatch,
    objects: str,
    vhost: str | None,
    query: str,
    decoder: msgspec.json.Decoder[list[T]],
) -> list[T] | None:
    """Return the list of `objects` in a virtual host, or in all; empty if the virtual host is gone."""
    path = f"/api/{objects}" if vhost is None else f"/api/{objects}/{quote(vhost, '')}"

    def read(response: HttpResponse) -> list[T]:
        gone = vhost is not None and response.status == HTTPStatus.NOT_FOUND
        return [] if gone else content(response, decoder)

    share = 1.0 if vhost is None and objects == "queues" else MAX_SHARE
    return batch.get_with(f"{path}?{query}" if query else path, read, share)


def _request_consumers(
    batch: RequestBatch, vhosts: Sequence[str | None], queues: Iterable[Queue], *, totals: bool
) -> Consumers | None:
    """Return the consumers of `queues`; None if unknown. Without consumers, no request is sent."""
    having = {
        queue.vhost
        for queue in queues
        if totals or (queue.type != STREAM and known(queue.consumers))
    }
    places = (vhosts if having else ()) if vhosts == ALL_VHOSTS else sorted(having)
    lists = [
        _request_list(batch, "consumers", place, columns(Consumer), CONSUMERS) for place in places
    ]
    if any(found is None for found in lists):
        return None
    return count(consumer for found in lists for consumer in found or ())


def _set_counted(queue: Queue) -> None:
    """Tell a queue without counts, in a detailed response, from one whose counts were not requested."""
    if not isinstance(queue.message_stats, MessageStats):
        queue.message_stats = NO_COUNTS


def _complete(
    batch: RequestBatch, queues: Sequence[Queue], consumers: Consumers, *, counts: bool
) -> None:
    """Set the number of consumers, and the message counts of the deepest queues that have consumers."""
    for queue in queues:
        if is_live(queue):
            queue.consumers = consumers.all[queue.vhost, queue.name]
    waiting = [queue for queue in queues if queue.consumers and known(queue.messages_ready)]
    for queue in nlargest(MAX_COMPLETED, waiting, key=depth):
        path = f"/api/queues/{quote(queue.vhost, '')}/{quote(queue.name, '')}?{columns(Queue)}"
        failed = len(batch.failures)
        found = batch.get_with(path, _read_queue, MAX_SHARE)
        if len(batch.failures) > failed:
            return  # other requests would take as long to fail
        if found is not None:
            queue.message_stats = found.message_stats
            if counts:
                _set_counted(queue)
            queue.effective_policy_definition = found.effective_policy_definition


def _read_queue(response: HttpResponse) -> Queue | None:
    """Return a queue; None if it does not exist."""
    return None if response.status == HTTPStatus.NOT_FOUND else content(response, QUEUE)


def _hidden(overview: Overview, seen: int) -> float | None:
    """Return how many queues the user cannot see, never negative: queues come and go meanwhile."""
    total = _total_queues(overview)
    return None if total is None else max(total - seen, 0)


def _no_permission(hidden: float) -> TargetError:
    return TargetError(
        "noperm",
        f"/api/queues: the user has no permission to see any of the {hidden:.0f} queues; for each"
        " virtual host: rabbitmqctl set_permissions -p VHOST USER '^$' '^$' '^$'",
    )


def _total_queues(overview: Overview) -> float | None:
    """Return the number of queues in the cluster; None if unknown."""
    totals = overview.object_totals
    return known(totals.queues) if isinstance(totals, ObjectTotals) else None
