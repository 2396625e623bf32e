"""What the parts of one collection share: the server's facts, the round trips, what was lost."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from time import monotonic
from typing import TypeVar
from zlib import crc32

from hiredis import ReplyError

from bts_collectors.redis.client.connection import Command, Reply
from bts_collectors.redis.client.errors import is_unsupported, refusal, unexpected
from bts_collectors.redis.client.slots import slot_of
from bts_exporter import Scrape, TargetError, Url, gauge

#: A part of a collection: yields the commands of its next round trip, is sent their replies.
RequestBatches = Generator[Sequence[Command], list[Reply], None]
#: Returns the replies to the first commands; the second will be asked for next.
Ask = Callable[[Sequence[Command], Sequence[Command]], list[Reply]]

#: Bytes of a name that become a label: whoever writes to the server chooses names.
LONGEST_NAME = 256

#: What comes of a reply in which there is a list where a number should be, or the like.
MISSHAPEN = (AttributeError, LookupError, TypeError, ValueError)

UP = gauge("redis_up", "Whether the server answered INFO.")

_T = TypeVar("_T")


@dataclass(slots=True)
class ScrapeContext:
    """One collection from one server."""

    url: Url
    scrape: Scrape
    #: The label `db`, such as db0.
    db: str = "db0"
    #: Of the server, such as (7, 0, 15); empty if it is not known.
    version: tuple[int, ...] = ()
    #: The server's clock in milliseconds since 1970; None if it is not known.
    now: int | None = None
    #: How often clients have set entries-added of streams, and any counter; None if it is not known.
    counters_set: tuple[int, int] | None = None
    #: Whether the server itself answered INFO, not only other nodes of its cluster.
    up: bool = False
    #: Whether keys are spread over the nodes of a cluster.
    clustered: bool = False
    #: What could not be read, while the rest was.
    losses: list[TargetError] = field(default_factory=list)
    #: Commands that the server does not have, as ACLs spell them: what they tell is missing, which
    #: is no failure.
    unsupported: set[str] = field(default_factory=set)

    def set_up(self, *, up: bool) -> None:
        """Emit whether the server answers: first that it does not, and 1 as soon as it does.

        So a scrape that does not wait for the end of this collection is told, too.
        """
        self.up = up
        if there := self.scrape.samples.get(UP):
            there[()] = int(up)
        else:
            self.scrape.emit(UP, int(up))

    def batches(
        self, items: Sequence[_T], size: int, name: Callable[[_T], bytes]
    ) -> list[Sequence[_T]]:
        """Return `items` in batches of at most `size` whose keys one command may name together.

        `name` gives the key of an item. In a cluster the keys of a command must share a slot.
        """
        groups: dict[int, list[_T]] = {}
        for item in items:
            groups.setdefault(slot_of(name(item)) if self.clustered else 0, []).append(item)
        return [
            group[start : start + size]
            for group in groups.values()
            for start in range(0, len(group), size)
        ]

    def refused(self, what: str, reply: ReplyError) -> None:
        """Note that the server refused `what`: a loss, unless it does not have that command."""
        if is_unsupported(reply):
            self.unsupported.add(what.lower().replace(" ", "|"))
        else:
            self.losses.append(refusal(self.url, what, reply))

    def misshapen(self, what: str, error: Exception) -> None:
        """Note that replies about `what` have another shape than Redis gives, so that `error` came of them."""
        self.unexpected(f"tells of {what} in another way than Redis ({type(error).__name__})")

    def unexpected(self, what: str) -> None:
        """Note that the server has something else than the settings say."""
        self.losses.append(unexpected(self.url, what))


class ServerClock:
    """The server's clock, which goes on while its contents are read."""

    def __init__(self, context: ScrapeContext, ticks: Callable[[], float] = monotonic) -> None:
        """Take the collection, and a clock in seconds that never goes back."""
        self.ticks = ticks
        self._context = context
        self._seen: float | None = None

    def now(self) -> int | None:
        """Return the server's clock in milliseconds since 1970; None if it is not known."""
        told = self._context.now
        if told is None:
            return None
        if self._seen is None:
            self._seen = self.ticks()
        return told + int((self.ticks() - self._seen) * 1000)


def run(parts: Iterable[RequestBatches], ask: Ask, others: Iterable[RequestBatches] = ()) -> None:
    """Run `parts` side by side and ask for their commands, in turns with those of `others`.

    While we are at the replies to the ones, the server is at the commands of the others.
    """
    turns: deque[tuple[RequestBatches, Sequence[Command]]] = deque()
    for lane in (together(parts), together(others)):
        with suppress(StopIteration):
            turns.append((lane, next(lane)))
    while turns:
        lane, commands = turns.popleft()
        replies = ask(commands, turns[0][1] if turns else ())
        with suppress(StopIteration):
            turns.append((lane, lane.send(replies)))


def isolated(context: ScrapeContext, part: RequestBatches, what: str) -> RequestBatches:
    """Run a part so that a reply in another shape than Redis gives ends it, and no other."""
    try:
        yield from part
    except MISSHAPEN as error:
        context.misshapen(what, error)


def together(parts: Iterable[RequestBatches]) -> RequestBatches:
    """Run `parts` side by side as one: the commands of all their nth rounds go out together."""
    answers: dict[RequestBatches, list[Reply] | None] = dict.fromkeys(parts)
    while answers:
        asked: dict[RequestBatches, Sequence[Command]] = {}
        for part, answer in answers.items():
            try:
                asked[part] = next(part) if answer is None else part.send(answer)
            except StopIteration:
                continue
        commands = [command for several in asked.values() for command in several]
        replies = iter((yield commands) if commands else [])
        answers = {part: list(islice(replies, len(several))) for part, several in asked.items()}


def text(raw: bytes) -> str:
    r"""Return what the server says as text: what is no UTF-8 shows as `\xff`."""
    return raw.decode("utf-8", "backslashreplace")


def label(raw: bytes) -> str:
    """Return a name as a label: a long one as its beginning and a checksum."""
    if len(raw) > LONGEST_NAME:
        raw = raw[:LONGEST_NAME] + b"~%08x" % crc32(raw)
    return text(raw)
