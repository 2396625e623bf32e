"""The plug-ins in examples/plugins: small, documented, and written with the public API only."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import bts_exporter
from bts_exporter import Collector, CollectorConfig, Metric

ROOT = Path(__file__).parents[1]
PLUGINS = sorted(path.parent for path in (ROOT / "examples/plugins").glob("*/pyproject.toml"))
MAX_LINES = 150

every_plugin = pytest.mark.parametrize("folder", PLUGINS, ids=lambda folder: folder.name)


def module(folder: Path) -> Path:
    """Return the one module of a plug-in."""
    [found] = folder.glob(f"bts_exporter_{folder.name}/*.py")
    return found


def public_names(source: str) -> Iterator[str]:
    """Yield what a module takes from bts_exporter: `Scrape`, or a dotted name that is not public."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bts_exporter"):
            prefix = f"{node.module}."
            yield from (
                f"{prefix}{alias.name}".removeprefix("bts_exporter.") for alias in node.names
            )
        elif isinstance(node, ast.Import):
            names = (alias.name for alias in node.names if alias.name.startswith("bts_exporter."))
            yield from names
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "bts":
            yield node.attr


def collector(folder: Path) -> type[Collector]:
    """Return the collector of an installed plug-in, as the exporter finds it."""
    [point] = entry_points(group="bts_exporter.collectors", name=folder.name)
    loaded: type[Collector] = point.load()
    return loaded


def is_block(value: object) -> bool:
    """Return whether `value` is a type of settings of a plug-in."""
    return (
        isinstance(value, type)
        and issubclass(value, CollectorConfig)
        and value is not CollectorConfig
    )


def test_three_plugins_are_there() -> None:
    """The plug-ins that the page promises are those that are tested."""
    page = (ROOT / "docs/example-plugins.md").read_text()

    assert [folder.name for folder in PLUGINS] == ["kafka", "nats", "postgres"]
    assert all(f"(../examples/plugins/{folder.name}/README.md)" in page for folder in PLUGINS)


@every_plugin
def test_plugin_is_small(folder: Path) -> None:
    """The files of a plug-in have at most 150 lines together, as `wc -l` counts them; tests are not part of it."""
    files = [path for path in folder.rglob("*.py") if path.parent.name != "tests"]

    assert sum(path.read_text().count("\n") for path in files) <= MAX_LINES


@every_plugin
def test_plugin_uses_the_public_api_only(folder: Path) -> None:
    """What a plug-in takes from the exporter is what the exporter promises to authors."""
    assert set(public_names(module(folder).read_text())) <= set(bts_exporter.__all__)


@every_plugin
def test_project_names_its_collector(folder: Path) -> None:
    """The project's entry point is named as its folder, and it requires the exporter."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]

    assert list(project["entry-points"]["bts_exporter.collectors"]) == [folder.name]
    assert "bts-exporter" in project["dependencies"]
    assert issubclass(collector(folder), Collector)


@every_plugin
def test_readme_has_every_setting_and_metric(folder: Path) -> None:
    """The tables of the README have the settings and metrics that the code declares, and no others."""
    rows = re.findall(r"^\| (`.+?) \|", (folder / "README.md").read_text(), re.MULTILINE)
    documented = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    kind = collector(folder)
    blocks = [
        kind.Config,
        *(block for block in vars(sys.modules[kind.__module__]).values() if is_block(block)),
    ]
    settings = {key for block in blocks for key in block.__struct_fields__}

    assert documented == settings | {m.name for m in kind.declared() if isinstance(m, Metric)}


@every_plugin
def test_command_of_the_readme_finds_all_fixtures(folder: Path) -> None:
    """The tests of a plug-in can be run from its own folder, without the conftest.py of other tests."""
    readme = (folder / "README.md").read_text()
    assert f"\n$ make test ARGS=examples/plugins/{folder.name}\n" in readme
    assert "`../../../.venv/bin/pytest`" in readme

    argv = [Path(sys.executable).with_name("pytest"), "--setup-plan", "-p", "no:cacheprovider"]
    done = subprocess.run(
        argv, cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout
