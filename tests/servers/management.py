"""A fake of RabbitMQ's management API that answers as badly as a test wants it to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from bts_exporter.testing import Handler, HttpServer, Reply, Request, hang, in_turn, raw, reply

__all__ = ["Reply", "answer", "drip", "hang", "in_turn", "raw", "send", "then_close"]

#: A small and healthy broker.
HEALTHY: dict[str, object] = {
    "/api/overview": {"rabbitmq_version": "3.10.8", "node": "rabbit@one", "cluster_name": "shop"},
    "/api/health/checks/alarms": {"status": "ok"},
    "/api/nodes": [{"name": "rabbit@one", "running": True}],
    "/api/queues": [{"name": "orders", "vhost": "/", "type": "classic", "messages_ready": 7}],
    "/api/consumers": [],
    "/api/exchanges": [],
}


class FakeManagement(HttpServer):
    """A management API with a reply for each path; healthy until a test changes that."""

    def __init__(self, certificate: Path | None = None, port: int = 0) -> None:
        self.requests: list[str] = []
        self.headers: list[Mapping[str, str]] = []
        #: Of requests that have one.
        self.bodies: list[bytes] = []
        #: Whether somebody waited for the end of an answer that drips.
        self.dripped_out = False
        super().__init__(certificate, port)
        self.routes |= {path: answer(found) for path, found in HEALTHY.items()}
        self.otherwise = answer({"error": "Object Not Found"}, 404)

    def note(self, request: Request) -> None:
        """Keep what tests ask for."""
        self.requests.append(request.path)
        self.headers.append(request.headers)
        if request.method == "POST":
            self.bodies.append(request.body)

    def serve(self, folder: Path) -> None:
        """Answer with the files of `folder`, each named as the last part of its path."""
        for file in folder.glob("*.json"):
            self.routes[f"/api/{file.stem}"] = answer(json.loads(file.read_text()))


def answer(content: object, status: int = 200) -> Reply:
    """Reply with JSON, packed as RabbitMQ does for those who ask."""
    return send(json.dumps(content).encode(), status, {"Content-Type": "application/json"})


def send(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Reply:
    """Reply with `body`."""
    return reply(body, status, headers, packed=True)


def then_close(reply: Reply) -> Reply:
    """Reply and close the connection without a word about it."""

    def closing(handler: Handler) -> None:
        reply(handler)
        handler.close_connection = True

    return closing


def drip(first: bytes, drop: bytes, drops: int, last: bytes) -> Reply:
    """Reply with `first`, then `drops` times `drop` with a pause before each, then `last`."""

    def reply(handler: Handler) -> None:
        fake = handler.fake
        assert isinstance(fake, FakeManagement)
        handler.close_connection = True
        handler.wfile.write(first)
        for _ in range(drops):
            if fake.over.wait(0.1):
                return
            handler.wfile.write(drop)
        fake.dripped_out = True
        handler.wfile.write(last)

    return reply
