"""INFO: its parser, and the metrics that are more than one field."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

from bts_collectors.redis.server.info_fields import PLAIN
from bts_exporter import Kind, Metric, Scrape, Template, counter, gauge, summary

#: Error codes; more are left out. Before Redis 7.2 a script can create any number of them.
MOST_ERRORS = 128
#: Empty databases; more are left out. A server can be configured for any number of databases.
MOST_EMPTY_DATABASES = 16
#: Primaries of one Sentinel; more are left out. Each takes three further commands.
MOST_MASTERS = 100

#: Characters of a line of INFO; longer lines are skipped. The longest are paths, of up to 4,096.
_LONGEST_LINE = 8192
#: Unknown fields of CLUSTER INFO that become metrics in one process; Redis 8 has 30.
_MOST_CLUSTER_FIELDS = 200
#: Digits of a 64-bit integer.
_MOST_DIGITS = 20
_WORDS = {"ok": 1.0, "true": 1.0, "err": 0.0, "fail": 0.0, "false": 0.0}
_CLUSTER = "cluster_"
_DATABASE = re.compile(r"db\d+$")
_REPLICA = re.compile(r"slave\d+$")
_MASTER_ROW = re.compile(r"master\d+$")
_THREAD = re.compile(r"used_active_time_io_thread_(\d+)$")
_WORD = re.compile(r"(\w+)=(\[[^\]]*\]|[^,]*)")
_SLAVE = ("slave_ip", "slave_port", "slave_state")
_MASTER = ("master_host", "master_port")
_IDENTITY = (
    "role",
    "redis_version",
    "redis_build_id",
    "redis_mode",
    "os",
    "maxmemory_policy",
    "tcp_port",
    "run_id",
    "process_id",
    "master_replid",
    "valkey_version",
)
#: Labels of a module, which are the names in its row.
_MODULE = ("name", "ver", "api", "filters", "usedby", "using")
#: Commands that set the counters of streams and groups, or replace a stream.
_SETTERS = (
    "xsetid",
    "xgroup|setid",
    "xgroup|create",
    "restore",
    "restore-asking",
    "rename",
    "renamenx",
    "copy",
    "move",
    "swapdb",
)
#: Commands that remove or replace elements of a list, or whole keys; fields that count keys removed otherwise.
_REMOVERS = (
    *("lpop", "rpop", "blpop", "brpop", "lmpop", "blmpop", "rpoplpush", "brpoplpush"),
    *("lmove", "blmove", "ltrim", "lrem", "lset", "linsert", "del", "unlink", "sort"),
    *("rename", "renamenx", "copy", "move", "restore", "restore-asking", "swapdb"),
    *("flushdb", "flushall", "replicaof", "slaveof", "migrate", "sync", "psync", "set", "getset"),
    *("debug", "getdel", "getex", "expire", "pexpire", "expireat", "pexpireat"),
)
_REMOVED_KEYS = ("expired_keys", "evicted_keys")
_COMMANDLOG_SINCE = (8, 1)

START_TIME = gauge(
    "redis_start_time_seconds",
    "Unix time of the start of the server: server_time_usec minus uptime_in_seconds of INFO.",
)
LATEST_FORK = gauge("redis_latest_fork_seconds", "Field latest_fork_usec of INFO, Stats.")
IO_THREAD = counter(
    "redis_active_time_io_thread_seconds_total",
    "Fields used_active_time_io_thread_N of INFO, CPU.",
    ("thread",),
)
CLUSTER = Template("redis_cluster_{field}", "Field cluster_{field} of INFO.", Kind.GAUGE)
_CLUSTER_METRICS: dict[str, Metric] = {}
INSTANCE = gauge("redis_instance_info", "Identity of the server: fields of INFO.", _IDENTITY)

CALLS = counter("redis_commands_total", "Field calls of INFO commandstats.", ("cmd",))
CALL_SECONDS = counter(
    "redis_commands_duration_seconds_total", "Field usec of INFO commandstats.", ("cmd",)
)
REJECTED = counter(
    "redis_commands_rejected_calls_total", "Field rejected_calls of INFO commandstats.", ("cmd",)
)
FAILED = counter(
    "redis_commands_failed_calls_total", "Field failed_calls of INFO commandstats.", ("cmd",)
)
LATENCY = summary(
    "redis_latency_percentiles_usec",
    "INFO latencystats; sum and count are usec and calls of INFO commandstats.",
    ("cmd",),
)
ERRORS = counter("redis_errors_total", "Field count of INFO errorstats, by error code.", ("err",))

KEYS = gauge("redis_db_keys", "Field keys of INFO keyspace.", ("db",))
EXPIRING = gauge("redis_db_keys_expiring", "Field expires of INFO keyspace.", ("db",))
CACHED = gauge("redis_db_keys_cached", "Field cached_keys of INFO keyspace (KeyDB).", ("db",))
AVERAGE_TTL = gauge("redis_db_avg_ttl_seconds", "Field avg_ttl of INFO keyspace.", ("db",))

REPLICA_OFFSET = gauge(
    "redis_connected_slave_offset_bytes", "Field offset of a slaveN of INFO replication.", _SLAVE
)
REPLICA_LAG = gauge(
    "redis_connected_slave_lag_seconds", "Field lag of a slaveN of INFO replication.", _SLAVE
)
REPLICA_LAG_BYTES = gauge(
    "redis_replica_lag_bytes",
    "Bytes that an online replica has not acknowledged: master_repl_offset minus offset of a slaveN of"
    " INFO replication.",
    _SLAVE,
)
SLAVE = gauge(
    "redis_slave_info",
    "Fields master_host, master_port and slave_read_only of INFO replication, of a replica.",
    (*_MASTER, "read_only"),
)
LINK = {
    "master_link_status": gauge(
        "redis_master_link_up",
        "1 if master_link_status of INFO replication is up, else 0.",
        _MASTER,
    ),
    "master_last_io_seconds_ago": gauge(
        "redis_master_last_io_seconds_ago",
        "Field master_last_io_seconds_ago of INFO replication.",
        _MASTER,
    ),
    "master_sync_in_progress": gauge(
        "redis_master_sync_in_progress",
        "Field master_sync_in_progress of INFO replication.",
        _MASTER,
    ),
    "slave_repl_offset": gauge(
        "redis_slave_repl_offset", "Field slave_repl_offset of INFO replication.", _MASTER
    ),
}

MODULE = gauge("redis_module_info", "A module that the server has loaded: INFO modules.", _MODULE)

METRICS: tuple[Metric | Template, ...] = (
    *PLAIN.values(),
    *LINK.values(),
    START_TIME,
    LATEST_FORK,
    IO_THREAD,
    CLUSTER,
    INSTANCE,
    CALLS,
    CALL_SECONDS,
    REJECTED,
    FAILED,
    LATENCY,
    ERRORS,
    KEYS,
    EXPIRING,
    CACHED,
    AVERAGE_TTL,
    REPLICA_OFFSET,
    REPLICA_LAG,
    REPLICA_LAG_BYTES,
    SLAVE,
    MODULE,
)

#: INFO by field.
Fields = Mapping[str, str]


class Facts(NamedTuple):
    """Facts from INFO that decide which commands the server supports."""

    #: Such as (7, 0, 15); empty if it is unknown. Valkey gives the Redis that it is compatible with.
    version: tuple[int, ...] = ()
    #: Changes with every start of the server.
    run_id: str = ""
    is_sentinel: bool = False
    #: Names of the primaries that a Sentinel watches.
    masters: tuple[str, ...] = ()
    #: Whether CLUSTER INFO has fields that INFO lacks.
    has_cluster_info: bool = False
    has_commandlog: bool = False
    #: Whether INFO leaves out the server's clock, as before Redis 6.2 and in some forks.
    lacks_clock: bool = False


@dataclass(slots=True)
class Info:
    """INFO by field; the rows of commands, percentiles and errors by command or error code."""

    fields: dict[str, str] = field(default_factory=dict)
    commands: dict[str, str] = field(default_factory=dict)
    percentiles: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    modules: list[str] = field(default_factory=list)
    facts: Facts = field(default_factory=Facts)

    def masters(self) -> list[dict[str, str]]:
        """Return a Sentinel's primaries: name, status, address, slaves, sentinels."""
        if "sentinel_masters" not in self.fields:
            return []
        rows = [words(raw) for name, raw in self.fields.items() if _MASTER_ROW.match(name)]
        return [row for row in rows if "name" in row][:MOST_MASTERS]

    def server_time(self) -> int | None:
        """Return the server's clock in milliseconds since 1970 (server_time_usec), None if unknown."""
        microseconds = number(self.fields.get("server_time_usec", ""))
        return None if microseconds is None else int(microseconds) // 1000

    def counters_set(self) -> tuple[int, int] | None:
        """Return how often clients set entries-added, and any counter of a stream; None if unknown."""
        if not self.commands:
            return None
        calls = {name: int(_calls(self.commands.get(name, "")).calls or 0) for name in _SETTERS}
        return calls["xsetid"], sum(calls.values())

    def removals(self) -> int | None:
        """Return how often an element of a list may have been removed; None if unknown."""
        if not self.commands:
            return None
        calls = (_calls(self.commands.get(name, "")).calls or 0 for name in _REMOVERS)
        keys = (number(self.fields.get(name, "")) or 0 for name in _REMOVED_KEYS)
        return int(sum(calls) + sum(keys))

    def total_usec(self) -> dict[str, float]:
        """Return the total duration of the calls of each command in microseconds."""
        totals = ((command, _calls(raw).usec) for command, raw in self.commands.items())
        return {command: usec for command, usec in totals if usec is not None}


def parse(text: str) -> Info:
    """Return the fields of all sections of INFO; other lines are skipped."""
    info = Info()
    rows = {"cmdstat": info.commands, "latency": info.percentiles, "errorstat": info.errors}
    for line in text.replace("\r", "").split("\n"):
        if len(line) > _LONGEST_LINE:
            continue
        name, colon, value = line.partition(":")
        kind, _, rest = name.partition("_")
        if kind in rows:
            rows[kind][rest.removeprefix("percentiles_usec_")] = value
        elif name == "module":
            info.modules.append(value)
        elif colon and not name.startswith("#"):
            info.fields[name] = value
    info.facts = _facts(info)
    return info


def number(text: str) -> float | None:
    """Return a field as a number: ok and true are 1, err, fail and false 0; None for other words."""
    if text.isdecimal() and len(text) <= _MOST_DIGITS:
        return int(text)  # exact, and cheaper to format than a float
    try:
        value = float(text)
    except ValueError:
        return _WORDS.get(text)
    return value if math.isfinite(value) else None


def words(raw: str) -> dict[str, str]:
    """Return the values of a row such as `ip=10.0.0.1,port=6379` by name."""
    return dict(pair.partition("=")[::2] for pair in raw.split(","))


def emit(scrape: Scrape, info: Info) -> None:
    """Emit all of INFO except the keyspace, which needs CONFIG GET, too."""
    _emit_plain(scrape, info.fields)
    _emit_identity(scrape, info)
    _emit_commands(scrape, info)
    _emit_replicas(scrape, info.fields)
    _emit_master(scrape, info.fields)
    _emit_modules(scrape, info.modules)


def emit_cluster(scrape: Scrape, fields: Fields) -> None:
    """Emit the fields of CLUSTER INFO, or those of INFO that begin with cluster_."""
    for name, raw in fields.items():
        if not name.startswith(_CLUSTER) or not name.isidentifier():
            continue
        metric = PLAIN.get(name) or _cluster_metric(name.removeprefix(_CLUSTER))
        if metric is not None and (value := number(raw)) is not None:
            scrape.emit(metric, value)


def _cluster_metric(field: str) -> Metric | None:
    """Return the metric of a field; None if there are too many, since metrics stay in memory."""
    metric = _CLUSTER_METRICS.get(field)
    if metric is None and len(_CLUSTER_METRICS) < _MOST_CLUSTER_FIELDS:
        metric = _CLUSTER_METRICS[field] = CLUSTER.of(field)
    return metric


def emit_keyspace(scrape: Scrape, fields: Fields, databases: int) -> None:
    """Emit the keys of each database; `databases` is their number, 0 if it is unknown."""
    rows = {name: _row(fields[name]) for name in fields if _DATABASE.match(name)}
    for index in range(min(databases, MOST_EMPTY_DATABASES)):
        rows.setdefault(f"db{index}", {"keys": 0.0, "expires": 0.0})
    for name, row in rows.items():
        for metric, word in ((KEYS, "keys"), (EXPIRING, "expires"), (CACHED, "cached_keys")):
            if word in row:
                scrape.emit(metric, row[word], name)
        if "avg_ttl" in row:
            scrape.emit(AVERAGE_TTL, row["avg_ttl"] / 1000, name)


def _facts(info: Info) -> Facts:
    fields = info.fields
    return Facts(
        version=_version(fields.get("redis_version", "")),
        run_id=fields.get("run_id", ""),
        is_sentinel="sentinel_masters" in fields,
        masters=tuple(row["name"] for row in info.masters()),
        has_cluster_info=fields.get("cluster_enabled") == "1" and "cluster_state" not in fields,
        lacks_clock="redis_version" in fields and info.server_time() is None,
        has_commandlog=_version(fields.get("valkey_version", "")) >= _COMMANDLOG_SINCE,
    )


def _version(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d{1,9}", text)))


def _emit_plain(scrape: Scrape, fields: Fields) -> None:
    for name, raw in fields.items():
        metric = PLAIN.get(name)
        if metric is not None:
            if (value := number(raw)) is not None:
                scrape.emit(metric, value)
        elif name.startswith(_CLUSTER):
            emit_cluster(scrape, {name: raw})
        elif (thread := _THREAD.match(name)) and (value := number(raw)) is not None:
            scrape.emit(IO_THREAD, value, thread[1])
    if (fork := number(fields.get("latest_fork_usec", ""))) is not None:
        scrape.emit(LATEST_FORK, fork / 1e6)


def _emit_identity(scrape: Scrape, info: Info) -> None:
    fields = info.fields
    identity = {name: fields.get(name, "") for name in _IDENTITY}
    identity["redis_mode"] = identity["redis_mode"] or fields.get("server_mode", "")
    scrape.emit(INSTANCE, 1, *identity.values())
    now, uptime = info.server_time(), number(fields.get("uptime_in_seconds", ""))
    if now is not None and uptime is not None:
        # Both come from the server's cached clock in whole seconds, so that the difference is constant.
        scrape.emit(START_TIME, now // 1000 - uptime)


def _emit_commands(scrape: Scrape, info: Info) -> None:
    calls: dict[str, _Calls] = {}
    for command, raw in info.commands.items():
        calls[command] = row = _calls(raw)
        if row.calls is not None:
            scrape.emit(CALLS, row.calls, command)
        if row.usec is not None:
            scrape.emit(CALL_SECONDS, row.usec / 1e6, command)
        if row.rejected is not None:
            scrape.emit(REJECTED, row.rejected, command)
        if row.failed is not None:
            scrape.emit(FAILED, row.failed, command)
    for command, raw in info.percentiles.items():
        row = calls.get(command, _NO_CALLS)
        if row.calls is not None:
            scrape.emit_summary(LATENCY, _quantiles(raw), row.usec, row.calls, command)
    for code, raw in islice(info.errors.items(), MOST_ERRORS):
        if (times := _row(raw).get("count")) is not None:
            scrape.emit(ERRORS, times, code)


def _emit_replicas(scrape: Scrape, fields: Fields) -> None:
    written = number(fields.get("master_repl_offset", ""))
    seen = set()
    for name in fields:
        if not _REPLICA.match(name):
            continue
        replica = words(fields[name])
        labels = (replica.get("ip", ""), replica.get("port", ""), replica.get("state", ""))
        # A replica that reconnects is listed twice until its old connection times out.
        if labels in seen:
            continue
        seen.add(labels)
        offset, lag = (number(replica.get(word, "")) for word in ("offset", "lag"))
        if offset is not None:
            scrape.emit(REPLICA_OFFSET, offset, *labels)
            if written is not None and labels[2] == "online":
                scrape.emit(REPLICA_LAG_BYTES, max(written - offset, 0), *labels)
        if lag is not None and lag >= 0:
            scrape.emit(REPLICA_LAG, lag, *labels)


def _emit_master(scrape: Scrape, fields: Fields) -> None:
    if "master_host" not in fields:
        return
    labels = (fields["master_host"], fields.get("master_port", ""))
    scrape.emit(SLAVE, 1, *labels, fields.get("slave_read_only", ""))
    for name, metric in LINK.items():
        raw = fields.get(name, "")
        value = number({"up": "1", "down": "0"}.get(raw, raw))
        # -1 means that the link is down, so that there is no time.
        if value is not None and value >= 0:
            scrape.emit(metric, value, *labels)


def _emit_modules(scrape: Scrape, modules: Iterable[str]) -> None:
    """Emit rows such as `name=search,ver=21005,api=1,filters=0,usedby=[],using=[ReJSON]`."""
    # Values in brackets are lists, which contain commas.
    rows = [dict(_WORD.findall(raw)) for raw in modules]
    for labels in dict.fromkeys(tuple(row.get(word, "") for word in _MODULE) for row in rows):
        scrape.emit(MODULE, 1, *labels)


def _row(raw: str) -> dict[str, float]:
    """Return the numbers of a row such as `keys=10,expires=2`."""
    numbers = {name: number(word) for name, word in words(raw).items()}
    return {name: value for name, value in numbers.items() if value is not None}


class _Calls(NamedTuple):
    """A row of commandstats; None for a missing value."""

    calls: float | None
    usec: float | None
    rejected: float | None
    failed: float | None


_NO_CALLS = _Calls(None, None, None, None)


# Most commands are not called between two scrapes, so that their rows do not change.
@lru_cache(maxsize=2048)
def _calls(raw: str) -> _Calls:
    row = _row(raw)
    return _Calls(*map(row.get, ("calls", "usec", "rejected_calls", "failed_calls")))


@lru_cache(maxsize=2048)
def _quantiles(raw: str) -> tuple[tuple[float, float], ...]:
    """Return a row such as `p50=1.003,p99.9=9.5` as pairs of quantile and value."""
    named = ((number(name.removeprefix("p")), value) for name, value in _row(raw).items())
    return tuple((round(name / 100, 9), value) for name, value in named if name is not None)
