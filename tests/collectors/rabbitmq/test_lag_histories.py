"""Random histories of a queue, scraped every five seconds, held against the age of every message.

As many as BTS_HISTORIES names, 60 if it is not set.
"""

from __future__ import annotations

import os
from math import inf
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from bts_collectors.rabbitmq.api.models import Queue
from bts_collectors.rabbitmq.metrics.lag import Lags, LagState, flow_of
from bts_collectors.rabbitmq.metrics.queue_order import NO_FLOW
from bts_exporter import Restored, backlog
from lag_simulator import EPOCH, OLDEST, SimulatedQueue
from rabbitmq_lag import SCHEDULES, Schedule, measure

HISTORIES = os.environ.get("BTS_HISTORIES")
#: The same histories at each run of the tests; new ones where their number is asked for.
histories = settings(
    max_examples=int(HISTORIES or 60),
    derandomize=HISTORIES is None,
    phases=set(Phase) if HISTORIES else {Phase.generate},
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

#: Seconds, or the part of the truth, by which a lag may be wrong.
TOLERANCE, PART = 10.0, 0.1
#: Seconds that what a broker shows may be old.
SHOWN = OLDEST / 10
#: Tenths of a second after which every scrape has shown an event.
LATE = OLDEST + 50

#: What happens in some seconds: messages published and consumed in each, and an event before.
Stretch = tuple[int, int, int, str]

#: The statistics that the broker loses: all, or those of closed channels.
LOSSES = {
    "lose-all": ("publish", "deliver_get", "redeliver", "ack"),
    "lose-published": ("publish",),
    "lose-delivered": ("deliver_get", "redeliver", "ack"),
}
RATES = st.sampled_from([0, 0, 1, 5, 20, 60])
#: The exporter is restarted, at once or after the stretch.
EXPORTER_EVENTS = ["exporter-restart", "exporter-down"]
#: How much longer than others a stretch is in which it does not run.
DOWN_TIMES = 4
PLAIN_EVENTS = st.sampled_from(["none"] * 6 + EXPORTER_EVENTS)
EVENTS = st.sampled_from(
    ["none"] * 12
    + ["die", "reject", "purge", "restart", "remake", "dead-letters", "no-counts", "stop", "leave"]
    + ["hang", *LOSSES, *EXPORTER_EVENTS]
)


def stretches(events: st.SearchStrategy[str]) -> st.SearchStrategy[list[Stretch]]:
    """Return lists of what happens, of half a minute each on average."""
    one = st.tuples(st.integers(1, 60), RATES, RATES, events)
    return st.lists(one, min_size=4, max_size=16)


QUEUES = st.fixed_dictionaries(
    {},
    optional={
        "ttl": st.sampled_from([50, 200, 600, 1200]),
        "max_length": st.sampled_from([10, 100, 1000]),
        "overflow": st.sampled_from(["drop-head", "reject-publish", "reject-publish-dlx"]),
        "priorities": st.booleans(),
        "skew": st.sampled_from([0, -50, 3000, 180_000, -180_000]),
    },
)


class History:
    """A queue to which things happen, and a scrape every five seconds."""

    def __init__(self, phase: int, offset: int, **made: Any) -> None:
        """Begin with an empty queue; the scrapes come `offset` tenths after the statistics."""
        self.queue = SimulatedQueue(phase=phase, **made)
        self._offset = offset
        self._now = 0
        #: How much the clock of the exporter's process is ahead.
        self._ahead = 0.0
        self._lags = Lags(lambda: self._now / 10)
        self._is_down = False
        self._random = Random(phase)
        self._shows = ""
        self._purged = -inf
        self._counts = (0.0, 0.0)
        self._resets = 0
        #: Whether the counts were reset and had passed their last values by the next scrape.
        self.has_hidden_reset = False
        self.checked = 0
        self.lags: list[object] = []

    def live(self, lived: list[Stretch], *, plain: bool) -> None:
        """Let things happen, and check every scrape."""
        for seconds, publish, consume, event in lived:
            self._let_happen(event)
            times = DOWN_TIMES if self._is_down else 1
            # One that is made again and used more than before at once looks as if it went on.
            quiet = LATE if event == "remake" else 0
            for tenth in range(-quiet, seconds * 10 * times):
                self.queue.publish(_even(publish, tenth) if tenth >= 0 else 0)
                if event != "hang":
                    self.queue.consume(_even(consume, tenth), self._random)
                self.queue.tick()
                if self._now % 50 == self._offset and not self._is_down:
                    self._scrape(plain=plain)
                self._now += 1
            if self._is_down:
                self._restart_exporter()

    def _restart_exporter(self) -> None:
        """Continue with what the exporter stored, in a process with another clock."""
        content = msgspec.json.encode(self._lags.save())
        stored = msgspec.json.decode(content, type=LagState)
        self._ahead += 1000.0
        ahead = self._ahead
        self._lags = Lags(lambda: self._now / 10 + ahead)
        self._lags.restore = lambda _: Restored(stored, 0.0, 1000.0)
        self._lags.identify("cluster")

    def _let_happen(self, event: str) -> None:
        if event == "exporter-restart":
            self._restart_exporter()
        self._is_down = event == "exporter-down"
        queue = self.queue
        self._shows = event if event in {"no-counts", "stop"} else ""
        queue.consumers = int(event != "leave")
        match event:
            case "die":
                queue.take(20, self._random)
                queue.requeue()
            case "reject":
                queue.take(10, self._random)
                queue.reject()
            case "purge":
                queue.purge()
                self._purged = self._now
            case "restart":
                queue.forget()
            case "remake":
                queue.remake()
            # Between two depths, they can replace purged messages: nothing would show it.
            case "dead-letters" if self._now - self._purged > LATE:
                queue.publish(15, counted=False)
            case "leave" | "hang":
                queue.take(5, self._random)
            case "lose-all" | "lose-published" | "lose-delivered":
                queue.lose_statistics(*LOSSES[event])

    def _scrape(self, *, plain: bool) -> None:
        shown = self.queue.shown()
        if shown is None:
            return
        if self._shows == "no-counts":
            shown.message_stats = None
        if self._shows == "stop":
            shown.state, shown.messages_ready, shown.message_stats = "stopped", None, None
        self._find_hidden_reset(shown)
        age = self._lags.observe([shown], EPOCH + self._now / 10)["/", "q"].age
        if age is not None and not self.has_hidden_reset:
            self.checked += 1
            self.lags += age
            self._check(age, plain=plain)

    def _find_hidden_reset(self, shown: Queue) -> None:
        """Compare the counts with those of the scrape before: a reset that these do not show is not checked."""
        flow = flow_of(shown)
        if flow is None or flow == NO_FLOW:
            return
        counts = (flow.published, flow.delivered)
        has_fallen = any(new < old for new, old in zip(counts, self._counts, strict=True))
        if self.queue.shown_resets > self._resets and any(self._counts) and not has_fallen:
            self.has_hidden_reset = True
        self._counts, self._resets = counts, self.queue.shown_resets

    def _check(self, age: backlog.Age, *, plain: bool) -> None:
        least, most = self.queue.truths()
        if age.seconds == 0:
            assert not self.queue.waited_lately(), "0 while messages wait"
        if (
            age.method != "message_time"
        ):  # of what was there at the first look, nothing contradicts it
            assert 0 <= age.seconds <= self._now / 10 + 1, "older than the queue"
        if self.queue.ttl is not None:
            assert age.seconds <= self.queue.ttl / 10, "older than a message may get"
        if age.method == "lower_bound":
            assert age.seconds <= most + 1, "a lower bound above the truth"
        elif plain:
            assert age.seconds >= least - max(TOLERANCE, PART * least), "too young"
            assert age.seconds <= most + max(TOLERANCE, PART * most), "too old"


def _even(rate: int, tenth: int) -> int:
    """Return how many of `rate` per second fall into a tenth."""
    return rate * (tenth + 1) // 10 - rate * tenth // 10


@given(stretches(PLAIN_EVENTS), st.integers(0, 49), st.integers(0, 49))
@histories
def test_of_a_queue_that_nothing_invalid_happens_to_every_lag_is_right(
    lived: list[Stretch], phase: int, offset: int
) -> None:
    """The lag is within ten seconds or a tenth of the truth at the time of the broker's statistics."""
    History(phase, offset).live(lived, plain=True)


@given(stretches(EVENTS), QUEUES, st.integers(0, 49), st.integers(0, 49))
@histories
def test_whatever_happens_to_a_queue_no_lag_is_false(
    lived: list[Stretch], made: dict[str, Any], phase: int, offset: int
) -> None:
    """The lag is 0 only if no message was ready, and a lower bound never exceeds the truth."""
    History(phase, offset, **made).live(lived, plain=False)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule.name)
def test_a_schedule_of_the_benchmark_is_right_as_often_as_it_must_be(schedule: Schedule) -> None:
    """Each schedule reaches its share of correct lags without a false lower bound."""
    figures = measure(schedule)

    assert figures.looks + figures.bounds > 400
    assert figures.share >= schedule.bar
    assert figures.false_bounds == 0


def test_restart_of_the_exporter_changes_no_lag() -> None:
    """Each lag after restarts is that of an exporter that was not restarted, on another clock."""
    busy: list[Stretch] = [
        (20, 5, 2, "none"),
        (20, 5, 1, "die"),
        (20, 0, 3, "purge"),
        (40, 9, 1, "restart"),
    ]
    once = [stretch for some in busy for stretch in (some, (5, 5, 1, "none"))]
    often = [stretch for some in busy for stretch in (some, (5, 5, 1, "exporter-restart"))]
    lags = []
    for lived in (once, often):
        history = History(0, 7)
        history.live(lived, plain=False)
        lags.append(history.lags)

    assert lags[1] == [pytest.approx(lag) if isinstance(lag, float) else lag for lag in lags[0]]
    assert len(lags[0]) > 10


def test_histories_do_have_lags() -> None:
    """The histories produce lags, and a false lag fails the check."""
    history = History(0, 7)
    history.live([(60, 20, 5, "none"), (60, 5, 10, "none")], plain=True)

    assert history.checked > 15
    with pytest.raises(AssertionError, match="0 while"):
        history._check(backlog.Age(0.0, "interpolation"), plain=True)  # by hand
