"""Looks at lists: by a script that returns only digests, by plain commands where scripts are not allowed."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

from hiredis import ReplyError

from bts_collectors.redis.client.command_support import CommandSupport
from bts_collectors.redis.client.connection import Command, Reply
from bts_collectors.redis.client.context import ScrapeContext
from bts_collectors.redis.client.errors import is_denied, is_passing
from bts_collectors.redis.client.scripts import EVALUATE, load_script, runs_scripts
from bts_collectors.redis.lists.look import DIGEST, UNREAD, Look, Request, digest, split

#: Ends that one script looks at, and elements that it reads: about 1 ms of the server's time.
_BATCH = 20
_MOST_READ = 2048
#: Scripts of one round trip, between which the server has no time for other clients.
_SCRIPTS = 4
#: Bytes of elements that plain commands transfer for one look, and elements.
_PLAIN_BYTES = 16_384
_PLAIN_ELEMENTS = 16

_SCRIPT = load_script(__file__, "look")

#: Yields the commands of its next round trip, and returns a look for each request; None for a list that could
#: not be read.
Looking = Generator[Sequence[Command], list[Reply], list[Look | None]]


class ListReader:
    """Looks at lists of one server."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Take a monotonic clock in seconds."""
        self.support = CommandSupport(clock)

    def read(self, context: ScrapeContext, requests: Sequence[Request]) -> Looking:
        """Look at the lists."""
        looks: dict[Request, Look | None] = {}
        if runs_scripts(context.version) and self.support.expects(EVALUATE.lower()):
            yield from self._by_script(context, requests, looks)
        unread = [request for request in requests if request not in looks]
        if unread and self.support.expects("memory|usage") and self.support.expects("lrange"):
            yield from self._plainly(context, unread, looks)
        return [looks.get(request) for request in requests]

    def _by_script(
        self,
        context: ScrapeContext,
        requests: Sequence[Request],
        looks: dict[Request, Look | None],
    ) -> Generator[Sequence[Command], list[Reply], None]:
        batches = [
            part
            for batch in context.batches(requests, _BATCH, lambda request: request.key)
            for part in _split(batch)
        ]
        for start in range(0, len(batches), _SCRIPTS):
            if not self.support.expects(EVALUATE.lower()):
                return
            some = batches[start : start + _SCRIPTS]
            replies = yield [_script_command(batch) for batch in some]
            for batch, reply in zip(some, replies, strict=True):
                if isinstance(reply, ReplyError):
                    if is_passing(reply):
                        looks.update(dict.fromkeys(batch))
                        context.refused(EVALUATE, reply)
                    else:  # whatever the reason is: plain commands return the same
                        self.support.refused(EVALUATE.lower(), reply)
                elif type(reply) is list and len(reply) == len(batch):
                    self.support.answered(EVALUATE.lower())
                    looks.update(zip(batch, map(parse_look, batch, reply), strict=True))
                else:
                    self.support.refused(EVALUATE.lower(), ReplyError("odd reply"))

    def _plainly(
        self,
        context: ScrapeContext,
        requests: Sequence[Request],
        looks: dict[Request, Look | None],
    ) -> Generator[Sequence[Command], list[Reply], None]:
        keys = list(dict.fromkeys(request.key for request in requests))
        commands: list[Command] = []
        for key in keys:
            commands += ("LLEN", key), ("MEMORY", "USAGE", key, "SAMPLES", 5)
        replies = iter((yield commands))
        sizes: dict[bytes, int] = {}
        for key, length, used in zip(keys, replies, replies, strict=True):
            if isinstance(used, ReplyError):
                self._refused(context, "memory|usage", used)
            elif type(length) is int and type(used) is int and length > 0:
                sizes[key] = used // length + 1
        few = [
            request._replace(
                window=min(_PLAIN_ELEMENTS, _PLAIN_BYTES // sizes[request.key]), ranks=()
            )
            for request in requests
            if request.key in sizes
        ]
        few = [request for request in few if request.window]
        replies = iter((yield [command for request in few for command in _plain_commands(request)]))
        originals = {(request.key, request.end): request for request in requests}
        for request, length, window, last in zip(few, replies, replies, replies, strict=True):
            for reply in (length, window, last):
                if isinstance(reply, ReplyError):
                    self._refused(context, "lrange", reply)
            looks[originals[request.key, request.end]] = _plain_look(request, length, window, last)

    def _refused(self, context: ScrapeContext, command: str, reply: ReplyError) -> None:
        if is_denied(reply):
            self.support.refused(command, reply)
        elif not str(reply).startswith("WRONGTYPE"):  # its type has changed since
            context.refused(command.replace("|", " ").upper(), reply)


def parse_look(request: Request, reply: Reply) -> Look | None:
    """Return the look in the script's reply for one list; None if the list could not be read."""
    match reply:
        case [int(length), bytes(window), bytes(marks), int(redelivered)] if len(
            marks
        ) == DIGEST * (len(request.ranks) + 1):
            ranks = (*request.ranks, length - 1)
            return Look(
                length,
                split(window),
                {
                    rank: mark
                    for rank, mark in zip(ranks, split(marks), strict=True)
                    if mark != UNREAD
                },
                redelivered,
            )
    return None


def _script_command(batch: Sequence[Request]) -> Command:
    """Return the command that looks at the lists of `batch`; see look.lua."""
    arguments: list[str | int] = []
    for request in batch:
        end = "L" if request.end == "left" else "R"
        arguments += end, request.window, request.searched, len(request.ranks), *request.ranks
    keys = (request.key for request in batch)
    return (EVALUATE, _SCRIPT, len(batch), *keys, *arguments)


def _split(batch: Sequence[Request]) -> list[Sequence[Request]]:
    """Return `batch` in parts of at most _MOST_READ elements."""
    size = max(_MOST_READ // max(request.window for request in batch), 1)
    return [batch[start : start + size] for start in range(0, len(batch), size)]


def _plain_commands(request: Request) -> tuple[Command, ...]:
    """Return the commands whose replies `_plain_look` takes."""
    key, count = request.key, request.window
    first: tuple[int, int] = (0, count - 1) if request.end == "left" else (-count, -1)
    last = -1 if request.end == "left" else 0
    return ("LLEN", key), ("LRANGE", key, *first), ("LRANGE", key, last, last)


def _plain_look(request: Request, length: Reply, window: Reply, last: Reply) -> Look | None:
    if type(length) is not int or not _are_elements(window) or not _are_elements(last):
        return None
    digests = list(map(digest, window if request.end == "left" else reversed(window)))
    marks = {length - 1: digest(last[0])} if last else {}
    return Look(length, digests[:length], marks)


def _are_elements(reply: Reply) -> bool:
    return type(reply) is list and all(type(element) is bytes for element in reply)
