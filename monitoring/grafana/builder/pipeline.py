"""The home dashboard: is anything late, and which part of the pipeline is to blame."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard, units

from grafana.builder.board import FIRING, Section, assemble, instance, query_variable
from grafana.builder.panels import (
    ANY_IS_BAD,
    ANY_IS_SUSPICIOUS,
    FULLNESS,
    GREEN,
    GREY,
    ORANGE,
    RED,
    UNKNOWN,
    UP,
    Limits,
    Panel,
    Query,
    graph,
    number,
    state,
)
from grafana.builder.promql import INSTANCE, Selection, by, count_where, largest
from grafana.builder.tables import Column, rows

UID = "bts-pipeline"
#: What identifies a destination and its consumer group.
KEY = ("instance", "target", "system", "destination", "group")
LEGEND = "{{system}} {{destination}} {{group}} {{target}} {{instance}}"
LATE: Limits = ((None, GREEN), (60, ORANGE), (300, RED))
PRESSURE: Limits = ((None, GREEN), (0.2, ORANGE), (0.5, RED))
STATES = {
    "0": ("on time", GREEN),
    "1": ("LATE", RED),
    "2": ("no consumer", ORANGE),
    "3": ("lag unknown", UNKNOWN),
}
#: One more day is as bad as never.
DAY = 86400

one = Selection((INSTANCE, 'system=~"$system"', 'destination=~"$destination"'))
host = Selection((INSTANCE,))


def per(metric: str) -> str:
    """Return a metric of destinations by KEY."""
    return by(KEY, one(metric), "max")


def once(metric: str) -> str:
    """Return a metric of destinations in which each is one series, also if two replicas of an exporter report it."""
    return by(KEY, one.once(metric), "max")


LAG = per("messaging_lag_seconds")
BACKLOG = per("messaging_backlog_messages")
CONSUMERS = per("messaging_consumers")
DRAIN = per("messaging_drain_seconds")
ABANDONED = f"{BACKLOG} > 0 and {CONSUMERS} == 0"
#: To be counted.
LAG_ONCE, BACKLOG_ONCE, CONSUMERS_ONCE = map(
    once, ("messaging_lag_seconds", "messaging_backlog_messages", "messaging_consumers")
)
#: The rows of the table. Other series, such as those of a stream without its groups, would be rows without a state.
WAITING = f"({BACKLOG} or {LAG})"
RATE_OUT = by(KEY, one.rate("messaging_consumed_messages_total"))
#: Streams are published to once for all groups: the rate is repeated for each of them.
RATE_IN = (
    f"{BACKLOG} * 0 + on (instance, target, system, destination) group_left"
    f" {by(KEY[:-1], one.rate('messaging_published_messages_total'))}"
)
STATE = (
    f"({LAG} > $late) * 0 + 1"
    f" or ({ABANDONED}) * 0 + 2"
    f" or {LAG} * 0"
    f" or {BACKLOG} == 0"
    f" or {BACKLOG} * 0 + 3"
)
BROKERS = " or ".join(
    f"label_replace({by(('instance', 'target'), host(f'{system}_up'), 'min')},"
    f' "system", "{system}", "", "")'
    for system in ("rabbitmq", "redis", "mqtt")
)


def make() -> dashboard.Dashboard:
    """Return the dashboard."""
    return assemble(
        UID,
        "Is anything late, and is the machine, the middleware or the service to blame?",
        _variables(),
        [
            Section("Is anything late?", _summary()),
            Section("Each destination", [_destinations()]),
            Section("Hosts, brokers and service", [_hosts(), _brokers(), _scraped()]),
            Section("Over time: the 20 largest", _history()),
            Section("Alerts", [_alerts()]),
        ],
    )


def _variables() -> list[Builder[dashboard.VariableModel]]:
    late = [
        dashboard.VariableOption(text=text, value=value, selected=value == "300")
        for text, value in (("10 s", "10"), ("1 min", "60"), ("5 min", "300"), ("1 h", "3600"))
    ]
    return [
        instance("bts_exporter_build_info"),
        query_variable(
            "system",
            "System",
            "Kinds of brokers.",
            'label_values(messaging_backlog_messages{instance=~"$instance"}, system)',
        ),
        query_variable(
            "destination",
            "Destination",
            "Queues, streams and pipelines.",
            "label_values("
            'messaging_backlog_messages{instance=~"$instance",system=~"$system"}, destination)',
        ),
        query_variable(
            "job",
            "Scrape job",
            "Jobs of Prometheus whose targets are shown as up or down.",
            "label_values(up, job)",
        ),
        build.CustomVariable("late")
        .label("Late after")
        .description("Age of the oldest waiting message from which a destination is late.")
        .values(", ".join(f"{each.text} : {each.value}" for each in late))
        .options(late)
        .current(late[2]),
    ]


def _summary() -> list[Panel]:
    """Return the numbers at the top."""
    return [
        number(
            "Late destinations",
            "Destinations whose oldest waiting message is older than `Late after`."
            " If it is not 0, look for the state LATE in the table below.",
            units.Short,
            Query(count_where(f"{LAG_ONCE} > $late", LAG_ONCE), ""),
            limits=ANY_IS_BAD,
        ),
        number(
            "Longest lag",
            "Age of the oldest message that waits anywhere. If it rises as fast as the clock, a consumer has stopped;"
            " if slower, it is too slow.",
            units.Seconds,
            Query(f"max({LAG})", ""),
            limits=LATE,
        ),
        number(
            "No consumer",
            "Destinations with waiting messages and no consumer. Start the consumer,"
            " or empty the queue if it is one of dead letters.",
            units.Short,
            Query(count_where(f"{BACKLOG_ONCE} > 0 and {CONSUMERS_ONCE} == 0", CONSUMERS_ONCE), ""),
            limits=ANY_IS_SUSPICIOUS,
        ),
        number(
            "Lag unknown",
            "Destinations with waiting messages whose age is not known: they may be late."
            " Compare rate in and rate out. RabbitMQ needs its statistics, or timestamps of publishers.",
            units.Short,
            Query(count_where(f"{BACKLOG_ONCE} > 0 unless {LAG_ONCE}", BACKLOG_ONCE), ""),
            limits=ANY_IS_SUSPICIOUS,
        ),
        number(
            "Blind consumers",
            "RabbitMQ consumers with automatic acknowledgement: the broker pushes all messages to them, so that"
            " backlog and lag look like 0. Use manual acknowledgement with a prefetch count.",
            units.Short,
            Query(f"sum({host.once('rabbitmq_queue_consumers_auto_ack')})", ""),
            limits=ANY_IS_SUSPICIOUS,
        ),
        number(
            "Firing alerts",
            "Alerts that are firing now; the table at the end of this dashboard lists them."
            " It is also 0 if Prometheus has no rules.",
            units.Short,
            Query(f"count({FIRING}) or vector(0)", ""),
            limits=ANY_IS_BAD,
        ),
    ]


def _destinations() -> Panel:
    """Return the table of all queues, streams and pipelines."""
    return rows(
        "Destinations",
        "One row for each queue, stream and consumer group, or MQTT pipeline. A lag that is not known is shown as such:"
        " it is not 0. The way `lower bound` means that the message is at least so old. A time to drain of `never`"
        " means that nothing is consumed. Click on the exporter to open the dashboard of the broker.",
        KEY,
        [
            Column("State", STATE, texts=STATES, missing="lag unknown", colored=True, width=110),
            Column("Lag", LAG, units.Seconds, LATE, missing="unknown"),
            Column(
                "Known by",
                by((*KEY, "method"), one("messaging_lag_method_info"), "max"),
                label="method",
            ),
            Column("Backlog", BACKLOG, units.Short, missing="unknown"),
            Column("In flight", f"{per('messaging_in_flight_messages')} and {WAITING}"),
            Column(
                "Consumers", f"{CONSUMERS} and {WAITING}", units.Short, ((None, RED), (1, GREY))
            ),
            Column("Rate in", RATE_IN, units.MessagesPerSecond),
            Column("Rate out", RATE_OUT, units.MessagesPerSecond),
            Column(
                "Time to drain",
                DRAIN,
                units.Seconds,
                LATE,
                missing="unknown",
                texts={"Infinity": ("never", RED)},
            ),
        ],
        order="Lag",
        link="bts-${__data.fields.system}",
        height=10,
        empty="no destination has a backlog metric: check the exporter and its collectors",
    )


def _hosts() -> Panel:
    """Return the machines, the fullest first."""
    idle = host.rate("node_cpu_seconds_total", 'mode="idle"')
    space = f"{host('node_filesystem_avail_bytes')} / {host('node_filesystem_size_bytes')}"
    memory = f"{host('node_memory_MemAvailable_bytes')} / {host('node_memory_MemTotal_bytes')}"
    pressure = [
        Column(
            f"{title} wait",
            by(("instance",), host.rate(f"node_pressure_{resource}_waiting_seconds_total"), "max"),
            units.PercentUnit,
            PRESSURE,
        )
        for title, resource in (("CPU", "cpu"), ("I/O", "io"), ("Memory", "memory"))
    ]
    return rows(
        "Hosts",
        "Each machine: CPU in use, memory in use, the fullest file system, and the share of time in which tasks waited for"
        " a resource. If a wait is orange or red, that resource slows the pipeline down. Click on the exporter to open Host.",
        ("instance",),
        [
            Column("CPU", f"1 - {by(('instance',), idle, 'avg')}", units.PercentUnit, FULLNESS),
            Column(
                "Memory", f"1 - {by(('instance',), memory, 'min')}", units.PercentUnit, FULLNESS
            ),
            Column(
                "Fullest disk",
                f"1 - {by(('instance',), space, 'min')}",
                units.PercentUnit,
                FULLNESS,
            ),
            *pressure,
        ],
        order="CPU wait",
        link="bts-host",
        height=8,
        width=12,
    )


def _brokers() -> Panel:
    return state(
        "Brokers",
        "Whether each broker answers the exporter. If one is DOWN, the status page of the exporter (/) shows the reason.",
        Query(BROKERS, "{{system}} {{target}} {{instance}}"),
        UP,
        (6, 8),
    )


def _scraped() -> Panel:
    return state(
        "Service and exporters",
        "Whether Prometheus can scrape each of its targets: the exporters, the service, Prometheus."
        " If one is DOWN, check its process, then the network between the two.",
        Query('up{job=~"$job"}', "{{job}} {{instance}}"),
        UP,
        (6, 8),
    )


def _history() -> list[Panel]:
    """Return the three numbers of every hop, over time, of the 20 destinations with the largest."""
    return [
        graph(
            "Lag",
            "Age of the oldest waiting message. A gap means that it is not known.",
            units.Seconds,
            Query(largest(LAG), LEGEND),
            limits=LATE,
        ),
        graph(
            "Backlog",
            "Waiting messages. If it grows, compare rate in and rate out.",
            units.Short,
            Query(largest(BACKLOG), LEGEND),
        ),
        graph(
            "Rate in",
            "Messages published per second. If it fell to 0, look at the producers.",
            units.MessagesPerSecond,
            Query(
                largest(by(KEY[:-1], one.rate("messaging_published_messages_total"))),
                "{{system}} {{destination}} {{target}} {{instance}}",
            ),
        ),
        graph(
            "Rate out",
            "Messages consumed per second. If it is below the rate in, add consumers or make them faster.",
            units.MessagesPerSecond,
            Query(largest(RATE_OUT), LEGEND),
        ),
        graph(
            "Time to drain",
            "Backlog divided by the recent rate out. A day stands for a day or more, and for never.",
            units.Seconds,
            Query(largest(f"clamp_max({DRAIN}, {DAY})"), LEGEND),
            limits=LATE,
        ),
        graph(
            "In flight",
            "Messages that consumers have and did not acknowledge. If it stays at the prefetch limit, the consumers are slow"
            " or do not acknowledge.",
            units.Short,
            Query(largest(per("messaging_in_flight_messages")), LEGEND),
        ),
        *_limits(),
    ]


def _limits() -> list[Panel]:
    """Return how near destinations are to losing messages, and consumers to being disconnected."""
    return [
        graph(
            "Fill level",
            "Backlog as a share of the limit from which on messages are removed or rejected, of destinations that have one."
            " If it nears 100 %, start or add consumers, or raise the limit.",
            units.PercentUnit,
            Query(largest(f"{BACKLOG} / {per('messaging_limit_messages')}"), LEGEND),
            limits=FULLNESS,
        ),
        graph(
            "Held the longest",
            "Time for which a consumer has held a message without an acknowledgement. RabbitMQ disconnects the consumer"
            " at its consumer_timeout, 30 minutes by default. If it rises as fast as the clock, the consumer hangs.",
            units.Seconds,
            Query(largest(per("messaging_in_flight_oldest_seconds")), LEGEND),
        ),
    ]


def _alerts() -> Panel:
    labels = (
        "alertname",
        "severity",
        "instance",
        "broker",
        "target",
        "destination",
        "group",
        "collector",
    )
    return rows(
        "Which alerts fire",
        "Alerts that are firing, the latest first. Each has a runbook: its first lines say what to check.",
        labels,
        [
            Column(
                "Firing since",
                by(labels, f"1000 * ALERTS_FOR_STATE and ignoring (alertstate) {FIRING}", "max"),
                units.DateTimeFromNow,
            )
        ],
        order="Firing since",
        height=7,
        empty="no alert is firing",
    )
