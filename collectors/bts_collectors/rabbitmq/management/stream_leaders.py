"""Which node a stream is on, where only depths are listed: that listing does not say it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from urllib.parse import quote

from bts_collectors.rabbitmq.api.models import TOTAL, Key, Queue, Totals, columns, owner
from bts_collectors.rabbitmq.api.requests import Round
from bts_collectors.rabbitmq.api.responses import content
from bts_exporter import HttpResponse

#: Queues that are asked for in one collection, a millisecond of the broker's each.
MOST_ASKED = 50
#: The part of the time left that one of these questions may take.
SHARE = 0.2


class Owners:
    """The nodes of queues whose listing names none, learned a few at a time."""

    def __init__(self) -> None:
        self._known: dict[Key, str] = {}

    def complete(self, asked: Round, queues: Iterable[Queue]) -> None:
        """Fill in the node of each queue that has none, as far as it is known.

        Those that are not known come first, then those that were asked for longest ago: a leader moves.
        """
        nameless = {(queue.vhost, queue.name): queue for queue in queues if owner(queue) is None}
        self._known = {key: node for key, node in self._known.items() if key in nameless}
        unknown = [key for key in nameless if key not in self._known]
        for key in [*unknown, *self._known][:MOST_ASKED]:
            failed = len(asked.failures)
            node = asked.ask(_path(key), _read_owner, SHARE)
            if len(asked.failures) > failed:
                break  # the others would take as long to fail
            self._known.pop(key, None)
            if node:
                self._known[key] = node  # at the end: it is asked for again last
        _fill_in(nameless, self._known)


def _fill_in(queues: Mapping[Key, Queue], nodes: Mapping[Key, str]) -> None:
    for key, queue in queues.items():
        queue.node = nodes.get(key)


def _path(key: Key) -> str:
    vhost, name = (quote(part, "") for part in key)
    return f"/api/queues/{vhost}/{name}?{columns(Totals)}"


def _read_owner(answer: HttpResponse) -> str | None:
    """Return the node of a queue, None where the queue is gone."""
    return None if answer.status == HTTPStatus.NOT_FOUND else owner(content(answer, TOTAL))
