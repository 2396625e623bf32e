"""The dashboards and Grafana's own types: @grafana/schema, checked by the TypeScript compiler."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from grafana.queries import load

SCHEMA = Path(__file__).parent / "grafana_schema"
OPTIONS = ("--strict", "--skipLibCheck", "--module", "esnext", "--moduleResolution", "bundler")

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the compiler and Grafana's types."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("not everywhere: npm is missing (https://nodejs.org)")
    folder = tmp_path_factory.mktemp("schema")
    shutil.copytree(SCHEMA, folder, dirs_exist_ok=True)
    argv = [npm, "install", "--no-audit", "--no-fund", "--loglevel=error", "--fetch-retries=1"]
    done = subprocess.run(
        argv, cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode:
        pytest.skip(f"not everywhere: npm cannot install the types: {done.stderr}")
    return folder


def complaints(project: Path, boards: dict[str, object]) -> list[str]:
    """Return what the compiler says about dashboards, a line for each error."""
    for name, board in boards.items():
        text = f"export const board = ({json.dumps(board, indent=2)}) satisfies Checked;"
        source = f'import type {{ Checked }} from "./checked";\n{text}\n'
        (project / f"{name}.ts").write_text(source)
    compiler = project / "node_modules" / ".bin" / "tsc"
    argv = [str(compiler), "--noEmit", *OPTIONS, *(f"{name}.ts" for name in boards)]
    done = subprocess.run(
        argv, cwd=project, capture_output=True, text=True, timeout=120, check=False, env=os.environ
    )
    return done.stdout.splitlines()


def test_dashboards_are_of_grafanas_types(project: Path) -> None:
    """Every field of every dashboard is one that Grafana knows, with a value of its type."""
    assert complaints(project, {board["uid"]: board for board in load()}) == []


@pytest.mark.parametrize(
    ("change", "culprit"),
    [({"refresh": 5}, "'number' is not assignable to type 'string'"), ({"pannels": []}, "pannels")],
    ids=["a value of another type", "an unknown field"],
)
def test_other_types_are_reported(project: Path, change: dict[str, object], culprit: str) -> None:
    """The check sees a wrong value and an unknown field, and names them."""
    board = {**load()[0], **change}

    assert any(culprit in line for line in complaints(project, {"changed": board}))
