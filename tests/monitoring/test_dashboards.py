"""The dashboards in monitoring/grafana, without a server. `make check` runs these tests."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard

from bts import metrics as bts_service
from grafana import recorded
from grafana.builder.__main__ import rendered, text
from grafana.builder.board import TITLES
from grafana.queries import DASHBOARDS, Query, load, panels, queries
from lint.metric_names import DeclaredMetrics, declared_metrics, undeclared_metrics
from servers import need

Board = dict[str, Any]
Panel = dict[str, Any]

BOARDS = {board["uid"]: board for board in load()}
#: Panels by dashboard and title, as failures name them.
PANELS = [
    pytest.param(panel, id=f"{board['uid']}: {panel['title']}")
    for board in BOARDS.values()
    for panel in panels(board)
    if panel["type"] != "row"
]
UNITS = {value for name, value in vars(units).items() if isinstance(value, str) and name[0] != "_"}
RULES = DASHBOARDS.parents[1] / "prometheus" / "rules"
#: Metrics of the BTS service; those of its training have no source that a variable selects.
OF_SERVICE = {metric["name"] for metric in bts_service.declared()}
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
#: Variables that Grafana has itself.
BUILT_IN = {"__rate_interval", "__interval", "__range", "__all", "__data", "__url_time_range"}

each_board = pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
each_panel = pytest.mark.parametrize("panel", PANELS)


@pytest.fixture(scope="module")
def declared() -> DeclaredMetrics:
    """Return the metrics that the exporter and Prometheus have."""
    return declared_metrics()


@pytest.mark.parametrize("path", rendered(), ids=lambda path: path.name)
def test_committed_file_is_what_the_code_makes(path: Path) -> None:
    """`make dashboards` changes nothing; a difference is shown line by line."""
    made = rendered()[path].splitlines()
    committed = path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    difference = list(difflib.unified_diff(committed, made, path.name, "make dashboards", n=1))
    assert difference == [], "\n".join(["run `make dashboards`", *difference[:40]])


def test_every_committed_dashboard_is_made_by_code() -> None:
    """No file is left of a dashboard that is not made any more."""
    assert set(DASHBOARDS.iterdir()) <= set(rendered())


def test_dashboards_are_those_that_the_links_know() -> None:
    """Uids and titles are the documented ones, each once."""
    assert {uid: board["title"] for uid, board in BOARDS.items()} == TITLES


@each_board
def test_dashboard_is_read_by_grafanas_builder(board: Board) -> None:
    """The builder's own types read the JSON, and write the same again."""
    register_default_plugins()

    read = Dashboard.from_json(board)

    assert text(read) == text(Dashboard.from_json(board))
    assert [panel["id"] for panel in board["panels"]] == [one.id_val for one in read.panels or ()]


@each_board
def test_every_metric_is_declared(board: Board, declared: DeclaredMetrics) -> None:
    """A query uses no metric that no collector declares; a failure names panel, expression and metric."""
    undeclared = {
        str(query): names
        for query in queries(board)
        if (names := undeclared_metrics(query.expr, declared))
    }

    assert undeclared == {}


@pytest.mark.live
def test_every_query_returns_data_from_recorded_series() -> None:
    """Each query has data where the series of a real Prometheus are; a failure names dashboard, panel and expression."""
    asked = [query for board in BOARDS.values() for query in queries(board)]
    series = recorded.SERIES.read_text(encoding="utf-8").splitlines()

    silent = recorded.without_data(need("promtool", "prometheus"), asked, series)

    assert [f"no data: {query}" for query in silent] == []


@pytest.mark.live
@pytest.mark.parametrize(
    "expr",
    ['redis_up{instance="nosuch"}', "redis_up == 0 and redis_up == 1", "node_nosuch_bytes", "sum("],
)
def test_query_without_data_is_found(expr: str) -> None:
    """A matcher, a condition or a metric without series is found, and so is what is not PromQL."""
    silent = Query("Redis", "panel 'Memory', query A", expr)
    answered = Query("Redis", "panel 'Keys', query A", "redis_up")

    found = recorded.without_data(
        need("promtool", "prometheus"), [silent, answered], ['redis_up{instance="a"}']
    )

    assert found == [silent]


@each_board
def test_panels_have_ids_of_their_own(board: Board) -> None:
    """No two panels of a dashboard share an id, or a title within a row."""
    counted = Counter(panel["id"] for panel in panels(board))

    assert [identifier for identifier, times in counted.items() if times > 1] == []


@each_board
def test_panels_do_not_overlap(board: Board) -> None:
    """No two panels share a cell of the grid, and none extends beyond it."""
    cells = {panel["title"]: set(_cells(panel)) for panel in board["panels"]}

    assert len(cells) == len(board["panels"]), "two panels have the same title"
    assert [pair for pair in combinations(cells, 2) if cells[pair[0]] & cells[pair[1]]] == []
    assert all(0 <= column < 24 for covered in cells.values() for column, _ in covered)


def _cells(panel: Panel) -> Iterator[tuple[int, int]]:
    place = panel["gridPos"]
    for column in range(place["x"], place["x"] + place["w"]):
        for line in range(place["y"], place["y"] + place["h"]):
            yield column, line


@each_board
def test_lines_of_panels_fill_the_width(board: Board) -> None:
    """Panels of one line have one height and no gap between them."""
    lines: dict[int, list[Panel]] = {}
    for panel in board["panels"]:
        lines.setdefault(panel["gridPos"]["y"], []).append(panel)

    uneven = {
        line: [panel["title"] for panel in found]
        for line, found in lines.items()
        if sum(panel["gridPos"]["w"] for panel in found) != 24
        or len({panel["gridPos"]["h"] for panel in found}) > 1
    }
    assert uneven == {}


@each_panel
def test_panel_says_what_it_shows_and_what_to_do(panel: Panel) -> None:
    """Each panel has a description of at least a sentence."""
    assert len(panel["description"].split()) >= 6
    assert panel["description"].rstrip("`").endswith((".", "?"))


@each_panel
def test_panel_has_units(panel: Panel) -> None:
    """Each panel and each column of a table has a unit that Grafana knows."""
    columns = [
        value["value"]
        for override in panel["fieldConfig"]["overrides"]
        for value in override["properties"]
        if value["id"] == "unit"
    ]
    if panel["type"] == "table":
        assert len(columns) == len(panel["targets"])

    assert {panel["fieldConfig"]["defaults"]["unit"], *columns} <= UNITS


@each_panel
def test_panel_has_thresholds_and_a_text_for_no_data(panel: Panel) -> None:
    """Values have colors, and a missing value looks different from 0."""
    defaults = panel["fieldConfig"]["defaults"]

    assert defaults["thresholds"]["steps"]
    assert defaults["noValue"] not in {"", "0"}


@each_panel
def test_panel_asks_the_chosen_data_source(panel: Panel) -> None:
    """Panel and queries use the variable of the data source, and each query has its own letter."""
    assert panel["datasource"] == DATASOURCE
    assert [target["datasource"] for target in panel["targets"]] == [DATASOURCE] * len(
        panel["targets"]
    )
    letters = [target["refId"] for target in panel["targets"]]
    assert letters == sorted(set(letters))


@each_panel
def test_graph_has_a_readable_legend(panel: Panel) -> None:
    """Each series of a graph is named by its labels, among them the exporter or the service: there may be several."""
    if panel["type"] != "timeseries":
        return

    sources = ("{{instance}}", "{{job}}")
    legends = [target["legendFormat"] for target in panel["targets"]]
    assert [one for one in legends if not any(source in one for source in sources)] == []
    assert panel["options"]["legend"]["displayMode"] == "table"


@each_panel
def test_table_is_sorted_with_the_largest_first(panel: Panel) -> None:
    """Tables are sorted by one of their columns, descending."""
    if panel["type"] != "table":
        return

    [order] = panel["options"]["sortBy"]
    titles = panel["transformations"][-1]["options"]["renameByName"].values()
    assert order["desc"]
    assert order["displayName"] in titles


@each_board
def test_dashboard_has_variables_for_data_source_and_instance(board: Board) -> None:
    """Data source and exporter can be chosen; every list allows several values and All."""
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}

    assert variables["datasource"]["type"] == "datasource"
    assert "instance" in variables
    for variable in variables.values():
        assert variable["description"]
        if variable["type"] == "query":
            assert variable["multi"], variable["name"]
            assert variable["includeAll"], variable["name"]
            assert variable["datasource"] == DATASOURCE


@each_board
def test_variables_are_defined(board: Board) -> None:
    """Queries and links use only variables of the dashboard or of Grafana."""
    named = {variable["name"] for variable in board["templating"]["list"]} | BUILT_IN

    used = set(re.findall(r"\$\{?([a-z_]\w+)", " ".join(_texts(board["panels"] + board["links"]))))
    assert used - named == set()


@each_board
def test_every_query_can_be_filtered_by_source(board: Board) -> None:
    """Every selector of a metric of ours has the matcher of the variable `instance`, or `service` for the BTS service's."""
    exprs = [target["expr"] for panel in panels(board) for target in panel.get("targets", ())]
    selector = r"\b((?:bts|node|rabbitmq|redis|mqtt|mosquitto|messaging|ml_service)_\w+)(?![\w(\"])(\{[^}]*\})?"

    assert [
        (name, expr)
        for expr in exprs
        for name, matchers in re.findall(selector, expr)
        if _source_matcher(name) not in matchers
    ] == []


def _source_matcher(metric: str) -> str:
    """Return the matcher that a selector of `metric` has; none for a training, which is neither of the two."""
    if metric.startswith("bts_training_"):
        return ""
    declared_name = re.sub(r"_(bucket|sum|count)$", "", metric)
    return 'job=~"$service"' if declared_name in OF_SERVICE else 'instance=~"$instance"'


def test_every_alert_of_the_service_has_a_panel() -> None:
    """The BTS service's dashboard names each alert in the description of a panel, and no other alert."""
    rules = yaml.safe_load((RULES / "bts.yml").read_text())
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    described = " ".join(
        panel["description"] for panel in panels(BOARDS["bts-service"]) if panel["type"] != "row"
    )

    assert set(re.findall(r"\bBts[A-Z]\w+", described)) == alerts


@each_board
def test_no_name_of_a_machine_is_fixed(board: Board) -> None:
    """No query selects one instance, address or port."""
    fixed = re.compile(r'(instance|node|job)="|\d+\.\d+\.\d+\.\d+|localhost|:\d{4}')

    assert [query for query in _texts(board["panels"]) if fixed.search(query)] == []


@each_board
def test_dashboards_link_to_each_other(board: Board) -> None:
    """Each dashboard links to all others, keeps the time, and no link leads nowhere."""
    linked = [link["url"].partition("?")[0] for link in board["links"]]
    inner = re.findall(r"/d/([^?\" ]+)", " ".join(_texts(board["panels"])))
    # The table of destinations opens the dashboard of the row's broker.
    kinds = ("rabbitmq", "redis", "mqtt")
    opened = {uid.replace("${__data.fields.system}", kind) for uid in inner for kind in kinds}

    assert linked == [f"/d/{uid}" for uid in TITLES if uid != board["uid"]]
    assert all(link["keepTime"] for link in board["links"])
    assert opened <= set(TITLES)


@each_board
def test_dashboard_refreshes_itself(board: Board) -> None:
    """Each dashboard refreshes every half minute, twice the interval of the scrapes, and has the common tag."""
    assert board["refresh"] == "30s"
    assert board["tags"] == ["bts-exporter"]


def test_unknown_lag_does_not_look_like_zero() -> None:
    """A destination without a lag has `unknown` in the table, and another state than one that is on time."""
    [table] = [p for p in panels(BOARDS["bts-pipeline"]) if p["title"] == "Destinations"]
    properties = {
        override["matcher"]["options"]: {one["id"]: one["value"] for one in override["properties"]}
        for override in table["fieldConfig"]["overrides"]
    }

    for column, missing in (("Lag", "unknown"), ("State", "lag unknown")):
        results = [
            mapping["options"]["result"]["text"]
            for mapping in properties[column]["mappings"]
            if mapping["type"] == "special"
        ]
        assert results == [missing]


def test_data_source_is_the_one_that_dashboards_choose() -> None:
    """The provisioned data source has a fixed uid and is the default, so that dashboards open without a click."""
    path = DASHBOARDS.parent / "provisioning" / "datasources" / "prometheus.yml"
    [source] = yaml.safe_load(path.read_text())["datasources"]

    assert source["uid"] == source["type"] == "prometheus"
    assert source["isDefault"]


def _texts(value: object) -> Iterator[str]:
    """Yield every text in JSON."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
