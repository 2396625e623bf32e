"""A RabbitMQ cluster: its queues, its nodes and their limits."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard, units

from grafana.builder.board import Section, assemble, instance, query_variable, targets
from grafana.builder.panels import (
    ANY_IS_BAD,
    ANY_IS_SUSPICIOUS,
    FULLNESS,
    GREEN,
    GREY,
    ORANGE,
    RED,
    UP,
    Panel,
    Query,
    graph,
    number,
    state,
)
from grafana.builder.promql import INSTANCE, TARGET, Selection, by, count_where, largest
from grafana.builder.tables import Column, rows

UID = "bts-rabbitmq"
QUEUE = ("instance", "target", "vhost", "queue")
NAME = "{{queue}} {{vhost}} {{target}} {{instance}}"
NODE = "{{node}} {{target}} {{instance}}"

broker = Selection((INSTANCE, TARGET))
one = Selection((INSTANCE, TARGET, 'vhost=~"$vhost"', 'queue=~"$queue"'))


def per(expr: str, operator: str = "max") -> str:
    """Return an expression by queue."""
    return by(QUEUE, expr, operator)


def total(*metrics: str) -> str:
    """Return the sum of the rates of counters that need not all exist."""
    return per(
        " or ".join(
            f'label_replace({one.rate(metric)}, "counter", "{metric}", "", "")'
            for metric in metrics
        ),
        "sum",
    )


PUBLISHED = total("rabbitmq_queue_messages_published_total")
DELIVERED = total(
    "rabbitmq_queue_messages_delivered_ack_total",
    "rabbitmq_queue_messages_delivered_total",
    "rabbitmq_queue_get_ack_total",
    "rabbitmq_queue_get_total",
)
READY = per(one("rabbitmq_queue_messages_ready"))
CONSUMERS = per(one("rabbitmq_queue_consumers"))


def make() -> dashboard.Dashboard:
    """Return the dashboard."""
    scope = 'rabbitmq_queue_messages_ready{instance=~"$instance"'
    return assemble(
        UID,
        "Which queue of RabbitMQ is behind and why, and which limit of a node is near.",
        [
            instance("rabbitmq_up"),
            targets("rabbitmq_up"),
            query_variable(
                "vhost", "Virtual host", "Virtual hosts.", f"label_values({scope}}}, vhost)"
            ),
            query_variable(
                "queue",
                "Queue",
                "Queues and streams.",
                f'label_values({scope},vhost=~"$vhost"}}, queue)',
            ),
        ],
        [
            Section("At a glance", _summary()),
            Section(
                "Messages: the table of all queues, graphs of the 20 largest",
                [_queues(), *_messages()],
            ),
            Section("Work of consumers: 20 queues", _consumers()),
            Section("Nodes", [*_limits(), *_nodes()]),
            Section("Clients", _clients()),
        ],
    )


def _summary() -> list[Panel]:
    lost = " or ".join(
        f'label_replace({broker.rate(f"rabbitmq_global_messages_unroutable_{what}_total")}, "how", "{what}", "", "")'
        for what in ("dropped", "returned")
    )
    alarms = " or ".join(
        broker(f"rabbitmq_alarms_{resource}_watermark")
        for resource in ("memory_used", "free_disk_space")
    )
    return [
        state(
            "Broker",
            "Whether RabbitMQ answers the exporter. If it is DOWN, the status page of the exporter (/) shows the reason.",
            Query(
                by(("instance", "target"), broker("rabbitmq_up"), "min"), "{{target}} {{instance}}"
            ),
            UP,
        ),
        number(
            "Alarms",
            "Nodes with a memory or disk alarm: RabbitMQ blocks all publishers until it ends. Consume, or add memory or disk.",
            units.Short,
            Query(f"sum({alarms})", ""),
            limits=ANY_IS_BAD,
        ),
        number(
            "Failed health checks",
            "Health checks of the management API that fail. The status page of the exporter (/) or"
            " `rabbitmq-diagnostics` shows which.",
            units.Short,
            Query(
                count_where(
                    f"{broker('rabbitmq_health_check_ok')} == 0", broker("rabbitmq_health_check_ok")
                ),
                "",
            ),
            limits=ANY_IS_BAD,
        ),
        number(
            "No consumer",
            "Queues with ready messages and no consumer. Start the consumer, or empty the queue if it is one of dead letters.",
            units.Short,
            Query(count_where(f"{READY} > 0 and {CONSUMERS} == 0", CONSUMERS), ""),
            limits=ANY_IS_SUSPICIOUS,
        ),
        number(
            "Unroutable messages",
            "Messages per second that no queue took: they are lost, or returned to the publisher. Check bindings and routing keys.",
            units.MessagesPerSecond,
            Query(f"sum({lost})", ""),
            limits=((None, GREEN), (0.001, RED)),
        ),
        number(
            "Hidden queues",
            "Queues that the exporter's user has no permission to see. Give it permissions (`'^$' '^$' '^$'`) in each virtual host.",
            units.Short,
            Query(f"sum({broker('rabbitmq_permission_gap')})", ""),
            limits=ANY_IS_SUSPICIOUS,
        ),
    ]


def _queues() -> Panel:
    return rows(
        "Queues",
        "One row for each queue, the one with the most ready messages first. Capacity below 100 % with ready messages: the consumers"
        " are too slow, or their prefetch count is too small. Auto ack: what these consumers have not processed is not visible.",
        QUEUE,
        [
            Column("Ready", READY),
            Column("Unacknowledged", per(one("rabbitmq_queue_messages_unacked"))),
            Column("Consumers", CONSUMERS, units.Short, ((None, RED), (1, GREY))),
            Column(
                "Auto ack",
                per(one("rabbitmq_queue_consumers_auto_ack")),
                units.Short,
                ((None, GREY), (1, ORANGE)),
            ),
            Column(
                "Capacity",
                per(one("rabbitmq_queue_consumer_capacity")),
                units.PercentUnit,
                ((None, ORANGE), (0.9, GREEN)),
            ),
            Column("Published", PUBLISHED, units.MessagesPerSecond),
            Column("Delivered", DELIVERED, units.MessagesPerSecond),
            Column(
                "Redelivered",
                total("rabbitmq_queue_messages_redelivered_total"),
                units.MessagesPerSecond,
                ((None, GREY), (0.001, ORANGE)),
            ),
            Column("Size", per(one("rabbitmq_queue_messages_bytes")), units.BytesIEC),
        ],
        order="Ready",
        height=10,
    )


def _messages() -> list[Panel]:
    return [
        graph(
            "Ready messages",
            "Messages that wait for a consumer. If they grow, compare the rates of publishing and delivery.",
            units.Short,
            Query(largest(READY), NAME),
        ),
        graph(
            "Unacknowledged messages",
            "Messages that consumers have and did not acknowledge. At the prefetch limit the consumer is slow or hangs.",
            units.Short,
            Query(largest(per(one("rabbitmq_queue_messages_unacked"))), NAME),
        ),
        graph(
            "Published",
            "Messages published into each queue per second. At 0, look at the producers.",
            units.MessagesPerSecond,
            Query(largest(PUBLISHED), NAME),
        ),
        graph(
            "Delivered",
            "Messages delivered to consumers or fetched per second. Below the rate of publishing the queue grows.",
            units.MessagesPerSecond,
            Query(largest(DELIVERED), NAME),
        ),
    ]


def _consumers() -> list[Panel]:
    return [
        graph(
            "Consumers",
            "Attached consumers. A fall is a consumer that ended or lost its connection.",
            units.Short,
            Query(largest(CONSUMERS), NAME),
            width=8,
        ),
        graph(
            "Consumer capacity",
            "Share of time in which the queue could deliver at once. Below 100 %: add consumers, or raise their prefetch count.",
            units.PercentUnit,
            Query(f"bottomk(20, {per(one('rabbitmq_queue_consumer_capacity'))})", NAME),
            full=1,
            width=8,
        ),
        graph(
            "Acknowledged",
            "Messages that consumers acknowledged per second: the work that was done.",
            units.MessagesPerSecond,
            Query(largest(total("rabbitmq_queue_messages_acked_total")), NAME),
            width=8,
        ),
    ]


def _limits() -> list[Panel]:
    def share(used: str, limit: str) -> str:
        return f"{broker(used)} / {broker(limit)}"

    return [
        graph(
            "Memory of the limit",
            "Memory in use, as a share of the limit. At 100 % RabbitMQ blocks publishers: consume, or raise the limit.",
            units.PercentUnit,
            Query(
                share(
                    "rabbitmq_process_resident_memory_bytes", "rabbitmq_resident_memory_limit_bytes"
                ),
                NODE,
            ),
            limits=FULLNESS,
            width=8,
        ),
        graph(
            "Free disk space",
            "Free disk space, and the limit below which RabbitMQ blocks publishers.",
            units.BytesIEC,
            Query(broker("rabbitmq_disk_space_available_bytes"), f"{NODE} free"),
            Query(broker("rabbitmq_disk_space_available_limit_bytes"), f"{NODE} limit"),
            width=8,
        ),
        graph(
            "Other limits",
            "Open files and Erlang processes, as shares of their limits. At 100 % new connections are refused.",
            units.PercentUnit,
            Query(share("rabbitmq_process_open_fds", "rabbitmq_process_max_fds"), f"{NODE} files"),
            Query(
                share("rabbitmq_erlang_processes_used", "rabbitmq_erlang_processes_limit"),
                f"{NODE} processes",
            ),
            limits=FULLNESS,
            width=8,
        ),
    ]


def _nodes() -> list[Panel]:
    return [
        graph(
            "Run queue",
            "Erlang processes that wait for a CPU. More than the number of CPUs for minutes: the node is short of CPU.",
            units.Short,
            Query(broker("rabbitmq_erlang_scheduler_run_queue"), NODE),
            width=8,
        ),
        graph(
            "Nodes running",
            "1 for each running node of the cluster. At 0, look at the log of the node.",
            units.Short,
            Query(broker("rabbitmq_node_running"), NODE),
            full=1,
            width=8,
        ),
        graph(
            "Partitions",
            "Nodes that a node is partitioned from. Above 0 the cluster is split: repair the network, then restart one side.",
            units.Short,
            Query(broker("rabbitmq_node_partitions"), NODE),
            limits=ANY_IS_BAD,
            width=8,
        ),
    ]


def _clients() -> list[Panel]:
    return [
        graph(
            "Connections and channels",
            "Open connections and channels. A constant rise is a client that opens without closing.",
            units.Short,
            Query(
                by(("instance", "target"), broker("rabbitmq_connections"), "max"),
                "connections {{target}} {{instance}}",
            ),
            Query(
                by(("instance", "target"), broker("rabbitmq_channels"), "max"),
                "channels {{target}} {{instance}}",
            ),
        ),
        graph(
            "Connections opened",
            "Connections opened per second. A high rate is a client that connects for each message, or in a loop of failures.",
            units.CountsPerSecond,
            Query(broker.rate("rabbitmq_connections_opened_total"), NODE),
        ),
    ]
