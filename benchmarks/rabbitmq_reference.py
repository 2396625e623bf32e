"""What bts-exporter does for a broker with many queues, done with the standard library and prometheus_client."""

from __future__ import annotations

import gzip
import json
import sys
import threading
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily

HEADERS = {
    "Authorization": f"Basic {b64encode(b'guest:guest').decode()}",
    "Accept-Encoding": "gzip",
}
QUEUE = ("vhost", "queue")
COMMON = ("system", "destination", "group")
DEPTHS = ("messages", "messages_ready", "messages_unacknowledged")


class Reference:
    """A collector as prometheus_client wants it."""

    def __init__(self, address: str, queues: str, consumers: str) -> None:
        """Ask the management API at `address` for these two paths."""
        self._connection = HTTPConnection(address)
        self._queues = queues
        self._consumers = consumers

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the same number of samples for each queue as bts-exporter serves."""
        listed = self._ask(self._queues)
        consumers = self._ask(self._consumers)
        of_queues = Counter((c["queue"]["vhost"], c["queue"]["name"]) for c in consumers)
        for name in (*DEPTHS, "consumers", "consumers_auto_ack"):
            family = GaugeMetricFamily(
                f"rabbitmq_queue_{name}", "A figure of a queue.", labels=QUEUE
            )
            for queue in listed:
                key = (queue["vhost"], queue["name"])
                family.add_metric(key, queue.get(name, of_queues[key]))
            yield family
        info = GaugeMetricFamily(
            "rabbitmq_queue_info",
            "The queue.",
            labels=(*QUEUE, "type", "durable", "policy", "node"),
        )
        state = GaugeMetricFamily("rabbitmq_queue_state", "Its state.", labels=(*QUEUE, "state"))
        for queue in listed:
            key = (queue["vhost"], queue["name"])
            durable = str(queue["durable"]).lower()
            info.add_metric((*key, queue["type"], durable, "", queue["node"]), 1)
            state.add_metric((*key, queue["state"]), 1)
        yield from (info, state)
        for name in ("backlog", "in_flight", "consumers", "lag_seconds", "drain_seconds"):
            family = GaugeMetricFamily(f"messaging_{name}", "A figure of lag.", labels=COMMON)
            for queue in listed:
                family.add_metric(("rabbitmq", queue["name"], ""), queue["messages_ready"])
            yield family

    def _ask(self, path: str) -> Any:
        self._connection.request("GET", path, headers=HEADERS)
        return json.loads(gzip.decompress(self._connection.getresponse().read()))


def main() -> None:
    """Serve what the broker at `url` says, at `port`."""
    port, url, queues, consumers = sys.argv[1:]
    registry = CollectorRegistry()
    registry.register(Reference(urlsplit(url).netloc, queues, consumers))  # type: ignore[arg-type]
    start_http_server(int(port), "127.0.0.1", registry)
    threading.Event().wait()


if __name__ == "__main__":
    main()
