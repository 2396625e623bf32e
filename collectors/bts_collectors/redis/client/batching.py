"""Round trips: the requests of several readers are sent together."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from itertools import islice

from bts_collectors.redis.client.connection import Command, Reply

#: A reader: yields the commands of its next round trip and is sent their replies.
RequestBatches = Generator[Sequence[Command], list[Reply], None]
#: Sends the first commands and returns their replies; the second ones are sent next.
Execute = Callable[[Sequence[Command], Sequence[Command]], list[Reply]]


def run(
    readers: Iterable[RequestBatches], execute: Execute, others: Iterable[RequestBatches] = ()
) -> None:
    """Run `readers` together, with round trips that alternate with those of `others`.

    The server executes the commands of one side while we process the replies of the other.
    """
    turns: deque[tuple[RequestBatches, Sequence[Command]]] = deque()
    for side in (together(readers), together(others)):
        with suppress(StopIteration):
            turns.append((side, next(side)))
    while turns:
        side, commands = turns.popleft()
        replies = execute(commands, turns[0][1] if turns else ())
        with suppress(StopIteration):
            turns.append((side, side.send(replies)))


def together(readers: Iterable[RequestBatches]) -> RequestBatches:
    """Run `readers` as one reader: their nth batches are sent in one round trip."""
    replies_of: dict[RequestBatches, list[Reply] | None] = dict.fromkeys(readers)
    while replies_of:
        batches: dict[RequestBatches, Sequence[Command]] = {}
        for reader, replies in replies_of.items():
            try:
                batches[reader] = next(reader) if replies is None else reader.send(replies)
            except StopIteration:
                continue
        commands = [command for batch in batches.values() for command in batch]
        rest = iter((yield commands) if commands else [])
        replies_of = {reader: list(islice(rest, len(batch))) for reader, batch in batches.items()}
