"""Which queues are asked for, and how: the cheapest way for the broker that says what is needed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
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
    ObjectTotals,
    Overview,
    Queue,
    Totals,
    Vhost,
    columns,
    depth,
    is_live,
    known,
    tidy,
)
from bts_collectors.rabbitmq.api.requests import Round
from bts_collectors.rabbitmq.api.responses import content
from bts_collectors.rabbitmq.metrics.amqp import CANARY_QUEUES
from bts_exporter import HttpResponse, TargetError

T = TypeVar("T")

#: From here on a listing without `columns` is the cheap one, and one with them the expensive one.
PLAIN_SINCE = (3, 13)
#: Depths and no more, at an eighth of the broker's CPU; they are there even if its statistics are off.
TOTALS = "disable_stats=true&enable_queue_totals=true"
#: In the place of names of virtual hosts: all of them, with one question.
EVERY: Sequence[None] = (None,)
#: The part of the time left that a question may take which is one of many, or not the one that matters.
SHARE = 0.5
#: Queues that are asked for one by one, a millisecond of the broker's each, where depths are all that is listed.
MOST_COMPLETED = 50


class Selection:
    """Which virtual hosts and queues are wanted: found by `include` if there is one, not by `exclude`.

    Never the queues of canaries: they come and go with exporters, and say nothing of the service.
    """

    def __init__(
        self,
        include: re.Pattern[str] | None = None,
        exclude: re.Pattern[str] | None = None,
    ) -> None:
        """Give what is searched for in a name; None lets every name pass."""
        self._include = include
        self._exclude = exclude

    def __bool__(self) -> bool:
        """Return whether any name may be unwanted."""
        return self._include is not None or self._exclude is not None

    def __call__(self, name: str) -> bool:
        """Return whether `name` is wanted."""
        if name.startswith(CANARY_QUEUES):
            return False
        if self._include is not None and not self._include.search(name):
            return False
        return self._exclude is None or not self._exclude.search(name)


class Consumers(NamedTuple):
    """How many consumers queues have."""

    all: Counter[Key]
    #: Those that acknowledge nothing.
    blind: Counter[Key]


class Found(NamedTuple):
    """What a broker lists of the queues that are wanted."""

    queues: Sequence[Queue]
    #: Queues that the user has no permission to see; None if unknown.
    hidden: float | None = None
    #: Virtual hosts that gave no answer.
    unlisted: frozenset[str] = frozenset()
    #: Consumers that acknowledge nothing, by queue; None if unknown.
    blind: Counter[Key] | None = None


class Listing:
    """The list of queues and their consumers."""

    def __init__(self, vhosts: Selection, queues: Selection, most_detailed: int) -> None:
        """Ask for what `vhosts` and `queues` want, in detail if there are at most `most_detailed`."""
        self.vhosts = vhosts
        self._queues = queues
        self._most_detailed = most_detailed
        #: Queues that were listed last.
        self._seen: int | None = None

    def ask(self, asked: Round, overview: Overview) -> Found | None:
        """Return the queues that are wanted, None where the broker does not say."""
        vhosts = self._ask_vhosts(asked)
        if vhosts is None:
            return None
        silent = overview.disable_stats is True
        totals = silent or self._are_many(overview)
        query = queues_query(overview, totals=totals)
        answers = {vhost: _ask(asked, "queues", vhost, query, QUEUES) for vhost in vhosts}
        lists = [found for found in answers.values() if found is not None]
        if answers and not lists:
            return None
        self._seen = sum(map(len, lists))
        queues = [queue for found in lists for queue in found if self._queues(queue.name)]
        for queue in queues:
            tidy(queue)
        unlisted = frozenset(vhost for vhost, found in answers.items() if found is None and vhost)
        hidden = _hidden(overview, self._seen) if vhosts == EVERY else None
        if hidden and not self._seen:
            asked.failures.add(_sees_nothing(hidden))
        consumers = None if silent else _ask_consumers(asked, vhosts, queues, totals=totals)
        if totals and consumers is not None:
            _complete(asked, queues, consumers)
        return Found(queues, hidden, unlisted, None if consumers is None else consumers.blind)

    def _ask_vhosts(self, asked: Round) -> Sequence[str | None] | None:
        """Return the virtual hosts to ask for one by one, EVERY where all are wanted."""
        if not self.vhosts:
            return EVERY
        read = partial(content, decoder=VHOSTS)
        there = asked.ask(f"/api/vhosts?{columns(Vhost)}", read, SHARE)
        if there is None:
            return None
        wanted = [vhost.name for vhost in there if self.vhosts(vhost.name)]
        return EVERY if len(wanted) == len(there) else wanted

    def _are_many(self, overview: Overview) -> bool:
        # The overview counts those of virtual hosts that are not wanted, too.
        number = _all_of(overview) if self._seen is None else self._seen
        return number is not None and number > self._most_detailed


def queues_query(overview: Overview, *, totals: bool) -> str:
    """Return the parameters of the cheapest listing that this broker has."""
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
        found.blind[key] += consumer.ack_required is False
    return found


def _ask(
    asked: Round, what: str, vhost: str | None, query: str, decoder: msgspec.json.Decoder[list[T]]
) -> list[T] | None:
    """Return the list of `what` in a virtual host, which may be gone, or in all of them."""
    path = f"/api/{what}" if vhost is None else f"/api/{what}/{quote(vhost, '')}"

    def read(answer: HttpResponse) -> list[T]:
        gone = vhost is not None and answer.status == HTTPStatus.NOT_FOUND
        return [] if gone else content(answer, decoder)

    share = 1.0 if vhost is None and what == "queues" else SHARE
    return asked.ask(f"{path}?{query}" if query else path, read, share)


def _ask_consumers(
    asked: Round, vhosts: Sequence[str | None], queues: Iterable[Queue], *, totals: bool
) -> Consumers | None:
    """Return the consumers of `queues`, without asking where there are none; None if unknown."""
    having = {
        queue.vhost
        for queue in queues
        if totals or (queue.type != STREAM and known(queue.consumers))
    }
    places = (vhosts if having else ()) if vhosts == EVERY else sorted(having)
    lists = [_ask(asked, "consumers", place, columns(Consumer), CONSUMERS) for place in places]
    if any(found is None for found in lists):
        return None
    return count(consumer for found in lists for consumer in found or ())


def _complete(asked: Round, queues: Sequence[Queue], consumers: Consumers) -> None:
    """Fill in the consumers, and of the deepest queues that have any the counts of messages."""
    for queue in queues:
        if is_live(queue):
            queue.consumers = consumers.all[queue.vhost, queue.name]
    waiting = [queue for queue in queues if queue.consumers and known(queue.messages_ready)]
    for queue in nlargest(MOST_COMPLETED, waiting, key=depth):
        path = f"/api/queues/{quote(queue.vhost, '')}/{quote(queue.name, '')}?{columns(Queue)}"
        failed = len(asked.failures)
        found = asked.ask(path, _read_queue, SHARE)
        if len(asked.failures) > failed:
            return  # the others would take as long to fail
        if found is not None:
            queue.message_stats = found.message_stats
            queue.effective_policy_definition = found.effective_policy_definition


def _read_queue(answer: HttpResponse) -> Queue | None:
    """Return a queue, None where it is gone."""
    return None if answer.status == HTTPStatus.NOT_FOUND else content(answer, QUEUE)


def _hidden(overview: Overview, seen: int) -> float | None:
    """Return how many queues the user cannot see; a fleeting one came or went."""
    there = _all_of(overview)
    return None if there is None else max(there - seen, 0)


def _sees_nothing(hidden: float) -> TargetError:
    return TargetError(
        "noperm",
        f"/api/queues: the user has no permission to see any of the {hidden:.0f} queues; for each"
        " virtual host: rabbitmqctl set_permissions -p VHOST USER '^$' '^$' '^$'",
    )


def _all_of(overview: Overview) -> float | None:
    """Return how many queues there are, seen or not."""
    totals = overview.object_totals
    return known(totals.queues) if isinstance(totals, ObjectTotals) else None
