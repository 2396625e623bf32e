"""The lag in seconds of RabbitMQ's queues, held against the age of every message, on simulated brokers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from bts_collectors.rabbitmq.lag import Lags
from lag_simulator import EPOCH, INTERVAL, SimulatedQueue

#: Tenths of a second between two scrapes, and in all.
SCRAPES = 50
LENGTH = 7500
PHASES = (0, 25, 49)
TOLERANCE = 10.0

#: Lets happen to a queue what happens in this tenth of a second.
Step = Callable[[SimulatedQueue, int], None]


class Schedule(NamedTuple):
    """How a queue is used, and how often the lag must be right."""

    name: str
    make: Callable[[], tuple[SimulatedQueue, Step]]
    bar: float


@dataclass
class Figures:
    """How often the lag was right, and how it was wrong."""

    looks: int = 0
    right: int = 0
    absent: int = 0
    bounds: int = 0
    #: Lower bounds above what was true at any time of the broker's statistics.
    false_bounds: int = 0
    errors: list[float] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Return which part of the lags that are no lower bounds was right."""
        return self.right / self.looks if self.looks else 1.0

    def add(self, queue: SimulatedQueue, lag: float, method: str) -> None:
        """Count what was exported."""
        true = queue.true_age
        if method == "lower_bound":
            self.bounds += 1
            self.false_bounds += lag > queue.truths()[1] + 1
            return
        self.looks += 1
        error = abs(lag - true) / max(TOLERANCE, 0.1 * true)
        self.right += error <= 1
        self.errors.append(error)


def look(queue: SimulatedQueue, step: Step, every: int = SCRAPES, length: int = LENGTH) -> Figures:
    """Let a queue be used for `length` tenths and scrape it `every` so many."""
    now = 0
    lags = Lags(lambda: now / 10)
    figures = Figures()
    for now in range(length):
        step(queue, now)
        queue.tick()
        # A scrape has no more to do with the broker's clock than it must.
        shown = queue.shown() if now % every == 7 else None
        if shown is not None:
            age = lags.observe([shown], EPOCH + now / 10)["/", "q"].age
            if age is None:
                figures.absent += 1
            else:
                figures.add(queue, *age)
    return figures


def rates(publish: Callable[[int], float], consume: Callable[[int], float]) -> Step:
    """Return a step that publishes and consumes so many messages in each tenth of a second."""
    due = [0.0, 0.0]

    def step(queue: SimulatedQueue, now: int) -> None:
        due[0] += publish(now)
        due[1] += consume(now)
        queue.publish(int(due[0]))
        queue.consume(int(due[1]))
        due[0] -= int(due[0])
        due[1] -= int(due[1])

    return step


PUBLISH: dict[str, Callable[[int], float]] = {
    "steady": lambda _: 4,
    "bursty": lambda now: 40 if now % 100 < 10 else 0,
    "pausing": lambda now: 8 if now % 200 < 120 else 0,
}
CONSUME: dict[str, Callable[[int], float]] = {
    "slower": lambda _: 3,
    "faster": lambda _: 6,
    "late": lambda now: 6 if now > 1800 else 0,
    "none": lambda _: 0,
    "in-turns": lambda now: 9 if now % 1200 < 600 else 0,
}


def simple(
    publish: Callable[[int], float], consume: Callable[[int], float], **settings: object
) -> Callable[[], tuple[SimulatedQueue, Step]]:
    """Return a maker of a queue that is used at such rates."""
    return lambda: (SimulatedQueue(**settings), rates(publish, consume))  # type: ignore[arg-type]


def retry_loop(fails: float) -> tuple[SimulatedQueue, Step, SimulatedQueue]:
    """Return a queue whose rejected messages come back after half a minute, and the one they wait in."""
    queue, retry = SimulatedQueue(), SimulatedQueue(ttl=300, consumers=0)
    queue.dead_letters = lambda count: retry.publish(count, counted=False)
    retry.dead_letters = lambda count: queue.publish(count, counted=False)
    random = Random(7)

    def step(queue: SimulatedQueue, now: int) -> None:
        retry.phase = queue.phase
        queue.publish(2)
        taken = queue.take(3 if now % 1500 < 1300 else 0)
        rejected = sum(random.random() < fails for _ in range(taken))
        queue.reject(rejected)
        queue.acknowledge()
        retry.tick()

    return queue, step, retry


def _retry(fails: float) -> tuple[SimulatedQueue, Step]:
    queue, step, _ = retry_loop(fails)
    return queue, step


def _retry_queue(fails: float) -> tuple[SimulatedQueue, Step]:
    queue, step, retry = retry_loop(fails)

    def other(shown: SimulatedQueue, now: int) -> None:
        queue.phase = shown.phase
        step(queue, now)

    # The queue that is looked at is ticked by who looks.
    retry_tick = retry.tick
    retry.tick = lambda: None  # type: ignore[method-assign]
    shown = retry

    class Shown(SimulatedQueue):
        pass

    def both(_: SimulatedQueue, now: int) -> None:
        other(shown, now)
        queue.tick()

    shown.tick = retry_tick  # type: ignore[method-assign]
    return shown, both


def _dead_letter_target(drained: bool) -> tuple[SimulatedQueue, Step]:
    def step(queue: SimulatedQueue, now: int) -> None:
        if now % 100 < 10:
            queue.publish(5, counted=False)
        if drained and now % 1000 > 800:
            queue.consume(4)

    return SimulatedQueue(consumers=int(drained)), step


def _mixed() -> tuple[SimulatedQueue, Step]:
    """Published to, and dead letters of others come in, too."""

    def step(queue: SimulatedQueue, now: int) -> None:
        queue.publish(2)
        if now % 10 == 0:
            queue.publish(10, counted=False)
        queue.consume(4 if now % 900 > 300 else 0)

    return SimulatedQueue(), step


PLAIN, LOSING = 0.98, 0.9
SCHEDULES = (
    *(
        Schedule(f"{how}, {whom} consumers", simple(publish, consume), PLAIN)
        for how, publish in PUBLISH.items()
        for whom, consume in CONSUME.items()
    ),
    *(
        Schedule(
            f"{how}, reject-publish, {whom}",
            simple(PUBLISH[how], consume, max_length=most, overflow="reject-publish"),
            LOSING,
        )
        for how in PUBLISH
        for whom, consume, most in (
            ("slow consumers", lambda _: 0.5, 1000),
            ("consumers in turns", CONSUME["in-turns"], 2000),
            ("no consumers", CONSUME["none"], 500),
        )
    ),
    *(
        Schedule(
            f"{how}, drop-head, {whom}", simple(PUBLISH[how], consume, max_length=1000), LOSING
        )
        for how in PUBLISH
        for whom, consume in (
            ("slow consumers", lambda _: 1),
            ("consumers in turns", CONSUME["in-turns"]),
            ("no consumers", CONSUME["none"]),
        )
    ),
    *(
        Schedule(f"{how}, TTL of a minute, {whom}", simple(PUBLISH[how], consume, ttl=600), LOSING)
        for how in PUBLISH
        for whom, consume in (
            ("slow consumers", lambda _: 1),
            ("consumers in turns", CONSUME["in-turns"]),
            ("no consumers", CONSUME["none"]),
        )
    ),
    Schedule("dead letters, nobody consumes", lambda: _dead_letter_target(drained=False), LOSING),
    Schedule("dead letters, consumed at times", lambda: _dead_letter_target(drained=True), LOSING),
    Schedule("dead letters beside publications", _mixed, LOSING),
    Schedule("retry loop, one in ten fails", lambda: _retry(0.1), LOSING),
    Schedule("retry loop, half fails", lambda: _retry(0.5), LOSING),
    Schedule("the waiting queue of a retry loop", lambda: _retry_queue(0.3), LOSING),
)


def measure() -> Iterator[tuple[Schedule, Figures]]:
    """Yield what was found for each schedule, over all moments at which depths are taken."""
    for schedule in SCHEDULES:
        total = Figures()
        for phase in PHASES:
            queue, step = schedule.make()
            queue.phase = phase
            found = look(queue, step)
            total.looks += found.looks
            total.right += found.right
            total.absent += found.absent
            total.bounds += found.bounds
            total.false_bounds += found.false_bounds
            total.errors += found.errors
        yield schedule, total


if __name__ == "__main__":
    assert INTERVAL
    for schedule, found in measure():
        mark = " " if found.share >= schedule.bar and not found.false_bounds else "<<<"
        print(
            f"{schedule.name:50} {found.share:6.3f} of {found.looks:5} bounds {found.bounds:4}"
            f" false {found.false_bounds:3} absent {found.absent:4} worst {max(found.errors, default=0):6.2f} {mark}"
        )
