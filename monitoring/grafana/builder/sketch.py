"""A sketch of a dashboard's layout, for its documentation: there is no Grafana where this is made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

COLUMN, LINE, HEAD = 40, 13, 44
NOTE = "Sketch of the layout, generated from the dashboard's JSON. Not a screenshot: there are no values."
STYLE = (
    "text{font:11px sans-serif;fill:#333}.title{font-weight:bold}.small{font-size:10px;fill:#666}"
    "rect{fill:#fff;stroke:#bbb}.row{fill:#eee;stroke:none}"
)


def draw(board: Mapping[str, Any]) -> str:
    """Return the panels of a dashboard as SVG, with their titles and the columns of tables."""
    panels = board["panels"]
    bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    width, height = 24 * COLUMN, bottom * LINE + HEAD
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        f"<title>{escape(board['title'])}: {escape(NOTE)}</title><style>{STYLE}</style>",
        f'<rect width="{width}" height="{height}"/>',
        _text(8, 18, f"{board['title']}: {board['description']}", "title"),
        _text(8, 36, NOTE, "small"),
        *(line for panel in panels for line in _panel(panel)),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _panel(panel: Mapping[str, Any]) -> Iterator[str]:
    place = panel["gridPos"]
    x, y = place["x"] * COLUMN + 2, place["y"] * LINE + HEAD
    width, height = place["w"] * COLUMN - 4, place["h"] * LINE - 2
    row = panel["type"] == "row"
    kind = ' class="row"' if row else ""
    yield f'<rect x="{x}" y="{y}" width="{width}" height="{height}"{kind}/>'
    yield _text(x + 6, y + (10 if row else 16), panel["title"], "title")
    if not row:
        shown = {"stat": "number", "timeseries": "graph"}.get(panel["type"], panel["type"])
        yield _text(x + 6, y + 31, shown, "small")
    if panel["type"] == "table":
        yield _text(x + 6, y + 50, " | ".join(columns(panel)), "")


def columns(panel: Mapping[str, Any]) -> list[str]:
    """Return the titles of a table's columns, in their order."""
    options = panel["transformations"][-1]["options"]
    order = sorted(options["indexByName"], key=options["indexByName"].__getitem__)
    return [options["renameByName"].get(name, name) for name in order]


def _text(x: int, y: int, content: str, kind: str) -> str:
    return f'<text x="{x}" y="{y}" class="{kind}">{escape(content)}</text>'
