"""A Redis server: its memory and commands, its streams and queues."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard, units

from grafana.builder.board import Section, assemble, instance, query_variable, targets
from grafana.builder.panels import (
    GREEN,
    GREY,
    ORANGE,
    RED,
    UP,
    Limits,
    Panel,
    Query,
    graph,
    number,
    state,
)
from grafana.builder.promql import INSTANCE, TARGET, Selection, by, largest
from grafana.builder.tables import Column, rows

UID = "bts-redis"
SERVER = ("instance", "target")
GROUP = ("instance", "target", "db", "stream", "group")
LATE: Limits = ((None, GREEN), (60, ORANGE), (300, RED))
NAME = "{{target}} {{instance}}"
WAITING = "{{destination}} {{group}} {{target}} {{instance}}"

one = Selection((INSTANCE, TARGET))
stream = Selection((INSTANCE, TARGET, 'stream=~"$destination"'))
waiting = Selection((INSTANCE, TARGET, 'system="redis"', 'destination=~"$destination"'))


def group(metric: str) -> str:
    """Return a metric of consumer groups."""
    return by(GROUP, stream(metric), "max")


def make() -> dashboard.Dashboard:
    """Return the dashboard."""
    return assemble(
        UID,
        "Which stream or queue of Redis is behind, and whether memory, clients or slow commands are the reason.",
        [
            instance("redis_up"),
            targets("redis_up"),
            query_variable(
                "destination",
                "Stream or queue",
                "Streams and queues.",
                'label_values(messaging_backlog_messages{instance=~"$instance",system="redis"}, destination)',
            ),
        ],
        [
            Section("At a glance", _summary()),
            Section("Streams and queues: graphs of the 20 largest", [_groups(), *_waiting()]),
            Section("What Redis does", _commands()),
            Section("Memory and keys", _memory()),
            Section("Clients, replication and persistence", _clients()),
        ],
    )


def _summary() -> list[Panel]:
    hits, misses = one.rate("redis_keyspace_hits_total"), one.rate("redis_keyspace_misses_total")
    return [
        state(
            "Server",
            "Whether Redis answers the exporter. If it is DOWN, the status page of the exporter (/) shows the reason.",
            Query(by(SERVER, one("redis_up"), "min"), NAME),
            UP,
        ),
        number(
            "Up since",
            "Time since Redis was started. If it is short, it was restarted: data that was not saved is lost.",
            units.DurationSeconds,
            Query(one("redis_uptime_in_seconds"), NAME),
        ),
        number(
            "Memory in use",
            "Memory that Redis uses for data and buffers. Compare with the limit below.",
            units.BytesIEC,
            Query(one("redis_memory_used_bytes"), NAME),
        ),
        number(
            "Hit ratio",
            "Share of key lookups that found the key. `no lookups` if there was none.",
            units.PercentUnit,
            Query(f"{hits} / ({hits} + {misses})", NAME),
            missing="no lookups",
        ),
        number(
            "Keys evicted",
            "Keys that Redis deleted in the last hour because memory was full. For queues and streams this is a loss of data.",
            units.Short,
            Query(f"round({one.increase('redis_evicted_keys_total', '1h')})", NAME),
            limits=((None, GREEN), (1, RED)),
        ),
        number(
            "Connections rejected",
            "Connections that Redis rejected in the last hour because of maxclients. Close idle clients, or raise the limit.",
            units.Short,
            Query(f"round({one.increase('redis_rejected_connections_total', '1h')})", NAME),
            limits=((None, GREEN), (1, RED)),
        ),
    ]


def _groups() -> Panel:
    return rows(
        "Consumer groups of streams",
        "One row for each consumer group, the latest first. Exact `no`: only the server's own count is known, which may be wrong."
        " Lost entries were trimmed before the group read them: raise MAXLEN. Many deliveries of the oldest pending entry:"
        " it makes its consumers fail.",
        GROUP,
        [
            Column(
                "Lag",
                group("redis_stream_group_lag_seconds"),
                units.Seconds,
                LATE,
                missing="unknown",
            ),
            Column(
                "Entries behind", group("redis_stream_group_lag"), units.Short, missing="unknown"
            ),
            Column(
                "Exact",
                group("redis_stream_group_lag_exact"),
                units.Short,
                texts={"0": ("no", ORANGE), "1": ("yes", GREEN)},
            ),
            Column("Pending", group("redis_stream_group_messages_pending")),
            Column(
                "Oldest pending",
                group("redis_stream_group_oldest_pending_age_seconds"),
                units.Seconds,
                LATE,
            ),
            Column(
                "Its deliveries",
                group("redis_stream_group_oldest_pending_deliveries"),
                units.Short,
                ((None, GREY), (3, ORANGE)),
            ),
            Column(
                "Consumers",
                group("redis_stream_group_consumers"),
                units.Short,
                ((None, RED), (1, GREY)),
            ),
            Column(
                "Stale consumers",
                group("redis_stream_group_consumers_stale"),
                units.Short,
                ((None, GREY), (1, ORANGE)),
            ),
            Column(
                "Lost entries",
                group("redis_stream_group_entries_lost"),
                units.Short,
                ((None, GREY), (1, RED)),
            ),
        ],
        order="Lag",
        empty="no stream has a consumer group: name streams in the settings (`streams`)",
    )


def _waiting() -> list[Panel]:
    labels = ("instance", "target", "destination", "group")
    return [
        graph(
            "Lag",
            "Age of the oldest waiting entry or job. A gap means that it is not known.",
            units.Seconds,
            Query(largest(by(labels, waiting("messaging_lag_seconds"), "max")), WAITING),
            limits=LATE,
            width=8,
        ),
        graph(
            "Backlog",
            "Entries and jobs that wait. If they grow, the consumers are too slow or have stopped.",
            units.Short,
            Query(largest(by(labels, waiting("messaging_backlog_messages"), "max")), WAITING),
            width=8,
        ),
        graph(
            "Entries added and consumed",
            "Entries that were added to each stream and consumed by each group, per second. Lists have no such count.",
            units.MessagesPerSecond,
            Query(
                largest(by(labels[:-1], waiting.rate("messaging_published_messages_total"))),
                "{{destination}} added {{target}} {{instance}}",
            ),
            Query(
                largest(by(labels, waiting.rate("messaging_consumed_messages_total"))),
                f"{WAITING} consumed",
            ),
            width=8,
        ),
    ]


def _commands() -> list[Panel]:
    command = ("instance", "target", "cmd")
    calls = by(command, one.rate("redis_commands_total"))
    seconds = by(command, one.rate("redis_commands_duration_seconds_total"))
    return [
        graph(
            "Commands",
            "The ten most frequent commands, per second.",
            units.OpsPerSecond,
            Query(f"topk(10, {calls})", "{{cmd}} {{target}} {{instance}}"),
            width=8,
        ),
        graph(
            "Time in commands",
            "Share of time that Redis spends in each of the ten most expensive commands. It runs one at a time:"
            " near 100 % in total it is saturated.",
            units.PercentUnit,
            Query(f"topk(10, {seconds})", "{{cmd}} {{target}} {{instance}}"),
            width=8,
        ),
        graph(
            "Time per command",
            "Average time of a call of the ten slowest commands. Look for the slow ones in SLOWLOG GET.",
            units.Seconds,
            Query(f"topk(10, {seconds} / {calls})", "{{cmd}} {{target}} {{instance}}"),
            width=8,
        ),
        graph(
            "Slow log",
            "Entries in the slow log. A rise: SLOWLOG GET shows the commands and their clients.",
            units.Short,
            Query(one("redis_slowlog_length"), NAME),
        ),
        graph(
            "Network",
            "Bytes received and sent per second.",
            units.BytesPerSecondIEC,
            Query(one.rate("redis_net_input_bytes_total"), f"{NAME} received"),
            Query(one.rate("redis_net_output_bytes_total"), f"{NAME} sent"),
        ),
    ]


def _memory() -> list[Panel]:
    return [
        graph(
            "Memory",
            "Memory in use, its limit (0: none), and what the system gave to Redis. Without a limit the machine's memory is the limit.",
            units.BytesIEC,
            Query(one("redis_memory_used_bytes"), f"{NAME} used"),
            Query(one("redis_memory_max_bytes"), f"{NAME} limit"),
            Query(one("redis_memory_used_rss_bytes"), f"{NAME} resident"),
            width=8,
        ),
        graph(
            "Keys",
            "Keys in each database, and those that expire. A constant rise is a leak.",
            units.Short,
            Query(f"{one('redis_db_keys')} > 0", "{{db}} {{target}} {{instance}}"),
            Query(
                f"{one('redis_db_keys_expiring')} and {one('redis_db_keys')} > 0",
                "{{db}} expiring {{target}} {{instance}}",
            ),
            width=8,
        ),
        graph(
            "Keys expired and evicted",
            "Keys per second that expired, and that were evicted because memory was full.",
            units.CountsPerSecond,
            Query(one.rate("redis_expired_keys_total"), f"{NAME} expired"),
            Query(one.rate("redis_evicted_keys_total"), f"{NAME} evicted"),
            width=8,
        ),
    ]


def _clients() -> list[Panel]:
    saved = f"time() - {one('redis_rdb_last_save_timestamp_seconds')}"
    return [
        graph(
            "Clients",
            "Connected clients, and those blocked in commands such as BLPOP or XREADGROUP: consumers that wait for work.",
            units.Short,
            Query(one("redis_connected_clients"), f"{NAME} connected"),
            Query(one("redis_blocked_clients"), f"{NAME} blocked"),
            width=8,
        ),
        graph(
            "Replicas",
            "Connected replicas. A fall is a replica that lost its connection.",
            units.Short,
            Query(one("redis_connected_slaves"), NAME),
            width=8,
        ),
        number(
            "Last save",
            "Whether the last snapshot succeeded. If it failed, the log of Redis shows why; Redis may refuse writes until then.",
            units.Short,
            Query(one("redis_rdb_last_bgsave_status"), NAME),
            texts={"0": ("failed", RED), "1": ("succeeded", GREEN)},
            size=(4, 8),
        ),
        number(
            "Saved",
            "Time since the last snapshot: what a crash loses without an append-only file.",
            units.DurationSeconds,
            Query(saved, NAME),
            size=(4, 8),
        ),
    ]
