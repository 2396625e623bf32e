"""An MQTT broker: its messages, the queues of its clients, the latency through it."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard, units

from grafana.builder.board import Section, assemble, instance, query_variable, targets
from grafana.builder.panels import (
    GREEN,
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
from grafana.builder.promql import INSTANCE, TARGET, Selection, by
from grafana.builder.tables import Column, rows

UID = "bts-mqtt"
SERVER = ("instance", "target")
QUEUE = ("instance", "target", "destination", "group")
NAME = "{{target}} {{instance}}"
LATE: Limits = ((None, GREEN), (60, ORANGE), (300, RED))
SLOW: Limits = ((None, GREEN), (0.1, ORANGE), (1, RED))
NO_CANARY = "no canary configured"

one = Selection((INSTANCE, TARGET))
waiting = Selection((INSTANCE, TARGET, 'system="mqtt"', 'destination=~"$destination"'))


def quantile(share: float, histogram: str, labels: tuple[str, ...]) -> str:
    """Return a quantile of a histogram by labels."""
    buckets = by((*labels, "le"), one.rate(f"{histogram}_bucket"))
    return f"histogram_quantile({share}, {buckets})"


def per(metric: str) -> str:
    """Return a metric of the common vocabulary."""
    return by(QUEUE, waiting(metric), "max")


def make() -> dashboard.Dashboard:
    """Return the dashboard."""
    return assemble(
        UID,
        "Whether the MQTT broker delivers, which clients do not keep up, and how long a result takes.",
        [
            instance("mqtt_up"),
            targets("mqtt_up"),
            query_variable(
                "destination",
                "Pipeline",
                "Pipelines in the exporter's settings. The broker and its clients are part of All.",
                'query_result(messaging_backlog_messages{instance=~"$instance",system="mqtt"})',
            ).regex('/destination="([^"]+)"/'),
        ],
        [
            Section("At a glance", _summary()),
            Section("Waiting messages and latency", [_queues(), *_latency()]),
            Section("Messages (mosquitto)", _messages()),
            Section("Clients and memory (mosquitto)", _clients()),
            Section("Connection of the exporter", _connection()),
        ],
    )


def _summary() -> list[Panel]:
    age = f"time() - {one('mosquitto_sys_last_update_timestamp_seconds')}"
    lost = by(SERVER, one.increase("mqtt_canary_lost_total", "10m"))
    return [
        state(
            "Broker",
            "Whether the exporter is connected and the broker answers. If it is DOWN, the status page of the exporter (/) shows the reason.",
            Query(by(SERVER, one("mqtt_up"), "min"), NAME),
            UP,
        ),
        number(
            "Queued now",
            "Messages that mosquitto holds for clients, each counted once. If they grow, a client is away or too slow:"
            " see the table below.",
            units.Short,
            Query(one("mosquitto_queued_messages"), NAME),
            limits=((None, GREEN), (1000, ORANGE), (10000, RED)),
        ),
        number(
            "Messages dropped",
            "Messages that mosquitto dropped in the last 10 minutes, because the queue of a client was full."
            " Raise max_queued_messages, or make the client faster.",
            units.Short,
            Query(f"round({one.increase('mosquitto_messages_dropped_total', '10m')})", NAME),
            limits=((None, GREEN), (1, RED)),
        ),
        number(
            "Canary messages lost",
            "Messages of the exporter itself that did not come back in the last 10 minutes. Needs `canary` in the settings."
            " If only these are lost, check the permissions of the exporter's user.",
            units.Short,
            Query(f"round({lost})", NAME),
            limits=((None, GREEN), (1, RED)),
            missing=NO_CANARY,
        ),
        number(
            "Connected clients",
            "Clients that are connected. If it fell, look for the missing ones in the broker's log.",
            units.Short,
            Query(one("mosquitto_clients", 'state="connected"'), NAME),
        ),
        number(
            "Age of statistics",
            "Time since the broker published its statistics ($SYS). Above 30 s they are stale: the broker hangs,"
            " or the user may not read $SYS.",
            units.Seconds,
            Query(age, NAME),
            limits=((None, GREEN), (20, ORANGE), (30, RED)),
        ),
    ]


def _queues() -> Panel:
    return rows(
        "Queues and pipelines",
        "The broker (no name), each client with a session (group) and each pipeline, the latest first."
        " The lag of clients is not known: MQTT has none. Clients need `persistence` or `emqx` in the settings,"
        " pipelines `pipelines`.",
        QUEUE,
        [
            Column("Lag", per("messaging_lag_seconds"), units.Seconds, LATE, missing="unknown"),
            Column("Backlog", per("messaging_backlog_messages"), missing="unknown"),
            Column(
                "Rate in",
                by(QUEUE, waiting.rate("messaging_published_messages_total")),
                units.MessagesPerSecond,
            ),
            Column(
                "Rate out",
                by(QUEUE, waiting.rate("messaging_consumed_messages_total")),
                units.MessagesPerSecond,
            ),
        ],
        order="Lag",
    )


def _latency() -> list[Panel]:
    pipeline, trip = ("instance", "target", "pipeline"), ("instance", "target", "qos")
    return [
        graph(
            "Latency of pipelines",
            "Time from a message to its result, as seen on the broker: half of the results took less than p50, 1 % more than p99."
            " Needs `pipelines` in the settings.",
            units.Seconds,
            *(
                Query(
                    quantile(share, "mqtt_pipeline_latency_seconds", pipeline),
                    f"{{{{pipeline}}}} p{share * 100:.0f} {{{{target}}}} {{{{instance}}}}",
                )
                for share in (0.5, 0.99)
            ),
            limits=SLOW,
            width=8,
        ),
        graph(
            "Without a result",
            "Input messages per second that had no result in time. Above 0 the service loses messages, or is too slow."
            " Needs `pipelines` in the settings.",
            units.MessagesPerSecond,
            Query(
                by(pipeline, one.rate("mqtt_pipeline_timeouts_total")),
                "{{pipeline}} {{target}} {{instance}}",
            ),
            limits=((None, GREEN), (0.01, RED)),
            width=8,
        ),
        graph(
            "Round trip",
            "Time of a message of the exporter through the broker and back (p99). If it rises, the broker or the network is slow."
            " Needs `canary` in the settings.",
            units.Seconds,
            Query(
                quantile(0.99, "mqtt_canary_round_trip_seconds", trip),
                "QoS {{qos}} {{target}} {{instance}}",
            ),
            limits=SLOW,
            width=8,
        ),
    ]


def _messages() -> list[Panel]:
    return [
        graph(
            "Messages",
            "Messages published to and by the broker per second. At 0 received, look at the producers.",
            units.MessagesPerSecond,
            Query(one.rate("mosquitto_messages_received_total"), f"{NAME} received"),
            Query(one.rate("mosquitto_messages_sent_total"), f"{NAME} sent"),
            width=8,
        ),
        graph(
            "Queued messages",
            "Messages that the broker holds for clients. They are lost when they exceed max_queued_messages.",
            units.Short,
            Query(one("mosquitto_queued_messages"), NAME),
            width=8,
        ),
        graph(
            "Dropped messages",
            "Messages that the broker dropped per second. Above 0 a client loses data.",
            units.MessagesPerSecond,
            Query(one.rate("mosquitto_messages_dropped_total"), NAME),
            limits=((None, GREEN), (0.01, RED)),
            width=8,
        ),
        graph(
            "Network",
            "Bytes received and sent by the broker per second.",
            units.BytesPerSecondIEC,
            Query(one.rate("mosquitto_network_bytes_received_total"), f"{NAME} received"),
            Query(one.rate("mosquitto_network_bytes_sent_total"), f"{NAME} sent"),
        ),
        graph(
            "Stored messages",
            "Messages in the broker's store, and the retained ones among them. A rise of the retained ones: topics without an end.",
            units.Short,
            Query(one("mosquitto_store_messages"), f"{NAME} stored"),
            Query(one("mosquitto_retained_messages"), f"{NAME} retained"),
        ),
    ]


def _clients() -> list[Panel]:
    return [
        graph(
            "Clients",
            "Clients by state. Disconnected ones have a session: the broker queues messages for them.",
            units.Short,
            Query(one("mosquitto_clients"), "{{state}} {{target}} {{instance}}"),
            width=8,
        ),
        graph(
            "Subscriptions",
            "Subscriptions of all clients. A fall is a consumer that is missing.",
            units.Short,
            Query(one("mosquitto_subscriptions"), NAME),
            width=8,
        ),
        graph(
            "Memory",
            "Heap memory of the broker. It grows with queued and retained messages.",
            units.BytesIEC,
            Query(one("mosquitto_heap_bytes"), NAME),
            width=8,
        ),
    ]


def _connection() -> list[Panel]:
    return [
        graph(
            "Connected",
            "Whether the exporter is connected to the broker. Gaps between 1 and 0: the connection is unstable.",
            units.Short,
            Query(by(SERVER, one("mqtt_connected"), "min"), NAME),
            full=1,
        ),
        graph(
            "Connections accepted",
            "Connections of the exporter that the broker accepted, since the exporter was started. Each step is a reconnection.",
            units.Short,
            Query(by(SERVER, one("mqtt_connects_total"), "max"), NAME),
        ),
    ]
