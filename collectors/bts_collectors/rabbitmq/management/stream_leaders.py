"""The nodes of streams: a listing of depths only does not contain them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from urllib.parse import quote

from bts_collectors.rabbitmq.api.models import TOTAL, Key, Queue, Totals, columns, node_of
from bts_collectors.rabbitmq.api.requests import RequestBatch
from bts_collectors.rabbitmq.api.responses import content
from bts_exporter import HttpResponse

#: Requests in one collection; each takes a millisecond of the broker's CPU.
MAX_REQUESTS = 50
#: Share of the time left for one of these requests.
MAX_SHARE = 0.2


class StreamLeaders:
    """The nodes of queues that a listing does not contain, requested a few at a time."""

    def __init__(self) -> None:
        self._known: dict[Key, str] = {}

    def complete(self, batch: RequestBatch, queues: Iterable[Queue]) -> None:
        """Set the node of each queue that has none, if it is known.

        Unknown nodes are requested first, then those requested longest ago, since leaders move.
        """
        nameless = {(queue.vhost, queue.name): queue for queue in queues if node_of(queue) is None}
        self._known = {key: node for key, node in self._known.items() if key in nameless}
        unknown = [key for key in nameless if key not in self._known]
        for key in [*unknown, *self._known][:MAX_REQUESTS]:
            failed = len(batch.failures)
            node = batch.get_with(_path(key), _read_node, MAX_SHARE)
            if len(batch.failures) > failed:
                break  # other requests would take as long to fail
            self._known.pop(key, None)
            if node:
                self._known[key] = node  # last in order: it is requested again last
        _fill_in(nameless, self._known)


def _fill_in(queues: Mapping[Key, Queue], nodes: Mapping[Key, str]) -> None:
    for key, queue in queues.items():
        queue.node = nodes.get(key)


def _path(key: Key) -> str:
    vhost, name = (quote(part, "") for part in key)
    return f"/api/queues/{vhost}/{name}?{columns(Totals)}"


def _read_node(response: HttpResponse) -> str | None:
    """Return the node of a queue; None if the queue does not exist."""
    return None if response.status == HTTPStatus.NOT_FOUND else node_of(content(response, TOTAL))
