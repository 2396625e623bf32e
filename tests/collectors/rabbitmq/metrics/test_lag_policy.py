"""The lag of a queue whose length limit is changed by a policy while messages wait."""

from __future__ import annotations

from typing import Any

import pytest

from bts_collectors.rabbitmq.api.models import Arguments, MessageStats, Policy, Queue
from bts_collectors.rabbitmq.metrics.lag import Lags
from bts_exporter import Restored
from bts_exporter.backlog import Age

KEY = ("/", "q")
NOW = 1_700_000_000.0
REJECT = Policy(max_length=20, overflow="reject-publish")
BYTES = Policy(max_length_bytes=2000, overflow="reject-publish")


class Watch:
    """A queue to which two messages a second are published; it is observed every five seconds."""

    def __init__(self, kind: str, **fields: Any) -> None:
        """Start with an empty queue."""
        self.now, self.published = 0.0, 0
        self.fields: dict[str, Any] = {"type": kind, "state": "running", "consumers": 0, **fields}
        self.lags = Lags(lambda: self.now)
        self.observe(0)

    def look(self, ready: int, policy: Policy | None = None) -> Age | None:
        """Return the age of the oldest message five seconds and ten messages later."""
        self.now += 5
        self.published += 10
        return self.observe(ready, policy or Policy())

    def observe(self, ready: int, policy: Policy | None = None) -> Age | None:
        """Return the age of the oldest message."""
        stats = MessageStats(publish=self.published, deliver_get=0)
        queue = Queue(
            name="q",
            vhost="/",
            message_stats=stats,
            messages_ready=ready,
            messages_unacknowledged=0,
            effective_policy_definition=policy or Policy(),
            **self.fields,
        )
        return self.lags.observe([queue], NOW + self.now)[KEY].age

    def restart(self) -> None:
        """Continue from the stored state."""
        state = self.lags.save()
        self.lags = Lags(lambda: self.now)
        self.lags.restore = lambda _: Restored(state, 0.0, 0.0)
        self.lags.identify("cluster")


def grown(kind: str, **fields: Any) -> Watch:
    """Return a queue of 100 messages; the first one came in 50 seconds ago."""
    watch = Watch(kind, **fields)
    for ready in range(10, 101, 10):
        watch.look(ready)
    return watch


@pytest.mark.parametrize("overflow", ["reject-publish", "reject-publish-dlx"])
@pytest.mark.parametrize("late", [0, 1, 2])
def test_a_classic_queue_drops_its_oldest_messages_once(overflow: str, late: int) -> None:
    """A limit below the depth leaves the newest messages, however late the depth shows it; later ones are rejected."""
    watch, policy = grown("classic"), Policy(max_length=20, overflow=overflow)
    for _ in range(late):
        watch.look(100, policy)

    found = [watch.look(20, policy) for _ in range(6)]

    # The last 20 of 110 messages: those of the last ten seconds before the limit was seen.
    assert found == [Age(10 + 5 * (late + n), "interpolation") for n in range(6)]


@pytest.mark.parametrize(
    ("kind", "fields"),
    [("quorum", {}), ("classic", {"arguments": Arguments(overflow="reject-publish")})],
)
def test_other_queues_keep_what_they_had(kind: str, fields: dict[str, Any]) -> None:
    """A quorum queue, and one that rejects messages already, only rejects new ones."""
    watch = grown(kind, **fields)

    found = [watch.look(100, REJECT) for _ in range(6)]

    assert found == [Age(55 + 5 * n, "interpolation") for n in range(6)]


def test_a_restart_of_the_exporter_does_not_apply_a_limit_again() -> None:
    """What a classic queue drops when its limit is new, it does not drop later."""
    watch = grown("classic")
    watch.look(20, REJECT)
    watch.restart()

    found = [watch.look(20, REJECT) for _ in range(3)]

    assert found == [Age(15 + 5 * n, "interpolation") for n in range(3)]


def test_drop_head_below_the_depth_keeps_the_newest() -> None:
    """With drop-head, a full queue has the messages that came in last."""
    watch, policy = grown("classic"), Policy(max_length=20)

    found = [watch.look(20, policy) for _ in range(4)]

    assert found == [Age(10, "interpolation")] * 4


@pytest.mark.parametrize("kind", ["classic", "quorum"])
@pytest.mark.parametrize("length", [None, 1000])
def test_a_limit_in_bytes_rejects_messages_as_well(kind: str, length: int | None) -> None:
    """A depth that stays the same with a limit in bytes is that of the same messages."""
    watch = grown(kind)
    policy = Policy(max_length=length, max_length_bytes=4000, overflow="reject-publish")

    age = [watch.look(100, policy) for _ in range(12)][-1]

    assert age is not None
    assert 100 <= age.seconds <= 110


def test_a_limit_in_bytes_below_the_depth_drops_the_oldest() -> None:
    """A classic queue drops its oldest messages once, which the depth shows."""
    watch = grown("classic")

    age = [watch.look(50, BYTES) for _ in range(12)][-1]

    assert age is not None
    assert 75 <= age.seconds <= 90


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("policy", [REJECT, BYTES])
def test_channels_of_a_quorum_queue_reject_after_the_policy_is_removed(
    policy: Policy, restarts: bool
) -> None:
    """Messages that are counted and do not appear were rejected: the others are still there."""
    watch = grown("quorum")
    for _ in range(3):
        watch.look(100, policy)
    watch.look(100)
    if restarts:
        watch.restart()

    age = [watch.look(100) for _ in range(12)][-1]

    assert age is not None
    assert 120 <= age.seconds <= 130


def test_drop_head_after_rejection_is_unknown_in_a_quorum_queue() -> None:
    """Some channels may still get their messages rejected: the age of the newest ones would be too low."""
    watch = grown("quorum")
    for _ in range(3):
        watch.look(100, REJECT)

    found = [watch.look(20, Policy(max_length=20)) for _ in range(6)]

    assert {age and age.method for age in found} <= {None, "lower_bound"}


def test_a_quorum_queue_that_was_not_full_has_no_such_channels() -> None:
    """Without rejected messages, drop-head keeps the newest."""
    watch = Watch("quorum")
    for ready in range(10, 101, 10):
        watch.look(ready, Policy(max_length=1000, overflow="reject-publish"))

    found = [watch.look(20, Policy(max_length=20)) for _ in range(4)]

    assert found == [Age(10, "interpolation")] * 4
