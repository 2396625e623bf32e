"""Simulates the autoscaler of Kubernetes with the triggers of deploy/scaling/keda.yaml, on a queue with a burst.

Prints how late messages are, and how often the number of replicas changes its direction.

    .venv/bin/python benchmarks/scaling.py
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

SCALED_OBJECT = Path(__file__).parents[1] / "deploy" / "scaling" / "keda.yaml"
#: The defaults of Kubernetes: how often the autoscaler decides, and which deviation it ignores.
SYNC_SECONDS = 15
TOLERANCE = 0.1
#: How often Prometheus scrapes, and over which time the exporter computes rates, in seconds.
SCRAPE_SECONDS = 15
RATE_SECONDS = 60
#: How long the query of arrivals averages, in seconds.
ARRIVALS_SECONDS = 120
#: The largest time to drain that the query returns.
_MAX_DRAIN = 3600.0


@dataclass(frozen=True)
class Trigger:
    """A trigger of KEDA: a metric, and the value of it that is wanted, in total or for each replica."""

    name: str
    threshold: float
    per_replica: bool
    activation: float


@dataclass(frozen=True)
class Policy:
    """How many percent of the replicas may be added or removed in a time."""

    percent: float
    seconds: int


@dataclass(frozen=True)
class Scaling:
    """A ScaledObject."""

    minimum: int
    maximum: int
    polling: int
    cooldown: int
    up: Policy
    up_window: int
    down: Policy
    down_window: int
    triggers: tuple[Trigger, ...]

    def only(self, *names: str) -> Scaling:
        """Return the same with fewer triggers."""
        return replace(self, triggers=tuple(it for it in self.triggers if it.name in names))


def read_scaling(path: Path = SCALED_OBJECT) -> Scaling:
    """Return the settings of a ScaledObject."""
    spec = yaml.safe_load(path.read_text())["spec"]
    behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    return Scaling(
        minimum=spec["minReplicaCount"],
        maximum=spec["maxReplicaCount"],
        polling=spec["pollingInterval"],
        cooldown=spec["cooldownPeriod"],
        up=_policy(behavior["scaleUp"]),
        up_window=behavior["scaleUp"]["stabilizationWindowSeconds"],
        down=_policy(behavior["scaleDown"]),
        down_window=behavior["scaleDown"]["stabilizationWindowSeconds"],
        triggers=tuple(
            Trigger(
                name=found["name"],
                threshold=float(found["metadata"]["threshold"]),
                per_replica=found["metricType"] == "AverageValue",
                activation=float(found["metadata"].get("activationThreshold", 0)),
            )
            for found in spec["triggers"]
        ),
    )


def _policy(rules: dict[str, Any]) -> Policy:
    (policy,) = rules["policies"]
    return Policy(policy["value"], policy["periodSeconds"])


class Queue:
    """A queue in order of arrival, and what the exporter measures of it, second by second."""

    def __init__(self) -> None:
        """Start empty."""
        self._arrived = [0.0]
        self._consumed = [0.0]
        self._oldest = 0

    def second(self, arriving: float, capacity: float) -> None:
        """Let a second pass."""
        self._arrived.append(self._arrived[-1] + arriving)
        waiting = self._arrived[-1] - self._consumed[-1]
        self._consumed.append(self._consumed[-1] + min(waiting, capacity))
        while self._oldest < len(self._arrived) and (
            self._arrived[self._oldest] <= self._consumed[-1] + 1e-6
        ):
            self._oldest += 1

    @property
    def backlog(self) -> float:
        """The messages that wait."""
        return self._arrived[-1] - self._consumed[-1]

    @property
    def lag(self) -> float:
        """The age of the oldest message, in seconds."""
        return len(self._arrived) - self._oldest

    @property
    def drain(self) -> float:
        """The time to consume the backlog at the rate of the last minute, in seconds."""
        if self.backlog < 1e-6:
            return 0
        rate = _rate(self._consumed, RATE_SECONDS)
        return self.backlog / rate if rate else math.inf

    @property
    def arrivals(self) -> float:
        """The messages that arrived each second."""
        return _rate(self._arrived, ARRIVALS_SECONDS)


def _rate(counter: Sequence[float], seconds: int) -> float:
    seconds = min(seconds, len(counter) - 1)
    return (counter[-1] - counter[-1 - seconds]) / seconds if seconds else 0


@dataclass
class Autoscaler:
    """The decisions of KEDA (between 0 and 1 replica) and of the autoscaler of Kubernetes (above)."""

    scaling: Scaling
    replicas: int
    _recommended: deque[tuple[int, int]] = field(default_factory=deque)
    _changes: list[tuple[int, int]] = field(default_factory=list)
    _active_at: int = 0

    def decide(self, now: int, ready: int, values: dict[str, float]) -> None:
        """Change the number of replicas at the second `now`, if it is time to."""
        scaling = self.scaling
        if any(values[it.name] > it.activation for it in scaling.triggers):
            self._active_at = now
        if self.replicas == 0:
            if now % scaling.polling == 0 and self._active_at == now:
                self._set(now, 1)
        elif scaling.minimum == 0 and now - self._active_at >= scaling.cooldown:
            self._set(now, 0)
        elif now % SYNC_SECONDS == 0:
            wanted = self._stabilized(now, self._wanted(ready, values))
            self._set(now, self._limited(now, wanted))

    def _wanted(self, ready: int, values: dict[str, float]) -> int:
        """Return the most replicas that a trigger asks for."""
        wanted = max(self._for_trigger(it, ready, values[it.name]) for it in self.scaling.triggers)
        return min(max(wanted, self.scaling.minimum, 1), self.scaling.maximum)

    def _for_trigger(self, trigger: Trigger, ready: int, value: float) -> int:
        replicas = self.replicas if trigger.per_replica else 1
        ratio = value / (trigger.threshold * replicas)
        if abs(ratio - 1) <= TOLERANCE:
            return self.replicas
        return math.ceil(ratio * (replicas if trigger.per_replica else ready) - 1e-9)

    def _stabilized(self, now: int, wanted: int) -> int:
        """Return the lowest recommendation of the window to add, the highest of the other to remove."""
        if not self._recommended:  # as if it had recommended what it finds
            self._recommended.append((now, self.replicas))
        self._recommended.append((now, wanted))
        while self._recommended[0][0] <= now - max(
            self.scaling.down_window, self.scaling.up_window, 1
        ):
            self._recommended.popleft()
        up = min(self._within(now, self.scaling.up_window), default=wanted)
        down = max(self._within(now, self.scaling.down_window), default=wanted)
        return min(max(self.replicas, min(up, wanted)), max(down, wanted))

    def _within(self, now: int, window: int) -> Iterable[int]:
        return (wanted for time, wanted in self._recommended if time > now - window)

    def _limited(self, now: int, wanted: int) -> int:
        """Return `wanted` within what the policies permit."""
        up, down = self.scaling.up, self.scaling.down
        before_up = self.replicas - self._sum(now - up.seconds, lambda change: change > 0)
        before_down = self.replicas - self._sum(now - down.seconds, lambda change: change < 0)
        highest = max(math.ceil(before_up * (1 + up.percent / 100)), self.replicas)
        lowest = min(int(before_down * (1 - down.percent / 100)), self.replicas)
        return min(max(wanted, lowest), highest)

    def _sum(self, since: int, counts: Callable[[int], bool]) -> int:
        return sum(change for time, change in self._changes if time > since and counts(change))

    def _set(self, now: int, replicas: int) -> None:
        if replicas != self.replicas:
            self._changes.append((now, replicas - self.replicas))
            self.replicas = replicas

    @property
    def reversals(self) -> int:
        """How often replicas were removed after an addition, or added after a removal."""
        signs = [change > 0 for _, change in self._changes]
        return sum(before != after for before, after in pairwise(signs))


@dataclass(frozen=True)
class Load:
    """Messages that arrive, and what a replica does."""

    #: Messages per second, except in the burst, and in it.
    usual: float = 24.0
    burst: float = 150.0
    burst_begins: int = 1800
    burst_seconds: int = 300
    seconds: int = 4 * 3600
    #: Messages that a replica consumes per second, and how long it takes to start, in seconds.
    per_replica: float = 10.0
    start_seconds: int = 20
    #: Deviation of the load from one second to the next.
    noise: float = 0.2

    def at(self, second: int, chance: random.Random) -> float:
        """Return the messages that arrive in a second."""
        in_burst = 0 <= second - self.burst_begins < self.burst_seconds
        return (self.burst if in_burst else self.usual) * chance.uniform(
            1 - self.noise, 1 + self.noise
        )


@dataclass(frozen=True)
class Outcome:
    """What happened."""

    lags: list[float]
    replicas: list[int]
    reversals: int
    load: Load

    @property
    def drained_after(self) -> float:
        """Seconds from the end of the burst until no message is older than 5 s; infinite if that never happens."""
        end = self.load.burst_begins + self.load.burst_seconds
        return next(
            (second - end for second in range(end, len(self.lags)) if self.lags[second] <= 5),
            math.inf,
        )


def simulate(
    scaling: Scaling, load: Load | None = None, *, replicas: int = 3, seed: int = 1
) -> Outcome:
    """Let the autoscaler work on a load, beginning with `replicas`."""
    load, chance, queue = load or Load(), random.Random(seed), Queue()
    scaler, starts = Autoscaler(scaling, replicas), [-math.inf] * replicas
    values: dict[str, float] = {}
    lags, counts = [], []
    for now in range(load.seconds):
        ready = sum(start <= now for start in starts)
        queue.second(load.at(now, chance), ready * load.per_replica)
        if now % SCRAPE_SECONDS == 0:
            drain = min(queue.drain, _MAX_DRAIN)
            values = {"lag": queue.lag, "drain": drain, "arrivals": queue.arrivals}
        scaler.decide(now, ready, values)
        # The newest pods end first.
        del starts[scaler.replicas :]
        starts += [now + load.start_seconds] * (scaler.replicas - len(starts))
        lags.append(queue.lag)
        counts.append(scaler.replicas)
    return Outcome(lags, counts, scaler.reversals, load)


def variants() -> dict[str, Scaling]:
    """Return the shipped ScaledObject, and others to compare it with."""
    shipped = read_scaling()
    eager = replace(shipped, down_window=0, down=Policy(100, 15), up=Policy(900, 15))
    fixed = replace(shipped, minimum=3, maximum=3)
    return {
        "as shipped": shipped,
        "without the trigger arrivals": shipped.only("drain", "lag"),
        "only lag": shipped.only("lag"),
        "only lag, no window, no policies": eager.only("lag"),
        "3 replicas, not scaled": fixed,
    }


def table() -> list[str]:
    """Return the outcome of each variant as lines of a table."""
    lines = [
        "| ScaledObject | oldest message, s | on time again after the burst, s | replicas, most | replica hours | changes of direction |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, scaling in variants().items():
        found = simulate(scaling)
        after = f"{found.drained_after:,.0f}" if found.drained_after < math.inf else "never"
        hours = sum(found.replicas) / 3600
        lines.append(
            f"| {name} | {max(found.lags):,.0f} | {after} | {max(found.replicas)} | {hours:.0f} | {found.reversals} |"
        )
    return lines


def chart() -> list[str]:
    """Return the replicas of the shipped ScaledObject, and the oldest message, every three minutes."""
    found = simulate(read_scaling())
    lines = ["minute  replicas              oldest message, s"]
    for second in range(1740, 3360, 180):
        bar = "#" * found.replicas[second]
        lines.append(f"{second // 60:6}  {bar:<20}  {found.lags[second]:.0f}")
    return lines


def main() -> None:
    """Print both."""
    print("\n".join([*table(), "", *chart()]))


if __name__ == "__main__":
    main()
