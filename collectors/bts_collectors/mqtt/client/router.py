"""From a topic to whoever wants its messages: looked up once, then one access to a dict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from bts_collectors.mqtt.client.error_boundary import ErrorBoundary
from bts_collectors.mqtt.client.topics import Subscription, disjoint


class Handler(Protocol):
    """Takes a message."""

    def __call__(self, payload: bytes, retained: bool, properties: bytes = b"", /) -> None:  # noqa: FBT001
        """Take its payload, whether the broker had kept it for us, and MQTT 5's properties as sent."""


class Outgoing(NamedTuple):
    """A message of ours."""

    topic: str
    payload: bytes
    qos: int = 0
    #: Seconds after which the broker is to throw it away, with MQTT 5; 0 for never.
    expiry_seconds: int = 0


#: Sends a message.
Publish = Callable[[Outgoing], None]

#: Bytes of a payload; messages with more are counted and left out.
MAX_PAYLOAD_BYTES = 1 << 20
#: Topics whose handlers are remembered; longer ones and more of them are looked up again.
MAX_TOPICS = 50_000
MAX_TOPIC_BYTES = 256


class Receiver(Protocol):
    """Somebody who wants messages; the network thread alone calls it."""

    @property
    def subscriptions(self) -> Sequence[Subscription]:
        """Return what to subscribe to."""

    def begin(self) -> None:
        """Take note that a new connection was made; its messages follow."""

    def route(self, topic: str) -> Handler | None:
        """Return what takes the messages of `topic`, None where they are unwanted.

        It may be kept and called for a long time; or be asked for again.
        """

    def tick(self, publish: Publish) -> None:
        """Do what is due; called twice a second while there is a connection."""


class Router(dict[bytes, Handler]):
    """Handlers by topic: `router[topic](payload, retained)`; what is missing is looked up."""

    def __init__(self, receivers: Sequence[Receiver], boundary: ErrorBoundary) -> None:
        """Give what the errors of a receiver end in."""
        super().__init__()
        #: Messages that reached nobody because their payload is too large.
        self.oversized = 0
        #: Those whose topic is not UTF-8.
        self.undecodable = 0
        self._receivers = receivers
        self._boundary = boundary

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        """Return what to subscribe to for all receivers."""
        return disjoint(one for receiver in self._receivers for one in receiver.subscriptions)

    def begin(self) -> None:
        """Tell all receivers of a new connection."""
        for receiver in self._receivers:
            with self._boundary:
                receiver.begin()

    def tick(self, publish: Publish) -> None:
        """Let all receivers do what is due."""
        for receiver in self._receivers:
            with self._boundary:
                receiver.tick(publish)

    def __missing__(self, topic: bytes) -> Handler:
        """Return the handler for a topic that is not remembered."""
        try:
            handler = self._handler(topic.decode())
        except UnicodeDecodeError:
            self.undecodable += 1
            return _ignore
        if len(topic) <= MAX_TOPIC_BYTES:
            if len(self) >= MAX_TOPICS:
                # Whoever floods us with topics makes known ones be looked up again, no more.
                self.clear()
            self[topic] = handler
        return handler

    def _handler(self, topic: str) -> Handler:
        found: list[Handler] = []
        for receiver in self._receivers:
            with self._boundary:
                if handler := receiver.route(topic):
                    found.append(handler)
        match found:
            case []:
                return _ignore
            case [only]:
                return only
        return self._fan_out(found)

    def _fan_out(self, handlers: list[Handler]) -> Handler:
        def handle(payload: bytes, retained: bool, properties: bytes = b"") -> None:  # noqa: FBT001  # Handler
            for handler in handlers:
                with self._boundary:
                    handler(payload, retained, properties)

        return handle


def _ignore(_payload: bytes, _retained: bool, _properties: bytes = b"") -> None:  # noqa: FBT001  # Handler
    """Take a message that nobody wants."""
