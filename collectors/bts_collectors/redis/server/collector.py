"""The server itself: INFO, CONFIG, SLOWLOG, LATENCY and so on, in one round trip."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from hiredis import ReplyError

from bts_collectors.redis.client.batching import RequestBatches
from bts_collectors.redis.client.command_support import SUPPORTED, CommandSupport
from bts_collectors.redis.client.connection import Command, Reply
from bts_collectors.redis.client.context import UP, ScrapeContext
from bts_collectors.redis.client.errors import command_error, is_passing, unexpected
from bts_collectors.redis.client.labels import text
from bts_collectors.redis.server import clients, config_params, info, latency, sentinels, slowlog
from bts_collectors.redis.server.info import Facts, Info
from bts_exporter import Scrape

#: Commands for INFO, tried in this order: `everything` came with Redis 6.2.
_INFOS: tuple[Command, ...] = (("INFO", "everything"), ("INFO", "all"), ("INFO",))
#: Bytes; INFO of a server with 10,000 databases has a tenth of it.
_LONGEST_INFO = 4 * 1024 * 1024
_WITH_HISTOGRAMS = (7,)
#: Digits of a number of seconds since 1970.
_MOST_DIGITS = 12
#: Requests whose only reply is emitted as it is, by the name that ACLs have for them.
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
    """Reads one server; remembers its kind and version, and the commands that it refuses."""

    def __init__(self, *, clients: bool, latency_histograms: bool) -> None:
        """Take whether to send CLIENT LIST and LATENCY HISTOGRAM, whose replies are long."""
        self._clients = clients
        self._latency_histograms = latency_histograms
        self._command_support = CommandSupport()
        self._facts: Facts | None = None
        self._databases = 0
        self._info = _INFOS[0]

    @property
    def is_known(self) -> bool:
        """Return whether `read` takes one round trip, because an earlier INFO says what to request."""
        return self._facts is not None

    @property
    def is_sentinel(self) -> bool:
        """Return whether it is a sentinel, which has no keys."""
        return self._facts is not None and self._facts.is_sentinel

    def read(self, context: ScrapeContext) -> RequestBatches:
        """Emit all metrics except those of keys, and set version and clock of `context`."""
        known = self._facts
        requests = {} if known is None else self._requests(known)
        if known is not None:
            context.version = known.version
        reply, *replies = yield (self._info, *_flat(requests))
        for other in _INFOS[_INFOS.index(self._info) + 1 :]:
            if not _is_useless(context, reply):
                break
            self._info = other
            (reply,) = yield (other,)
        parsed = _take_info(context, reply)
        if known is None:
            requests = self._requests(parsed.facts)
            replies = yield _flat(requests)
        rest = iter(replies)
        for name, commands in requests.items():
            self._take(context, parsed, name, {command: next(rest) for command in commands})
        self._command_support.emit(context.scrape)
        info.emit_keyspace(context.scrape, parsed.fields, self._databases)
        self._facts = parsed.facts
        if known is not None and known.run_id != parsed.facts.run_id:
            self._command_support.forget()
            self._info = _INFOS[0]

    def _requests(self, facts: Facts) -> dict[str, Sequence[Command]]:
        """Return the commands to send together with INFO, by the name that ACLs have for them."""
        requests: dict[str, Sequence[Command]] = {}
        if facts.is_sentinel:
            requests["sentinel"] = sentinels.commands(facts.masters)
        else:
            requests["config|get"] = config_params.commands(facts)
            requests["slowlog|len"] = [("SLOWLOG", "LEN")]
            requests["slowlog|get"] = [("SLOWLOG", "GET", 1)]
            requests["latency|latest"] = [("LATENCY", "LATEST")]
            if self._latency_histograms and facts.version >= _WITH_HISTOGRAMS:
                requests["latency|histogram"] = [("LATENCY", "HISTOGRAM")]
            if facts.has_cluster_info:
                requests["cluster|info"] = [("CLUSTER", "INFO")]
            if facts.has_commandlog:
                requests["commandlog|len"] = [("COMMANDLOG", "LEN", k) for k in slowlog.COMMANDLOGS]
        if facts.lacks_clock:
            requests["time"] = [("TIME",)]
        if self._clients:
            requests["client|list"] = [("CLIENT", "LIST")]
        return {name: requests[name] for name in requests if self._command_support.expects(name)}

    def _take(
        self, context: ScrapeContext, parsed: Info, name: str, replies: dict[Command, Reply]
    ) -> None:
        scrape, reply = context.scrape, next(iter(replies.values()))
        if isinstance(reply, ReplyError):
            if is_passing(reply):
                context.report(command_error(context.url, name.replace("|", " ").upper(), reply))
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
                latency.emit_durations(scrape, reply, parsed.total_usec())
            case "cluster|info":
                fields = info.parse(text(reply)).fields if type(reply) is bytes else {}
                info.emit_cluster(scrape, {n: fields[n] for n in fields if n not in parsed.fields})
            case "commandlog|len":
                slowlog.emit_commandlogs(scrape, replies.values())
            case "time":
                context.now = _milliseconds(reply)
            case "sentinel":
                sentinels.emit(scrape, replies)


def _is_useless(context: ScrapeContext, reply: Reply) -> bool:
    """Return whether another form of INFO may get a better reply."""
    if isinstance(reply, ReplyError):
        return (
            not is_passing(reply) and command_error(context.url, "INFO", reply).reason == "protocol"
        )
    return type(reply) is bytes and b"redis_version:" not in reply


def _take_info(context: ScrapeContext, reply: Reply) -> Info:
    """Emit INFO, and that the server is up; without permission for INFO, only INFO is lost."""
    if isinstance(reply, ReplyError):
        error = command_error(context.url, "INFO", reply)
        if error.reason != "noperm":
            raise error
        context.set_up(up=True)
        context.report(error)
        return Info()
    if type(reply) is not bytes or b"redis_version:" not in reply:
        raise unexpected(context.url, "sent an unexpected reply to INFO")
    if len(reply) > _LONGEST_INFO:
        raise unexpected(context.url, f"sent an INFO of {len(reply) >> 20} MB, which is too long")
    parsed = info.parse(text(reply))
    context.set_up(up=True)
    context.version = parsed.facts.version
    context.now = parsed.server_time()
    context.counters_set = parsed.counters_set()
    context.run_id = parsed.fields.get("run_id", "")
    context.removals = parsed.removals()
    info.emit(context.scrape, parsed)
    if parsed.facts.is_sentinel:
        sentinels.emit_info(context.scrape, parsed)
    return parsed


def _milliseconds(reply: Reply) -> int | None:
    """Return the reply to TIME, seconds and microseconds, in milliseconds since 1970."""
    match reply:
        case [bytes(seconds), bytes(micros)] if seconds.isdigit() and micros.isdigit():
            return int(seconds[:_MOST_DIGITS]) * 1000 + int(micros[:_MOST_DIGITS]) // 1000
        case _:
            return None


def _flat(requests: Mapping[str, Sequence[Command]]) -> list[Command]:
    return [command for commands in requests.values() for command in commands]
