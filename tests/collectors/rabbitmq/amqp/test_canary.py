from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, cast

import pytest

from bts_collectors.rabbitmq.amqp.canary import Canary
from bts_collectors.rabbitmq.amqp.probe import Latencies, Outcome, Prober
from bts_collectors.rabbitmq.errors import Failure
from bts_collectors.rabbitmq.metrics.amqp import (
    CANARY_CONFIRM,
    CANARY_END_TO_END,
    CANARY_PROBES,
    CANARY_UP,
    RESULTS,
)
from bts_exporter import Metric, Scrape, TargetError
from servers import wait_until

OK = Outcome("ok", Latencies(0.002, 0.004))
DENIED = Outcome("denied", failure=Failure("noperm", "canary: amqp://broker: 403"))


class FakeProber:
    """Says what becomes of each message, as a test wants it."""

    vhost = "prod"

    def __init__(self, send: Callable[[str], Outcome]) -> None:
        self._send = send
        self.is_open = True
        self.sent: list[str] = []
        self.breaths = 0
        self.closed = threading.Event()

    def send(self, kind: str) -> Outcome:
        """Note the message."""
        self.sent.append(kind)
        return self._send(kind)

    def process_heartbeats(self) -> None:
        """Count."""
        self.breaths += 1

    def close(self) -> None:
        """Note it."""
        self.closed.set()


def after(released: threading.Event) -> Callable[[str], Outcome]:
    """Return what hangs until `released` is set."""

    def send(_: str) -> Outcome:
        released.wait()
        return OK

    return send


@contextmanager
def canary(
    prober: FakeProber, kinds: tuple[str, ...] = ("classic",), timeout: float = 60.0
) -> Iterator[Canary]:
    """Return a canary at work, that sends one round and then waits for an hour."""
    made = Canary(cast("Prober", prober), kinds, interval=3600, timeout=timeout)
    made.start()
    try:
        yield made
    finally:
        made.close()


def collected(made: Canary) -> dict[Metric, dict[tuple[str, ...], float]]:
    """Return the samples of one collection."""
    scrape = Scrape(monotonic() + 20)
    made.collect(scrape)
    assert scrape.losses == []
    return scrape.samples


def counted(made: Canary) -> dict[tuple[str, ...], float]:
    """Return the counts that are not 0."""
    found: dict[str, Any] = {}

    def is_there() -> bool:
        try:
            found["counts"] = collected(made)[CANARY_PROBES]
        except TargetError:
            return False
        return sum(found["counts"].values()) > 0

    wait_until(is_there, "the first message is over")
    return {key: count for key, count in found["counts"].items() if count}


def test_a_message_that_comes_back_shows_with_its_times() -> None:
    """A probe that is received is counted in histograms, so slow ones between two scrapes are visible."""
    with canary(FakeProber(lambda _: OK)) as made:
        counted(made)
        samples = collected(made)

    key = ("prod", "classic")
    assert samples[CANARY_UP] == {key: 1}
    assert samples[CANARY_PROBES] == {(*key, result): result == "ok" for result in RESULTS}
    assert samples[CANARY_CONFIRM]["_sum", *key] == 0.002
    assert samples[CANARY_CONFIRM]["_bucket", *key, "0.001"] == 0
    assert samples[CANARY_CONFIRM]["_bucket", *key, "0.0025"] == 1
    assert samples[CANARY_END_TO_END]["_bucket", *key, "0.0025"] == 0
    assert samples[CANARY_END_TO_END]["_bucket", *key, "+Inf"] == 1


@pytest.mark.parametrize("result", ["blocked", "unroutable", "rejected", "lost", "timeout"])
def test_each_way_to_fail_is_counted_by_its_name(result: Any) -> None:
    """Failed probes are states of the broker: they are counted by result, and the collection succeeds."""
    with canary(FakeProber(lambda _: Outcome(result))) as made:
        assert counted(made) == {("prod", "classic", result): 1}
        samples = collected(made)

    assert samples[CANARY_UP] == {("prod", "classic"): 0}
    assert samples[CANARY_CONFIRM]["_count", "prod", "classic"] == 0


def test_a_canary_that_is_not_let_in_fails_the_collection() -> None:
    """A refused login fails the collection with the broker's reason and text."""
    with canary(FakeProber(lambda _: DENIED)) as made:
        caught: list[TargetError] = []

        def fails() -> bool:
            try:
                collected(made)
            except TargetError as error:
                caught.append(error)
            return bool(caught)

        wait_until(fails, "the failure shows")

    assert DENIED.failure is not None
    assert (caught[0].reason, str(caught[0])) == DENIED.failure


def test_a_canary_whose_thread_died_says_so_and_is_started_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If the canary's thread ends by a defect, the collection fails once and the thread is restarted."""
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    broken = [True]

    def send(_: str) -> Outcome:
        if broken.pop() if broken else False:
            msg = "a defect"
            raise LookupError(msg)
        return OK

    with canary(FakeProber(send)) as made:
        failures: list[TargetError] = []

        def works() -> bool:
            try:
                counts = collected(made)[CANARY_PROBES]
            except TargetError as error:
                failures.append(error)
                return False
            return any(key[-1] == "ok" and count for key, count in counts.items())

        wait_until(works, "it sends again")

    assert [error.reason for error in failures] == ["internal"]


def test_types_fail_on_their_own() -> None:
    """A queue type without permission does not prevent probes of the other type."""
    prober = FakeProber(lambda kind: OK if kind == "quorum" else Outcome("unroutable"))
    with canary(prober, ("classic", "quorum")) as made:
        wait_until(lambda: len(prober.sent) > 1, "both were sent")
        wait_until(lambda: len(counted(made)) > 1, "both are over")
        samples = collected(made)

    assert samples[CANARY_UP] == {("prod", "classic"): 0, ("prod", "quorum"): 1}


def test_a_broker_that_does_not_answer_is_tried_once_a_round() -> None:
    """If the connection fails for one queue type, the others are not tried in the same round."""
    prober = FakeProber(lambda _: Outcome("timeout"))
    prober.is_open = False
    with canary(prober, ("classic", "quorum")) as made:
        wait_until(lambda: len(counted(made)) > 1, "both are counted")

        assert prober.sent == ["classic"]
        assert collected(made)[CANARY_UP] == {("prod", "classic"): 0, ("prod", "quorum"): 0}


def test_before_the_first_message_is_over_nothing_is_known() -> None:
    """Before the first result the canary is neither up nor down."""
    released = threading.Event()
    with canary(FakeProber(after(released))) as made:
        samples = collected(made)
        released.set()

    assert CANARY_UP not in samples
    assert set(samples[CANARY_PROBES].values()) == {0}


def test_a_message_that_hangs_shows_while_it_hangs_and_delays_no_scrape() -> None:
    """A frozen broker is reported before the connection breaks."""
    released = threading.Event()
    prober = FakeProber(after(released))
    with canary(prober, timeout=0.0) as made:
        wait_until(lambda: prober.sent, "a message is under way")
        wait_until(lambda: collected(made).get(CANARY_UP), "it is late")

        assert collected(made)[CANARY_UP] == {("prod", "classic"): 0}
        released.set()


def test_a_message_that_hangs_is_no_longer_up_although_the_last_one_was() -> None:
    """A probe that exceeds its timeout sets the canary to 0, although the previous one succeeded."""
    released = threading.Event()
    prober = FakeProber(lambda kind: OK if kind == "classic" else after(released)(kind))
    with canary(prober, ("classic", "quorum"), timeout=0.0) as made:
        wait_until(lambda: len(prober.sent) == 2, "the second message is under way")
        wait_until(lambda: collected(made)[CANARY_UP]["prod", "classic"] == 0, "it is late")
        released.set()


def test_heartbeats_are_answered_between_messages() -> None:
    """Heartbeats are processed between probes, so the broker keeps the connection."""
    prober = FakeProber(lambda _: OK)
    with canary(prober):
        wait_until(lambda: prober.breaths, "a look for heartbeats")

    assert prober.sent == ["classic"]


def test_closing_ends_the_thread_and_what_it_owns() -> None:
    """Closing ends the thread, its queues and its connection."""
    prober = FakeProber(lambda _: OK)
    with canary(prober):
        pass

    assert prober.closed.wait(20)


def test_closing_does_not_wait_for_a_broker_that_hangs() -> None:
    """A reload continues; the thread ends when its connection breaks."""
    released = threading.Event()
    prober = FakeProber(after(released))
    with canary(prober):
        wait_until(lambda: prober.sent, "a message is under way")

    assert not prober.closed.is_set()
    released.set()
    assert prober.closed.wait(20)


def test_a_canary_that_never_started_can_be_closed() -> None:
    """A canary that was only configured can be closed."""
    prober = FakeProber(lambda _: OK)
    Canary(cast("Prober", prober), ("classic",), interval=1, timeout=1).close()

    assert prober.sent == []
