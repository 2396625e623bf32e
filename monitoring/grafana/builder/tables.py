"""Tables: one row for each combination of labels, one column for each query."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from grafana_foundation_sdk.builders import common as build_common
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import table
from grafana_foundation_sdk.models import common, dashboard, prometheus, units

from grafana.builder.panels import (
    DATASOURCE,
    GREY,
    Limits,
    Query,
    Texts,
    by_threshold,
    mappings,
    target,
    thresholds,
)
from grafana.builder.promql import fill


class Column(NamedTuple):
    """A column: the value of a query, or its label `label` if that is given.

    A colored column has its colors as background; it comes before the labels if it is the first.
    """

    title: str
    expr: str
    unit: str = units.Short
    limits: Limits = ((None, GREY),)
    texts: Texts | None = None
    missing: str = "-"
    label: str | None = None
    colored: bool = False
    width: int | None = None


def rows(  # noqa: PLR0913  # properties of a panel
    title: str,
    description: str,
    labels: Sequence[str],
    columns: Sequence[Column],
    *,
    order: str,
    link: str | None = None,
    height: int = 9,
    width: int = 24,
    empty: str = "no data",
) -> table.Panel:
    """Return a table, sorted by the column `order` with the largest first; `link` is the uid of a dashboard."""
    panel = (
        table.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .unit(units.Short)
        .thresholds(thresholds(((None, GREY),)))
        .color_scheme(by_threshold())
        .no_value(empty)
        .sort_by([build_common.TableSortByFieldState().display_name(order).desc(True)])
        .cell_height(common.TableCellHeight.SM)
        .filterable(True)
        .span(width)
        .height(height)
    )
    for number, column in enumerate(columns):
        query = target(Query(fill(labels, column.expr), ""), number)
        panel.with_target(query.instant().format(prometheus.PromQueryFormat.TABLE))
        panel.override_by_name(column.title, _properties(column))
    panel.with_transformation(dashboard.DataTransformerConfig(id_val="merge", options={}))
    panel.with_transformation(_arrangement(labels, columns))
    if link:
        url = (
            f"/d/{link}?${{datasource:queryparam}}"
            "&var-instance=${__data.fields.instance}&${__url_time_range}"
        )
        opens = build.DashboardLink("Open the dashboard of this row").url(url).build()
        panel.override_by_name(
            labels[0], [dashboard.DynamicConfigValue("links", [opens.to_json()])]
        )
    return panel


def _arrangement(
    labels: Sequence[str], columns: Sequence[Column]
) -> dashboard.DataTransformerConfig:
    """Return the order and the titles of the columns: the state first if there is one, then the labels."""
    letters = [chr(ord("A") + number) for number in range(len(columns))]
    values = ["Value" if len(columns) == 1 else f"Value #{letter}" for letter in letters]
    shown = [column.label or value for column, value in zip(columns, values, strict=True)]
    first = shown[:1] if columns[0].colored else []
    ordered = [*first, *labels, *shown[len(first) :]]
    hidden = ["Time", *(value for value in values if value not in shown)]
    return dashboard.DataTransformerConfig(
        id_val="organize",
        options={
            "excludeByName": dict.fromkeys(hidden, True),
            "indexByName": {name: index for index, name in enumerate(ordered)},
            "renameByName": {
                name: column.title for name, column in zip(shown, columns, strict=True)
            },
        },
    )


def _properties(column: Column) -> list[dashboard.DynamicConfigValue]:
    """Return how the cells of a column look."""
    basic = common.TableCellBackgroundDisplayMode.BASIC
    look = (
        common.TableColoredBackgroundCellOptions(mode=basic)
        if column.colored
        else common.TableColorTextCellOptions()
    )
    found: dict[str, object] = {
        "unit": column.unit,
        "thresholds": thresholds(column.limits).build().to_json(),
        "mappings": [each.to_json() for each in mappings(column.texts or {}, column.missing)],
        "custom.cellOptions": look.to_json(),
    }
    if column.width:
        found["custom.width"] = column.width
    return [dashboard.DynamicConfigValue(name, value) for name, value in found.items()]
