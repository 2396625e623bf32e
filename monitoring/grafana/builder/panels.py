"""Panels as all dashboards have them: a title, a description, a unit, readable legends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from grafana_foundation_sdk.builders import common as build_common
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import prometheus, stat, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common, dashboard, units

Panel = Builder[dashboard.Panel]

GREEN, ORANGE, RED, BLUE, GREY = "green", "orange", "red", "blue", "text"
#: Grey also as a background.
UNKNOWN = "#808080"
DATASOURCE = dashboard.DataSourceRef(type_val="prometheus", uid="${datasource}")

#: From which value on a panel has which color; the first has no lower bound.
Limits = Sequence[tuple[float | None, str]]
#: Value, and its text and color.
Texts = Mapping[str, tuple[str, str]]

NEUTRAL: Limits = ((None, BLUE),)
ANY_IS_BAD: Limits = ((None, GREEN), (1, RED))
ANY_IS_SUSPICIOUS: Limits = ((None, GREEN), (1, ORANGE))
FULLNESS: Limits = ((None, GREEN), (0.8, ORANGE), (0.9, RED))
UP: Texts = {"0": ("DOWN", RED), "1": ("up", GREEN)}
YES: Texts = {"0": ("no", RED), "1": ("yes", GREEN)}


class Query(NamedTuple):
    """A PromQL expression and the legend of its series."""

    expr: str
    legend: str


def thresholds(limits: Limits) -> build.ThresholdsConfig:
    """Return the colors of values."""
    steps = [dashboard.Threshold(value=value, color=color) for value, color in limits]
    return build.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(steps)


def by_threshold() -> build.FieldColor:
    """Return that values have the colors of their thresholds."""
    return build.FieldColor().mode(dashboard.FieldColorModeId.THRESHOLDS)


def mappings(texts: Texts, missing: str | None = None) -> list[dashboard.ValueMapping]:
    """Return the texts of values, and of a missing one."""
    found: list[dashboard.ValueMapping] = []
    if texts:
        results = {
            value: dashboard.ValueMappingResult(text=text, color=color, index=index)
            for index, (value, (text, color)) in enumerate(texts.items())
        }
        found.append(dashboard.ValueMap(options=results))
    if missing is not None:
        result = dashboard.ValueMappingResult(text=missing, color=UNKNOWN, index=len(texts))
        options = dashboard.DashboardSpecialValueMapOptions(
            match=dashboard.SpecialValueMatch.NULL_AND_NAN, result=result
        )
        found.append(dashboard.SpecialValueMap(options=options))
    return found


def target(query: Query, number: int) -> prometheus.Dataquery:
    """Return the query with the letter that `number` stands for."""
    return (
        prometheus.Dataquery()
        .expr(query.expr)
        .legend_format(query.legend)
        .ref_id(chr(ord("A") + number))
        .datasource(DATASOURCE)
    )


def graph(  # noqa: PLR0913  # properties of a panel
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    limits: Limits | None = None,
    stacked: bool = False,
    full: float | None = None,
    signed: bool = False,
    width: int = 12,
) -> timeseries.Panel:
    """Return a graph over time; `limits` are drawn as lines, `full` is the end of the axis.

    The axis begins at 0, unless values are `signed`.
    """
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .unit(unit)
        .line_width(1)
        .fill_opacity(30 if stacked else 8)
        .show_points(common.VisibilityMode.AUTO)
        .legend(_legend())
        .tooltip(_tooltip())
        .thresholds(thresholds(limits or NEUTRAL))
        .color_scheme(build.FieldColor().mode(dashboard.FieldColorModeId.PALETTE_CLASSIC))
        .no_value("no data")
        .span(width)
        .height(8)
    )
    if stacked:
        panel.stacking(build_common.StackingConfig().mode(common.StackingMode.NORMAL).group("A"))
    if not signed:
        panel.min(0)
    if full is not None:
        panel.max(full)
    if limits:
        style = build_common.GraphThresholdsStyleConfig()
        panel.thresholds_style(style.mode(common.GraphThresholdsStyleMode.DASHED))
    for number, query in enumerate(queries):
        panel.with_target(target(query, number).range())
    return panel


def number(  # noqa: PLR0913  # properties of a panel
    title: str,
    description: str,
    unit: str,
    query: Query,
    *,
    limits: Limits = NEUTRAL,
    texts: Texts | None = None,
    missing: str = "unknown",
    size: tuple[int, int] = (4, 4),
) -> stat.Panel:
    """Return the current values of a query, large; `missing` is shown if there is none."""
    shows_state = texts is not None or limits != NEUTRAL
    return (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .unit(unit)
        .thresholds(thresholds(limits))
        .color_scheme(by_threshold())
        .mappings(mappings(texts or {}, missing))
        .no_value(missing)
        .reduce_options(build_common.ReduceDataOptions().calcs(["lastNotNull"]))
        .graph_mode(common.BigValueGraphMode.NONE)
        .color_mode(
            common.BigValueColorMode.BACKGROUND if shows_state else common.BigValueColorMode.VALUE
        )
        .text_mode(common.BigValueTextMode.AUTO)
        .with_target(target(query, 0).instant())
        .span(size[0])
        .height(size[1])
    )


def state(
    title: str, description: str, query: Query, texts: Texts, size: tuple[int, int] = (4, 4)
) -> stat.Panel:
    """Return states as colored texts, one for each series."""
    panel = number(title, description, units.Short, query, texts=texts, size=size)
    return panel.text_mode(common.BigValueTextMode.VALUE_AND_NAME)


def _legend() -> build_common.VizLegendOptions:
    return (
        build_common.VizLegendOptions()
        .display_mode(common.LegendDisplayMode.TABLE)
        .placement(common.LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs(["lastNotNull", "max"])
        .sort_by("Last *")
        .sort_desc(True)
    )


def _tooltip() -> build_common.VizTooltipOptions:
    return (
        build_common.VizTooltipOptions()
        .mode(common.TooltipDisplayMode.MULTI)
        .sort(common.SortOrder.DESCENDING)
    )
