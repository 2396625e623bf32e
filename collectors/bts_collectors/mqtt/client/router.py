"""Routes messages to receivers by topic: matched once per topic, then a single dict lookup."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from bts_collectors.mqtt.client.error_boundary import ErrorBoundary
from bts_collectors.mqtt.client.topics import Subscription, disjoint


class Handler(Protocol):
    """Handles the messages of a topic."""

    def __call__(self, payload: bytes, retained: bool, properties: bytes = b"", /) -> None:  # noqa: FBT001
        """Handle a message; `retained` is its RETAIN flag, `properties` those of MQTT 5 as sent."""


class Outgoing(NamedTuple):
    """A message to publish."""

    topic: str
    payload: bytes
    qos: int = 0
    #: Message expiry interval (MQTT 5), 0 for none.
    expiry_seconds: int = 0


#: Publishes a message.
Publish = Callable[[Outgoing], None]

#: Larger payloads are counted and discarded.
MAX_PAYLOAD_BYTES = 1 << 20
#: Limits of the cache of handlers; topics beyond them are matched for each message.
MAX_TOPICS = 50_000
MAX_TOPIC_BYTES = 256


class Receiver(Protocol):
    """Receives messages; only the network thread calls it."""

    @property
    def subscriptions(self) -> Sequence[Subscription]:
        """Return the subscriptions that this receiver needs."""

    def begin(self) -> None:
        """Handle a new connection; its messages follow."""

    def route(self, topic: str) -> Handler | None:
        """Return the handler for `topic`, or None if the receiver does not want its messages.

        The router may keep the handler, or call this method again for the same topic.
        """

    def tick(self, publish: Publish) -> None:
        """Do periodic work; called twice a second while connected."""


class Router(dict[bytes, Handler]):
    """A cache of handlers by topic: `router[topic](payload, retained)` matches a new topic first."""

    def __init__(self, receivers: Sequence[Receiver], boundary: ErrorBoundary) -> None:
        """Take the receivers, and the boundary that catches their errors."""
        super().__init__()
        #: Messages discarded because their payload is larger than MAX_PAYLOAD_BYTES.
        self.oversized = 0
        #: Messages discarded because their topic is not UTF-8.
        self.undecodable = 0
        self._receivers = receivers
        self._boundary = boundary

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        """Return the subscriptions of all receivers, without overlaps."""
        return disjoint(
            subscription for receiver in self._receivers for subscription in receiver.subscriptions
        )

    def begin(self) -> None:
        """Notify all receivers of a new connection."""
        for receiver in self._receivers:
            with self._boundary:
                receiver.begin()

    def tick(self, publish: Publish) -> None:
        """Let all receivers do their periodic work."""
        for receiver in self._receivers:
            with self._boundary:
                receiver.tick(publish)

    def __missing__(self, topic: bytes) -> Handler:
        """Return the handler for a topic that is not in the cache."""
        try:
            handler = self._handler(topic.decode())
        except UnicodeDecodeError:
            self.undecodable += 1
            return _ignore
        if len(topic) <= MAX_TOPIC_BYTES:
            if len(self) >= MAX_TOPICS:
                # A flood of topics costs lookups, not memory.
                self.clear()
            self[topic] = handler
        return handler

    def _handler(self, topic: str) -> Handler:
        handlers: list[Handler] = []
        for receiver in self._receivers:
            with self._boundary:
                if handler := receiver.route(topic):
                    handlers.append(handler)
        match handlers:
            case []:
                return _ignore
            case [only]:
                return only
        return self._fan_out(handlers)

    def _fan_out(self, handlers: list[Handler]) -> Handler:
        def handle(payload: bytes, retained: bool, properties: bytes = b"") -> None:  # noqa: FBT001  # Handler
            for handler in handlers:
                with self._boundary:
                    handler(payload, retained, properties)

        return handle


def _ignore(_payload: bytes, _retained: bool, _properties: bytes = b"") -> None:  # noqa: FBT001  # Handler
    """Discard a message that no receiver wants."""
