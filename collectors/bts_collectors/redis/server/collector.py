"""What one server tells of itself: INFO and all that is asked beside it, in one round trip once it is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from hiredis import ReplyError

from bts_collectors.redis.client.batching import RequestBatches
from bts_collectors.redis.client.command_support import SUPPORTED, CommandSupport
from bts_collectors.redis.client.connection import Command, Reply
from bts_collectors.redis.client.context import UP, ScrapeContext
from bts_collectors.redis.client.errors import is_passing, refusal, unexpected
from bts_collectors.redis.client.labels import text
from bts_collectors.redis.server import clients, config_params, info, latency, sentinels, slowlog
from bts_collectors.redis.server.info import Facts, Info
from bts_exporter import Scrape

#: What to ask for, the next one where the one before tells nothing: `everything` came with Redis 6.2.
_INFOS: tuple[Command, ...] = (("INFO", "everything"), ("INFO", "all"), ("INFO",))
#: Bytes; INFO of 10,000 databases has a tenth of it.
_LONGEST_INFO = 4 * 1024 * 1024
_WITH_HISTOGRAMS = (7,)
#: Of a count of seconds since 1970.
_MOST_DIGITS = 12
#: What emits the reply to a question that stands for itself.
_EMITS: Mapping[str, Callable[[Scrape, Reply], None]] = MappingProxyType(
    {
        "client|list": clients.emit,
        "latency|latest": latency.emit_spikes,
        "slowlog|get": slowlog.emit_latest,
        "slowlog|len": slowlog.emit_length,
    }
)

METRICS = (
    UP,
    SUPPORTED,
    info.METRICS,
    config_params.METRICS,
    slowlog.METRICS,
    latency.METRICS,
    clients.METRICS,
    sentinels.METRICS,
)


class Server:
    """Reads one server; remembers what it is and what it refuses."""

    def __init__(self, *, clients: bool, latency_histograms: bool) -> None:
        """Say whether to ask for CLIENT LIST and LATENCY HISTOGRAM, whose replies are long."""
        self._clients = clients
        self._latency_histograms = latency_histograms
        self._command_support = CommandSupport()
        self._facts: Facts | None = None
        self._databases = 0
        self._info = _INFOS[0]

    @property
    def is_known(self) -> bool:
        """Return whether `read` takes one round, since INFO told before what else can be asked."""
        return self._facts is not None

    @property
    def is_sentinel(self) -> bool:
        """Return whether it is a sentinel, which has no keys."""
        return self._facts is not None and self._facts.is_sentinel

    def read(self, context: ScrapeContext) -> RequestBatches:
        """Emit all there is but the contents; tell `visit` the server's version and time."""
        known = self._facts
        asked = {} if known is None else self._questions(known)
        if known is not None:
            context.version = known.version
        reply, *replies = yield (self._info, *_flat(asked))
        for other in _INFOS[_INFOS.index(self._info) + 1 :]:
            if not _tells_nothing(context, reply):
                break
            self._info = other
            (reply,) = yield (other,)
        found = _take_info(context, reply)
        if known is None:
            asked = self._questions(found.facts)
            replies = yield _flat(asked)
        rest = iter(replies)
        for name, commands in asked.items():
            self._take(context, found, name, {command: next(rest) for command in commands})
        self._command_support.emit(context.scrape)
        info.emit_keyspace(context.scrape, found.fields, self._databases)
        self._facts = found.facts
        if known is not None and known.run_id != found.facts.run_id:
            self._command_support.forget()
            self._info = _INFOS[0]

    def _questions(self, facts: Facts) -> dict[str, Sequence[Command]]:
        """Return what to ask beside INFO, by the name that ACLs have for it."""
        asked: dict[str, Sequence[Command]] = {}
        if facts.is_sentinel:
            asked["sentinel"] = sentinels.ask(facts.masters)
        else:
            asked["config|get"] = config_params.ask(facts)
            asked["slowlog|len"] = [("SLOWLOG", "LEN")]
            asked["slowlog|get"] = [("SLOWLOG", "GET", 1)]
            asked["latency|latest"] = [("LATENCY", "LATEST")]
            if self._latency_histograms and facts.version >= _WITH_HISTOGRAMS:
                asked["latency|histogram"] = [("LATENCY", "HISTOGRAM")]
            if facts.has_cluster_info:
                asked["cluster|info"] = [("CLUSTER", "INFO")]
            if facts.has_commandlog:
                asked["commandlog|len"] = [("COMMANDLOG", "LEN", k) for k in slowlog.COMMANDLOGS]
        if facts.lacks_clock:
            asked["time"] = [("TIME",)]
        if self._clients:
            asked["client|list"] = [("CLIENT", "LIST")]
        return {name: asked[name] for name in asked if self._command_support.expects(name)}

    def _take(
        self, context: ScrapeContext, found: Info, name: str, replies: dict[Command, Reply]
    ) -> None:
        scrape, reply = context.scrape, next(iter(replies.values()))
        if isinstance(reply, ReplyError):
            if is_passing(reply):
                context.losses.append(refusal(context.url, name.replace("|", " ").upper(), reply))
            self._command_support.refused(name, reply)
            return
        self._command_support.answered(name)
        if name in _EMITS:
            _EMITS[name](scrape, reply)
        match name:
            case "config|get":
                settings = config_params.parse(replies.values())
                self._databases = config_params.databases(settings)
                config_params.emit(scrape, settings)
            case "latency|histogram":
                latency.emit_durations(scrape, reply, found.total_usec())
            case "cluster|info":
                told = info.parse(text(reply)).fields if type(reply) is bytes else {}
                info.emit_cluster(scrape, {n: told[n] for n in told if n not in found.fields})
            case "commandlog|len":
                slowlog.emit_commandlogs(scrape, replies.values())
            case "time":
                context.now = _milliseconds(reply)
            case "sentinel":
                sentinels.emit(scrape, replies)


def _tells_nothing(context: ScrapeContext, reply: Reply) -> bool:
    """Return whether the server may tell more if INFO is asked otherwise."""
    if isinstance(reply, ReplyError):
        return not is_passing(reply) and refusal(context.url, "INFO", reply).reason == "protocol"
    return type(reply) is bytes and b"redis_version:" not in reply


def _take_info(context: ScrapeContext, reply: Reply) -> Info:
    """Emit INFO, and that the server is up; a user who may not see INFO loses it alone."""
    if isinstance(reply, ReplyError):
        error = refusal(context.url, "INFO", reply)
        if error.reason != "noperm":
            raise error
        context.set_up(up=True)
        context.losses.append(error)
        return Info()
    if type(reply) is not bytes or b"redis_version:" not in reply:
        raise unexpected(context.url, "answers INFO with something else than Redis does")
    if len(reply) > _LONGEST_INFO:
        raise unexpected(context.url, f"answers INFO with {len(reply) >> 20} MB")
    found = info.parse(text(reply))
    context.set_up(up=True)
    context.version = found.facts.version
    context.now = found.server_time()
    context.counters_set = found.counters_set()
    info.emit(context.scrape, found)
    if found.facts.is_sentinel:
        sentinels.emit_info(context.scrape, found)
    return found


def _milliseconds(reply: Reply) -> int | None:
    """Return the reply to TIME, seconds and microseconds, in milliseconds since 1970."""
    match reply:
        case [bytes(seconds), bytes(micros)] if seconds.isdigit() and micros.isdigit():
            return int(seconds[:_MOST_DIGITS]) * 1000 + int(micros[:_MOST_DIGITS]) // 1000
        case _:
            return None


def _flat(asked: Mapping[str, Sequence[Command]]) -> list[Command]:
    return [command for commands in asked.values() for command in commands]
