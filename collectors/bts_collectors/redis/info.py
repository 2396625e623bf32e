"""INFO, the server's own account: parsed here, and what is more than a plain field emitted."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from itertools import islice

from bts_collectors.redis.infofields import PLAIN
from bts_exporter import Kind, Metric, Scrape, Template, counter, gauge, summary

#: Error codes beyond it are left out: before Redis 7.2 a script can invent any number of them.
MOST_ERRORS = 128
#: A server can be configured for any number of databases; the empty ones beyond it are left out.
MOST_EMPTY_DATABASES = 16

_WORDS = {"ok": 1.0, "true": 1.0, "err": 0.0, "fail": 0.0, "false": 0.0}
_DATABASE = re.compile(r"db\d+")
_REPLICA = re.compile(r"slave\d+")
_THREAD = re.compile(r"used_active_time_io_thread_(\d+)")
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
)

START_TIME = gauge(
    "redis_start_time_seconds",
    "When the server started: server_time_usec less uptime_in_seconds of INFO.",
)
LATEST_FORK = gauge("redis_latest_fork_seconds", "Field latest_fork_usec of INFO, Stats.")
IO_THREAD = counter(
    "redis_active_time_io_thread_seconds_total",
    "Fields used_active_time_io_thread_N of INFO, CPU.",
    ("thread",),
)
CLUSTER = Template("redis_cluster_{field}", "Field cluster_{field} of INFO.", Kind.GAUGE)
INSTANCE = gauge("redis_instance_info", "What the server is: INFO.", _IDENTITY)

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
AVERAGE_TTL = gauge("redis_db_avg_ttl_seconds", "Field avg_ttl of INFO keyspace.", ("db",))

REPLICA_OFFSET = gauge(
    "redis_connected_slave_offset_bytes", "Field offset of a slaveN of INFO replication.", _SLAVE
)
REPLICA_LAG = gauge(
    "redis_connected_slave_lag_seconds", "Field lag of a slaveN of INFO replication.", _SLAVE
)
SLAVE = gauge(
    "redis_slave_info",
    "A replica's master_host, master_port and slave_read_only of INFO replication.",
    (*_MASTER, "read_only"),
)
LINK = {
    "master_link_status": gauge(
        "redis_master_link_up", "Whether master_link_status of INFO replication is up.", _MASTER
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
    AVERAGE_TTL,
    REPLICA_OFFSET,
    REPLICA_LAG,
    SLAVE,
)

Fields = Mapping[str, str]


def parse(text: str) -> dict[str, str]:
    """Return the fields of INFO's text by name, of all sections."""
    fields = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, colon, value = line.partition(":")
            if colon:
                fields[name] = value
    return fields


def version(fields: Fields) -> tuple[int, ...]:
    """Return redis_version as numbers, (7, 0, 15); empty if there is none."""
    return tuple(map(int, re.findall(r"\d+", fields.get("redis_version", ""))))


def server_time(fields: Fields) -> int | None:
    """Return the server's clock in milliseconds since 1970 (server_time_usec), None if unknown."""
    microseconds = number(fields.get("server_time_usec", ""))
    return None if microseconds is None else int(microseconds) // 1000


def number(text: str) -> float | None:
    """Return a field's value: ok and true are 1, err, fail and false 0; None for all other words."""
    if text in _WORDS:
        return _WORDS[text]
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def emit(scrape: Scrape, fields: Fields, databases: int) -> None:
    """Emit all of INFO; `databases` is how many the server has, 0 if that is not known."""
    _emit_plain(scrape, fields)
    _emit_identity(scrape, fields)
    _emit_commands(scrape, fields)
    _emit_keyspace(scrape, fields, databases)
    _emit_replicas(scrape, fields)
    _emit_master(scrape, fields)


def _emit_plain(scrape: Scrape, fields: Fields) -> None:
    for field, raw in fields.items():
        metric = PLAIN.get(field)
        if metric is None and field.startswith("cluster_") and field.isidentifier():
            metric = CLUSTER.of(field.removeprefix("cluster_"))
        if metric is not None and (value := number(raw)) is not None:
            scrape.emit(metric, value)
        elif (thread := _THREAD.fullmatch(field)) and (value := number(raw)) is not None:
            scrape.emit(IO_THREAD, value, thread[1])
    if (fork := number(fields.get("latest_fork_usec", ""))) is not None:
        scrape.emit(LATEST_FORK, fork / 1e6)


def _emit_identity(scrape: Scrape, fields: Fields) -> None:
    scrape.emit(INSTANCE, 1, *(fields.get(field, "") for field in _IDENTITY))
    now, uptime = server_time(fields), number(fields.get("uptime_in_seconds", ""))
    if now is not None and uptime is not None:
        # Both from the server's cached clock in whole seconds: the difference never wavers.
        scrape.emit(START_TIME, now // 1000 - uptime)


def _emit_commands(scrape: Scrape, fields: Fields) -> None:
    calls: dict[str, tuple[float, float]] = {}
    for command, row in _rows(fields, "cmdstat_"):
        if "calls" in row and "usec" in row:
            calls[command] = row["calls"], row["usec"]
            scrape.emit(CALLS, row["calls"], command)
            scrape.emit(CALL_SECONDS, row["usec"] / 1e6, command)
        if "rejected_calls" in row:
            scrape.emit(REJECTED, row["rejected_calls"], command)
        if "failed_calls" in row:
            scrape.emit(FAILED, row["failed_calls"], command)
    for command, row in _rows(fields, "latency_percentiles_usec_"):
        if command in calls:
            count, total = calls[command]
            quantiles = [(round(float(name[1:]) / 100, 9), row[name]) for name in row]
            scrape.emit_summary(LATENCY, quantiles, total, count, command)
    for code, row in islice(_rows(fields, "errorstat_"), MOST_ERRORS):
        if "count" in row:
            scrape.emit(ERRORS, row["count"], code)


def _emit_keyspace(scrape: Scrape, fields: Fields, databases: int) -> None:
    rows = {name: _row(fields[name]) for name in fields if _DATABASE.fullmatch(name)}
    for index in range(min(databases, MOST_EMPTY_DATABASES)):
        rows.setdefault(f"db{index}", {"keys": 0.0, "expires": 0.0})
    for name, row in rows.items():
        if "keys" in row:
            scrape.emit(KEYS, row["keys"], name)
        if "expires" in row:
            scrape.emit(EXPIRING, row["expires"], name)
        if "avg_ttl" in row:
            scrape.emit(AVERAGE_TTL, row["avg_ttl"] / 1000, name)


def _emit_replicas(scrape: Scrape, fields: Fields) -> None:
    seen = set()
    for name in fields:
        if not _REPLICA.fullmatch(name):
            continue
        words = _words(fields[name])
        labels = (words.get("ip", ""), words.get("port", ""), words.get("state", ""))
        # A replica that comes back is listed twice until its old connection is given up.
        if labels in seen:
            continue
        seen.add(labels)
        for metric, word in ((REPLICA_OFFSET, "offset"), (REPLICA_LAG, "lag")):
            value = number(words.get(word, ""))
            if value is not None and value >= 0:
                scrape.emit(metric, value, *labels)


def _emit_master(scrape: Scrape, fields: Fields) -> None:
    if "master_host" not in fields:
        return
    labels = (fields["master_host"], fields.get("master_port", ""))
    scrape.emit(SLAVE, 1, *labels, fields.get("slave_read_only", ""))
    for field, metric in LINK.items():
        raw = fields.get(field, "")
        value = number({"up": "1", "down": "0"}.get(raw, raw))
        # -1 says that there is no link, and so no last time.
        if value is not None and value >= 0:
            scrape.emit(metric, value, *labels)


def _rows(fields: Fields, prefix: str) -> Iterator[tuple[str, dict[str, float]]]:
    for field, raw in fields.items():
        if field.startswith(prefix):
            yield field.removeprefix(prefix), _row(raw)


def _row(raw: str) -> dict[str, float]:
    """Return the numbers of `keys=10,expires=2`."""
    numbers = {name: number(word) for name, word in _words(raw).items()}
    return {name: value for name, value in numbers.items() if value is not None}


def _words(raw: str) -> dict[str, str]:
    """Return the words of `ip=10.0.0.1,port=6379` by name."""
    return dict(pair.partition("=")[::2] for pair in raw.split(","))
