"""Write the dashboards: `make dashboards`."""

from __future__ import annotations

import json
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana.builder import exporter, host, mqtt, pipeline, rabbitmq, redis, service
from grafana.builder.sketch import draw

ROOT = Path(__file__).parents[3]
DASHBOARDS = ROOT / "monitoring" / "grafana" / "dashboards"
SKETCH = ROOT / "docs" / "pipeline-dashboard.svg"


def rendered() -> dict[Path, str]:
    """Return every file that is made from the code, and its text."""
    made = {
        module.UID: module.make()
        for module in (pipeline, service, host, rabbitmq, redis, mqtt, exporter)
    }
    files = {
        DASHBOARDS / f"{uid.removeprefix('bts-')}.json": text(board) for uid, board in made.items()
    }
    return {**files, SKETCH: draw(json.loads(text(made[pipeline.UID])))}


def text(board: Dashboard) -> str:
    """Return a dashboard as JSON."""
    return JSONEncoder(sort_keys=True, indent=2, ensure_ascii=False).encode(board) + "\n"


def write() -> None:
    """Write the files, and delete dashboards that are not made any more."""
    files = rendered()
    DASHBOARDS.mkdir(exist_ok=True)
    for old in set(DASHBOARDS.glob("*.json")) - set(files):
        old.unlink()
    for path, content in files.items():
        path.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    write()
