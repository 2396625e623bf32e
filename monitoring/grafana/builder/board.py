"""A dashboard from its variables and panels: what all of them have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common, dashboard

from grafana.builder.panels import DATASOURCE, Panel

TAG = "bts-exporter"
#: Dashboards by uid, in the order of the links between them.
TITLES = {
    "bts-pipeline": "Pipeline",
    "bts-service": "BTS service",
    "bts-host": "Host",
    "bts-rabbitmq": "RabbitMQ",
    "bts-redis": "Redis",
    "bts-mqtt": "MQTT",
    "bts-exporter": "Exporter",
}
#: What a link hands over to every dashboard.
SELECTED = "${datasource:queryparam}&${instance:queryparam}"
FIRING = 'ALERTS{alertstate="firing"}'


class Section(NamedTuple):
    """A row of the dashboard and the panels below it, which fill the width of 24 from left to right."""

    title: str
    panels: Sequence[Panel]


def query_variable(name: str, label: str, description: str, query: str) -> build.QueryVariable:
    """Return a variable with the values of a query; it selects everything at first."""
    return (
        build.QueryVariable(name)
        .label(label)
        .description(description)
        .datasource(DATASOURCE)
        .query(query)
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.NATURAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(dashboard.VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def instance(metric: str) -> build.QueryVariable:
    """Return the exporters that have `metric`."""
    return query_variable(
        "instance", "Exporter", "Exporters, by address.", f"label_values({metric}, instance)"
    )


def targets(metric: str) -> build.QueryVariable:
    """Return the names of the targets; one without a `name` in the settings is only in All.

    A query of label values has no answer if no target has a name, so that the names are taken from whole series.
    """
    return query_variable(
        "target",
        "Target",
        "Names in the exporter's settings. Targets without a name are part of All.",
        f'query_result({metric}{{instance=~"$instance"}})',
    ).regex('/target="([^"]+)"/')


def assemble(
    uid: str,
    description: str,
    variables: Sequence[Builder[dashboard.VariableModel]],
    sections: Sequence[Section],
) -> dashboard.Dashboard:
    """Return the dashboard; its panels are numbered in their order."""
    board = (
        build.Dashboard(TITLES[uid])
        .uid(uid)
        .description(description)
        .tags([TAG])
        .refresh("30s")
        .time("now-1h", "now")
        .timezone(common.TimeZoneBrowser)
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .editable()
        .variables([_datasource(), *variables])
        .annotations([])
        .links([_link(other) for other in TITLES if other != uid])
    )
    for section in sections:
        board.with_row(build.Row(section.title))
        for panel in section.panels:
            board.with_panel(panel)
    made = board.build()
    for variable in variables_of(made):
        # Only variables of intervals have these, and Grafana's schema knows them nowhere else.
        variable.auto = variable.auto_min = variable.auto_count = None
    for number, panel_or_row in enumerate(made.panels or [], start=1):
        panel_or_row.id_val = number
    return made


def variables_of(board: dashboard.Dashboard) -> list[dashboard.VariableModel]:
    """Return the variables of a dashboard."""
    return (board.templating and board.templating.list_val) or []


def _datasource() -> build.DatasourceVariable:
    return (
        build.DatasourceVariable("datasource")
        .label("Data source")
        .description("The Prometheus that scrapes the exporters.")
        .type("prometheus")
    )


def _link(uid: str) -> build.DashboardLink:
    return (
        build.DashboardLink(TITLES[uid])
        .type(dashboard.DashboardLinkType.LINK)
        .icon("dashboard")
        .tooltip(f"{TITLES[uid]}, with the same time and exporters")
        .url(f"/d/{uid}?{SELECTED}")
        .keep_time(True)
    )
