"""Compares the lag in seconds of RabbitMQ's queues with the true age of messages, on simulated queues."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

from bts_collectors.rabbitmq.metrics.lag import Lags
from lag_simulator import EPOCH, SimulatedQueue

if TYPE_CHECKING:
    from measuring import Bench
    from report import Section

#: Scrape interval and total time, in tenths of a second.
SCRAPES = 50
LENGTH = 9000
#: Delays of the scrape after the counts, and phases of the depths, in tenths of a second.
OFFSET = 7
PHASES = (0, 25, 49)
#: Tolerance in seconds, or as a share of the true lag.
TOLERANCE, PART = 10.0, 0.1
#: Required share of correct lags: for queues that only deliver, and for queues that lose messages.
PLAIN, LOSING = 0.98, 0.9

Rate = Callable[[int], float]
#: Applies the events of one tenth of a second to a queue.
Step = Callable[[SimulatedQueue, int], None]


class Case(NamedTuple):
    """A queue, its events, and other events in the same tenth of a second."""

    queue: SimulatedQueue
    step: Step


class Schedule(NamedTuple):
    """The use of a queue, and the required share of correct lags."""

    name: str
    make: Callable[[], Case]
    bar: float


@dataclass
class Figures:
    """How many lags were correct, and their errors."""

    #: Lags that are not lower bounds, and how many of them were correct.
    looks: int = 0
    right: int = 0
    absent: int = 0
    bounds: int = 0
    #: Lower bounds above the true lag during all of the time that the statistics cover.
    false_bounds: int = 0
    #: Each error as a multiple of the tolerance.
    errors: list[float] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Return the share of correct lags, without lower bounds."""
        return self.right / self.looks if self.looks else 1.0

    def add(self, queue: SimulatedQueue, lag: float, method: str) -> None:
        """Count one exported lag."""
        if method == "lower_bound":
            self.bounds += 1
            self.false_bounds += lag > queue.truths()[1] + 1
            return
        true = queue.true_age
        error = abs(lag - true) / max(TOLERANCE, PART * true)
        self.looks += 1
        self.right += error <= 1
        self.errors.append(error)


def look(case: Case, figures: Figures) -> None:
    """Simulate a schedule with scrapes."""
    now = 0
    lags = Lags(lambda: now / 10)
    for now in range(LENGTH):
        case.step(case.queue, now)
        case.queue.tick()
        shown = case.queue.shown() if now % SCRAPES == OFFSET else None
        if shown is not None:
            age = lags.observe([shown], EPOCH + now / 10)["/", "q"].age
            if age is None:
                figures.absent += 1
            else:
                figures.add(case.queue, *age)


PUBLISH: dict[str, Rate] = {
    "steady": lambda _: 4,
    "bursts": lambda now: 40 if now % 100 < 10 else 0,
    "pauses": lambda now: 8 if now % 200 < 120 else 0,
}
CONSUME: dict[str, Rate] = {
    "slow": lambda _: 3,
    "fast": lambda _: 6,
    "late": lambda now: 6 if now > 1800 else 0,
    "none": lambda _: 0,
    "in turns": lambda now: 9 if now % 1200 < 600 else 0,
}


def rates(publish: Rate, consume: Rate, **settings: Any) -> Case:
    """Return a queue with these numbers of published and consumed messages in each tenth of a second."""
    due = [0.0, 0.0]

    def step(queue: SimulatedQueue, now: int) -> None:
        due[0] += publish(now)
        due[1] += consume(now)
        queue.publish(int(due[0]))
        queue.consume(int(due[1]))
        due[:] = [part - int(part) for part in due]

    return Case(SimulatedQueue(**settings), step)


def plain() -> Iterator[Schedule]:
    """Yield schedules of queues that deliver every message."""
    for how, publish in PUBLISH.items():
        for which, consume in CONSUME.items():
            yield Schedule(
                f"{how}, consumers {which}",
                lambda publish=publish, consume=consume: rates(publish, consume),
                PLAIN,
            )


def losing() -> Iterator[Schedule]:
    """Yield schedules of queues that reject, drop or expire messages."""
    consumers = {"slow": lambda _: 0.7, "none": CONSUME["none"], "in turns": CONSUME["in turns"]}
    settings: dict[str, dict[str, Any]] = {
        "reject-publish": {"max_length": 1000, "overflow": "reject-publish"},
        "drop-head": {"max_length": 1000},
        "TTL of a minute": {"ttl": 600},
    }
    for what, made in settings.items():
        for how, publish in PUBLISH.items():
            for which, consume in consumers.items():
                yield Schedule(
                    f"{what}: {how}, consumers {which}",
                    lambda publish=publish, consume=consume, made=made: rates(
                        publish, consume, **made
                    ),
                    LOSING,
                )


def dead_letters(*, consumed: bool) -> Case:
    """Return a queue that receives only dead letters, which are not counted."""

    def step(queue: SimulatedQueue, now: int) -> None:
        if now % 100 < 10:
            queue.publish(5, counted=False)
        if consumed and now % 1000 > 800:
            queue.consume(4)

    return Case(SimulatedQueue(consumers=int(consumed)), step)


def dead_letters_too() -> Case:
    """Return a queue that receives dead letters and published messages."""

    def step(queue: SimulatedQueue, now: int) -> None:
        queue.publish(2)
        if now % 10 == 0:
            queue.publish(10, counted=False)
        queue.consume(4 if now % 900 > 300 else 0)

    return Case(SimulatedQueue(), step)


def retry_loop(fails: float, *, waiting: bool = False) -> Case:
    """Return a queue whose rejected messages return after half a minute, or the queue that they wait in."""
    work, retry = SimulatedQueue(), SimulatedQueue(ttl=300, consumers=0)
    work.dead_letters = lambda count: retry.publish(count, counted=False)
    retry.dead_letters = lambda count: work.publish(count, counted=False)
    shown, other = (retry, work) if waiting else (work, retry)
    random = Random(7)

    def step(_: SimulatedQueue, now: int) -> None:
        other.phase = shown.phase
        work.publish(2)
        taken = work.take(3 if now % 1500 < 1300 else 0)
        work.reject(sum(random.random() < fails for _ in range(taken)))
        work.acknowledge()
        other.tick()  # the caller ticks the measured queue

    return Case(shown, step)


SCHEDULES = (
    *plain(),
    *losing(),
    Schedule("dead letters, no consumers", lambda: dead_letters(consumed=False), LOSING),
    Schedule("dead letters, consumers in turns", lambda: dead_letters(consumed=True), LOSING),
    Schedule("dead letters and publications", dead_letters_too, LOSING),
    Schedule("retry loop, a tenth fails", lambda: retry_loop(0.1), LOSING),
    Schedule("retry loop, half fails", lambda: retry_loop(0.5), LOSING),
    Schedule("where a retry loop waits", lambda: retry_loop(0.3, waiting=True), LOSING),
)


def measure(schedule: Schedule) -> Figures:
    """Return the figures of a schedule, over several phases of the depths."""
    figures = Figures()
    for phase in PHASES:
        case = schedule.make()
        case.queue.phase = phase
        look(case, figures)
    return figures


def run(_: Bench) -> Section:
    """Run all schedules."""
    from report import Bar, Row, Section, Table  # noqa: PLC0415  # only for benchmarks

    found = [(schedule, measure(schedule)) for schedule in SCHEDULES]
    rows = [
        Row(
            schedule.name,
            [100 * one.share, max(one.errors, default=0.0), one.looks, one.bounds, one.absent],
        )
        for schedule, one in found
    ]
    bars = [
        Bar(
            f"{kind}: at least {100 * bar:.0f} % right in each",
            all(one.share >= bar for schedule, one in found if schedule.bar == bar),
        )
        for kind, bar in (("plain queues", PLAIN), ("queues that lose messages", LOSING))
    ]
    bars.append(
        Bar(
            "no lower bound above the truth",
            not any(one.false_bounds for _, one in found),
        )
    )
    columns = ("right, %", "worst error / allowed", "lags", "lower bounds", "absent")
    return Section("RabbitMQ's lag in seconds", HOW, [Table(columns, "", rows)], bars=bars)


HOW = f"""\
Simulated queues, and what the broker's statistics show of them: counts every five seconds, and depths from up to five
seconds before, so that a scrape sees depths up to ten seconds old. Each queue is used for {LENGTH / 600:.0f} minutes and scraped every
{SCRAPES / 10:.0f} s, {len(PHASES)} times with depths taken at other moments. A lag is right if it is within {TOLERANCE:.0f} s, or a tenth, of the age of
the oldest message at that moment. A lower bound is false if it exceeds that age at every moment that the statistics
show."""
