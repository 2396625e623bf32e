"""Random histories of a list with producers, consumers and accidents, whose true ages are known.

Time is simulated. A history can run on a real server, or on its own model of the list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

import redis

from bts_collectors.redis.lists.look import End, Look, Request, digest

#: Seconds between two looks, and parts of that time in which messages come and go.
INTERVAL = 15.0
PARTS = 20
KEY = b"jobs"

#: Messages that come in and leave in a second, and an accident.
Step = tuple[float, float, str]


class Message(NamedTuple):
    """A message, and when it came in."""

    payload: bytes
    since: float


def steady(random: Random) -> Iterator[Step]:
    """Consumers keep up."""
    rate = random.choice([0.05, 0.5, 5])
    while True:
        yield rate, 1.3 * rate, ""


def stopped(random: Random) -> Iterator[Step]:
    """Consumers stop, and start again."""
    rate, number = random.choice([0.05, 0.5, 5, 30]), 0
    while True:
        yield rate, 0 if number % 30 in range(8, 20) else 2 * rate, ""
        number += 1


def slow(random: Random) -> Iterator[Step]:
    """Consumers are slower than producers."""
    rate = random.choice([0.1, 0.5, 5, 30])
    while True:
        yield rate, 0.7 * rate, ""


def bursts(random: Random) -> Iterator[Step]:
    """Send many messages at once, and then none."""
    rate = random.choice([0.1, 1, 10])
    while True:
        burst = "burst" if random.random() < 0.1 else ""
        yield random.choice([0, 0, rate]), random.choice([0, rate, 2 * rate]), burst


def accidents(random: Random) -> Iterator[Step]:
    """Messages are purged, trimmed and deleted by hand."""
    rate = random.choice([0.1, 1, 10])
    kinds = ("purge", "trim", "burst", "delete")
    while True:
        accident = random.choice(kinds) if random.random() < 0.25 else ""
        yield rate * random.choice([0, 1, 2]), rate * random.choice([0, 1, 2]), accident


def requeues(random: Random) -> Iterator[Step]:
    """Consumers put messages back where they took them."""
    rate = random.choice([0.1, 1, 10])
    while True:
        accident = "requeue" if random.random() < 0.2 else ""
        yield rate * random.choice([0, 1, 2]), rate * random.choice([0, 1, 2]), accident


SCHEDULES: dict[str, Callable[[Random], Iterator[Step]]] = {
    each.__name__: each for each in (steady, stopped, slow, bursts, accidents, requeues)
}
#: The payload of the nth message.
PAYLOADS: dict[str, Callable[[Random, int], bytes]] = {
    "unique": lambda _, number: b"job-%d" % number,
    "half the same": lambda random, number: (
        b"tick" if random.random() < 0.5 else b"job-%d" % number
    ),
    "all the same": lambda _, __: b"tick",
    "one of twenty": lambda random, _: b"job-%d" % random.randrange(20),
    "in turn": lambda _, number: b"job-%d" % (number % 10),
}


@dataclass
class ListHistory:
    """A list that lives through one history; `end` is where its consumers are."""

    random: Random
    end: End
    payload: Callable[[Random, int], bytes]
    schedule: Iterator[Step]
    #: The server that has the list, too.
    client: redis.Redis | None = None
    now: float = 0.0
    #: The waiting messages, the oldest first.
    messages: list[Message] = field(default_factory=list)
    #: Whether a message was removed since the previous look.
    removed: bool = False
    #: How many its consumers took since then.
    popped: int = 0
    _taken: list[Message] = field(default_factory=list)
    _number: int = 0

    def live(self) -> None:
        """Let one interval pass."""
        self.removed = False
        self.popped = 0
        produced, consumed, accident = next(self.schedule)
        for _ in range(PARTS):
            part = INTERVAL / PARTS
            self.now += part
            self._push(self._count(produced * part))
            self._pop(self._count(consumed * part))
        if accident:
            getattr(self, f"_{accident}")()

    @property
    def age(self) -> float:
        """Return the age of the oldest waiting message, 0 if none waits."""
        return max((self.now - message.since for message in self.messages), default=0.0)

    def look(self, request: Request) -> Look:
        """Return what the script sees of the list."""
        payloads = [message.payload for message in self.messages]
        if request.end != self.end:
            payloads.reverse()
        ranks = (*request.ranks, len(payloads) - 1)
        marks = {rank: digest(payloads[rank]) for rank in ranks if 0 <= rank < len(payloads)}
        return Look(len(payloads), list(map(digest, payloads[: request.window])), marks)

    def _count(self, expected: float) -> int:
        """Return a random number with this mean."""
        whole, part = divmod(expected * self.random.choice([0, 1, 1, 2]), 1)
        return int(whole) + (self.random.random() < part)

    def _push(self, count: int) -> None:
        new = [
            Message(self.payload(self.random, self._number + number), self.now)
            for number in range(count)
        ]
        self._number += count
        self.messages += new
        if self.client and new:
            push = self.client.rpush if self.end == "left" else self.client.lpush
            push(KEY, *(message.payload for message in new))

    def _pop(self, count: int) -> None:
        taken, self.messages = self.messages[:count], self.messages[count:]
        self._taken = (self._taken + taken)[-20:]
        self.popped += len(taken)
        if taken:
            self.removed = True
            if self.client:
                pop = self.client.lpop if self.end == "left" else self.client.rpop
                pop(KEY, len(taken))

    def _burst(self) -> None:
        self._push(self.random.choice([5, 50, 500, 2000]))

    def _purge(self) -> None:
        self.messages.clear()
        self.removed = True
        if self.client:
            self.client.delete(KEY)

    def _trim(self) -> None:
        """Remove the newer half, or the older one."""
        if len(self.messages) > 1:
            half = len(self.messages) // 2
            keeps_old = self.random.random() < 0.5
            self.messages = self.messages[:half] if keeps_old else self.messages[half:]
            self.removed = True
            if self.client:
                first = (0, len(self.messages) - 1)
                last = (-len(self.messages), -1)
                self.client.ltrim(KEY, *(first if keeps_old == (self.end == "left") else last))

    def _delete(self) -> None:
        """Remove one message from somewhere."""
        if self.messages:
            number = self.random.randrange(len(self.messages))
            self.removed = True
            if self.client:
                at = number if self.end == "left" else -1 - number
                self.client.lset(KEY, at, b"deleted")
                self.client.lrem(KEY, 1, b"deleted")
            del self.messages[number]

    def _requeue(self) -> None:
        if self._taken:
            message = self._taken.pop(self.random.randrange(len(self._taken)))
            self.messages.insert(0, message)
            if self.client:
                push = self.client.lpush if self.end == "left" else self.client.rpush
                push(KEY, message.payload)


@dataclass
class Score:
    """How often the reported ages of a kind of histories were right."""

    looks: int = 0
    close: int = 0
    unknown: int = 0
    #: Ages that are certain (0 of an empty list, lower bounds), and wrong.
    wrong: list[tuple[str, float, float]] = field(default_factory=list)

    @property
    def share(self) -> str:
        """Return how many of the ages were close, and how many unknown, as text."""
        close, unknown = self.close / self.looks, self.unknown / self.looks
        return f"close {close:.1%}, unknown {unknown:.1%} of {self.looks}"

    def add(self, reported: tuple[str, float] | None, true: float) -> None:
        """Compare a reported age, with its method, with the true one."""
        self.looks += 1
        if reported is None:
            self.unknown += 1
            return
        method, seconds = reported
        self.close += abs(seconds - true) <= max(INTERVAL, true / 10) + 1e-6
        is_certain = method != "interpolation"
        if is_certain and (seconds > true + 1e-6 or (method != "lower_bound" and seconds < true)):
            self.wrong.append((method, seconds, true))
