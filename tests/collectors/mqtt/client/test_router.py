from __future__ import annotations

import pytest

from bts_collectors.mqtt.client import router as module
from bts_collectors.mqtt.client.error_boundary import ErrorBoundary
from bts_collectors.mqtt.client.router import Handler, Publish, Router
from bts_collectors.mqtt.client.topics import Subscription


class Wants:
    """A receiver of topics with a prefix; it fails where a test requires it."""

    def __init__(self, beginning: str, *, fails: bool = False) -> None:
        self.subscriptions = (Subscription(f"{beginning}/#"),)
        self.beginning = beginning
        self.fails = fails
        self.requested: list[str] = []
        self.taken: list[tuple[str, bytes, bool]] = []
        self.begun = self.ticks = 0

    def begin(self) -> None:
        """Count."""
        self.begun += 1
        self._fail()

    def route(self, topic: str) -> Handler | None:
        """Take what begins so."""
        self.requested.append(topic)
        if not topic.startswith(self.beginning):
            return None

        def take(payload: bytes, retained: bool, _properties: bytes = b"") -> None:
            self.taken.append((topic, payload, retained))
            self._fail()

        return take

    def tick(self, publish: Publish) -> None:
        """Count."""
        self.ticks += 1
        self._fail()

    def _fail(self) -> None:
        if self.fails:
            msg = "defect"
            raise RuntimeError(msg)


@pytest.fixture
def errors() -> list[Exception]:
    """Return the errors that the boundary caught."""
    return []


def route(errors: list[Exception], *receivers: Wants) -> Router:
    """Return a router to receivers."""
    return Router(receivers, ErrorBoundary(errors.append))


def test_message_reaches_all_receivers_that_want_it(errors: list[Exception]) -> None:
    """One, several or no receivers; each is asked once per topic."""
    a, all_a, b = Wants("a"), Wants("a"), Wants("b")
    router = route(errors, a, all_a, b)
    for _ in range(2):
        router[b"a/1"](b"x", False)
        router[b"b/1"](b"y", True)
        router[b"c/1"](b"z", False)

    assert a.taken == all_a.taken == [("a/1", b"x", False)] * 2
    assert b.taken == [("b/1", b"y", True)] * 2
    assert b.requested == ["a/1", "b/1", "c/1"]


def test_failing_receiver_does_not_affect_the_others(errors: list[Exception]) -> None:
    """Errors are isolated in handlers, in begin and in tick."""
    bad, good = Wants("a", fails=True), Wants("a")
    router = route(errors, bad, good)
    router[b"a/1"](b"x", False)
    router.begin()
    router.tick(lambda *_: None)

    assert (good.taken, good.begun, good.ticks) == ([("a/1", b"x", False)], 1, 1)
    assert len(errors) == 3


def test_topic_with_invalid_utf_8_is_counted(errors: list[Exception]) -> None:
    """The message is discarded, and the connection continues."""
    wants = Wants("a")
    router = route(errors, wants)
    for _ in range(2):
        router[b"a/\xff"](b"x", False)

    assert (router.undecodable, wants.taken, len(router)) == (2, [], 0)


def test_flood_of_topics_does_not_fill_memory(
    errors: list[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache is bounded; at worst, known topics are matched again."""
    monkeypatch.setattr(module, "MAX_TOPICS", 10)
    wants = Wants("a")
    router = route(errors, wants)
    for number in range(100):
        router[b"a/%d" % number](b"x", False)
        assert len(router) <= 10
    router[b"a/0"](b"x", False)
    router[b"a/" + b"y" * 300](b"x", False)

    assert len(wants.taken) == 102
    assert max(map(len, router)) < 300


def test_subscriptions_of_all_are_made_once(errors: list[Exception]) -> None:
    """Two receivers of the same topics do not make the broker send messages twice."""
    assert route(errors, Wants("a"), Wants("a"), Wants("b")).subscriptions == (
        Subscription("a/#"),
        Subscription("b/#"),
    )
