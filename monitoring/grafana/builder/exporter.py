"""The exporter itself: whether its figures are complete and what it costs."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard, units
from grafana_foundation_sdk.models.common import BigValueTextMode

from grafana.builder.board import Section, assemble, instance, query_variable
from grafana.builder.panels import (
    ANY_IS_BAD,
    ANY_IS_SUSPICIOUS,
    GREEN,
    GREY,
    ORANGE,
    RED,
    YES,
    Panel,
    Query,
    graph,
    number,
    state,
)
from grafana.builder.promql import INSTANCE, Selection, by, count_where
from grafana.builder.tables import Column, rows

UID = "bts-exporter"
COLLECTOR = ("instance", "collector", "target")
NAME = "{{collector}} {{target}} {{instance}}"
ON_PAGE = "`/` of the exporter shows the error"

one = Selection((INSTANCE,))
collector = Selection((INSTANCE, 'collector=~"$collector"'))
#: Prometheus' own metrics of the scrapes of exporters, whatever their job is called.
EXPORTERS = f"on (instance, job) {one('bts_exporter_build_info')}"


def per(expr: str, operator: str = "max") -> str:
    """Return an expression by collector."""
    return by(COLLECTOR, expr, operator)


def make() -> dashboard.Dashboard:
    """Return the dashboard."""
    return assemble(
        UID,
        "Whether the figures on the other dashboards are complete, and what the exporter costs.",
        [
            instance("bts_exporter_build_info"),
            query_variable(
                "collector",
                "Collector",
                "Collectors, with the subsystems of the host.",
                'label_values(bts_exporter_collector_success{instance=~"$instance"}, collector)',
            ),
        ],
        [
            Section("At a glance", _summary()),
            Section("Collections", [_collectors(), *_collections()]),
            Section("Requests", _scrapes()),
            Section("Process", _process()),
        ],
    )


def _summary() -> list[Panel]:
    success = collector("bts_exporter_collector_success")
    dropped = collector.increase("bts_exporter_collector_series_dropped_total", "1h")
    timeouts = collector.increase("bts_exporter_collector_timeouts_total", "1h")
    reload = one("bts_exporter_config_last_reload_successful")
    return [
        number(
            "Failing collectors",
            f"Collectors whose last collection failed. {ON_PAGE}; the other collectors are not affected.",
            units.Short,
            Query(count_where(f"{success} == 0", success), ""),
            limits=ANY_IS_BAD,
        ),
        number(
            "Series dropped",
            "Samples of the last hour that exceeded `max_series`. Select fewer queues or topics, or raise the limit.",
            units.Short,
            Query(f"round(sum({dropped}))", ""),
            limits=ANY_IS_SUSPICIOUS,
        ),
        number(
            "Collections too slow",
            "Collections of the last hour that did not end before the deadline. Look for the slow one in the table below.",
            units.Short,
            Query(f"round(sum({timeouts}))", ""),
            limits=ANY_IS_SUSPICIOUS,
        ),
        state(
            "Last reload",
            "Whether the last reload of the settings succeeded. If not, the previous ones are still active:"
            " `bts-exporter check` shows the errors.",
            Query(reload, "{{instance}}"),
            {"0": ("failed", RED), "1": ("succeeded", GREEN)},
        ),
        number(
            "Optional targets absent",
            "Targets with `optional: true` that do not exist. If one should exist, start it and delete `optional`.",
            units.Short,
            Query(
                count_where(
                    f"{collector('bts_exporter_collector_supported')} == 0"
                    f" and {collector('bts_exporter_collector_optional')} == 1",
                    collector("bts_exporter_collector_supported"),
                ),
                "",
            ),
            limits=ANY_IS_SUSPICIOUS,
        ),
        number(
            "Version",
            "Versions of the exporter and of Python, and the number of exporters that run them. Several versions: an update is not complete.",
            units.Short,
            Query(
                by(("version", "python_version"), one("bts_exporter_build_info"), "count"),
                "{{version}}, Python {{python_version}}",
            ),
        ).text_mode(BigValueTextMode.VALUE_AND_NAME),
    ]


def _collectors() -> Panel:
    age = f"time() - {collector('bts_exporter_collector_last_success_timestamp_seconds')}"
    return rows(
        "Collectors",
        f"One row for each collector, the slowest first. One that fails: {ON_PAGE}. Not present: the machine does not have"
        " the source, which is not an error.",
        COLLECTOR,
        [
            Column(
                "Succeeds",
                per(collector("bts_exporter_collector_success"), "min"),
                texts=YES,
                missing="unknown",
                colored=True,
                width=90,
            ),
            Column(
                "Present",
                per(collector("bts_exporter_collector_supported")),
                texts={"0": ("no", GREY), "1": ("yes", GREEN)},
            ),
            Column(
                "Duration",
                per(collector("bts_exporter_collector_duration_seconds")),
                units.Seconds,
                ((None, GREY), (1, ORANGE), (5, RED)),
            ),
            Column("Series", per(collector("bts_exporter_collector_series"))),
            Column(
                "Dropped in 1 h",
                f"round({per(collector.increase('bts_exporter_collector_series_dropped_total', '1h'), 'sum')})",
                units.Short,
                ((None, GREY), (1, ORANGE)),
            ),
            Column(
                "Too slow in 1 h",
                f"round({per(collector.increase('bts_exporter_collector_timeouts_total', '1h'), 'sum')})",
                units.Short,
                ((None, GREY), (1, ORANGE)),
            ),
            Column(
                "Last success",
                per(age),
                units.DurationSeconds,
                ((None, GREY), (300, RED)),
                missing="never",
            ),
        ],
        order="Duration",
        height=10,
    )


def _collections() -> list[Panel]:
    duration = per(collector("bts_exporter_collector_duration_seconds"))
    return [
        graph(
            "Slowest collectors",
            "Duration of a collection, of the ten slowest. Near the timeout of the scrape (10 s by default) figures are lost.",
            units.Seconds,
            Query(f"topk(10, {duration})", NAME),
            limits=((None, GREEN), (1, ORANGE), (5, RED)),
        ),
        graph(
            "Largest collectors",
            "Series of a collection, of the ten largest. If one grows, exclude queues, topics or devices.",
            units.Short,
            Query(f"topk(10, {per(collector('bts_exporter_collector_series'))})", NAME),
        ),
    ]


def _scrapes() -> list[Panel]:
    refused = one.rate("bts_exporter_http_connections_refused_total")
    cut = one.rate("bts_exporter_http_connections_cut_total")
    return [
        graph(
            "Duration of scrapes",
            "Time that Prometheus needed to scrape the exporter. At scrape_timeout the scrape fails.",
            units.Seconds,
            Query(f"scrape_duration_seconds and {EXPORTERS}", "{{job}} {{instance}}"),
            width=8,
        ),
        graph(
            "Samples",
            "Samples in each scrape. A jump is a collector that got many more queues, topics or devices.",
            units.Short,
            Query(f"scrape_samples_scraped and {EXPORTERS}", "{{job}} {{instance}}"),
            width=8,
        ),
        graph(
            "Scrapes",
            "Scrapes answered, and refused because too many ran at once, per second. Several jobs may scrape the same exporter:"
            " then its figures count double in sums.",
            units.RequestsPerSecond,
            Query(one.rate("bts_exporter_scrapes_total"), "{{instance}} answered"),
            Query(one.rate("bts_exporter_scrapes_refused_total"), "{{instance}} refused"),
            width=8,
        ),
        graph(
            "Connections refused or cut",
            "HTTP connections per second that were refused, or closed because the client was too slow. Above 0: too many clients,"
            " or a slow network.",
            units.CountsPerSecond,
            Query(by(("instance", "reason"), refused), "{{instance}} refused: {{reason}}"),
            Query(by(("instance", "reason"), cut), "{{instance}} cut: {{reason}}"),
        ),
        graph(
            "Open connections",
            "Open HTTP connections. Prometheus keeps one.",
            units.Short,
            Query(one("bts_exporter_http_open_connections"), "{{instance}}"),
        ),
    ]


def _process() -> list[Panel]:
    files = f"{one('process_open_fds')} / {one('process_max_fds')} and {EXPORTERS}"
    return [
        graph(
            "CPU",
            "CPUs that the exporter uses. More than a tenth: scrape less often, or look for the slowest collector.",
            units.Short,
            Query(f"{one.rate('process_cpu_seconds_total')} and {EXPORTERS}", "{{instance}}"),
            width=8,
        ),
        graph(
            "Memory",
            "Resident memory of the exporter. A constant rise over days is a defect: please report it.",
            units.BytesIEC,
            Query(f"{one('process_resident_memory_bytes')} and {EXPORTERS}", "{{instance}}"),
            width=8,
        ),
        graph(
            "Open files",
            "Share of the limit of open files. At 100 % no target can be connected to.",
            units.PercentUnit,
            Query(files, "{{instance}}"),
            limits=((None, GREEN), (0.8, ORANGE), (0.9, RED)),
            width=8,
        ),
    ]
