"""A plug-in that cannot be used is on the status page and in the metrics, and the others are served."""

from __future__ import annotations

import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest

from servers.exporter import Exporter, StartExporter
from stubs import QUIET, drop_in, install

BINARY = Path(sys.executable).parent / "bts-exporter"
COLLECTOR = """\
from bts_exporter import Collector, gauge

class Mine(Collector):
    value = gauge("{name}_value", "A value.")
    def collect(self, scrape):
        scrape.emit(self.value, 1)
"""
#: Files of the plug-in folder, and what is wrong with them.
FILES = {
    "import_error": (
        "from bts_exporter import no_such_name\n",
        "ImportError: cannot import name 'no_such_name'",
    ),
    "syntax_error": ("class Mine(:\n    pass\n", "SyntaxError: "),
    "missing_package": (
        "import not_installed_anywhere\n",
        "ModuleNotFoundError: No module named 'not_installed_anywhere'",
    ),
    "exits": ("raise SystemExit(3)\n", "SystemExit: 3"),
    "constructor": (
        COLLECTOR.format(name="constructor")
        + "    def __init__(self, config):\n        self.table = {}['nothing']\n",
        "KeyError: 'nothing'",
    ),
    "builder": (
        COLLECTOR.format(name="builder")
        + "    @classmethod\n    def build(cls, config):\n        return [1]\n",
        "build returned int, expected a Collector",
    ),
    "same_metric": (
        COLLECTOR.format(name="good"),
        "metric good_value is one of good already",
    ),
    "our_metric": (
        COLLECTOR.format(name="x").replace("x_value", "bts_exporter_build_info"),
        "metric bts_exporter_build_info is one of the exporter itself already",
    ),
    "no_collector": ("value = 1\n", "defines no collector"),
    "reserved_key": (
        COLLECTOR.format(name="reserved_key").replace(
            "class Mine(Collector):",
            "from bts_exporter import CollectorConfig\n\nclass Mine(Collector):\n"
            "    class Config(CollectorConfig):\n        labels: str = ''",
        ),
        "labels is reserved by the engine",
    ),
    "newer_api": (
        COLLECTOR.format(name="newer_api") + '    requires_api = "99.0"\n',
        "needs plug-in API 99.0",
    ),
    "wrong_type": (
        COLLECTOR.format(name="wrong_type").replace(
            "class Mine(Collector):",
            "from dataclasses import dataclass\nfrom bts_exporter import CollectorConfig\n\n"
            "@dataclass\nclass Part:\n    size: 'Unknown'\n\n"
            "class Mine(Collector):\n    class Config(CollectorConfig):\n        part: Part = None",
        ),
        "name 'Unknown' is not defined",
    ),
    "twice": (COLLECTOR.format(name="twice"), "is provided by "),
}
#: Packages in the plug-in folder, and what is wrong with them.
FOLDERS = {
    "folder_import": ("from .reader import read\n", "No module named "),
    "folder_syntax": ("class Mine(:\n", "SyntaxError: "),
}
#: Installed packages, and what is wrong with them.
PACKAGES = {
    "package_import": ("import not_installed_either\n", "No module named 'not_installed_either'"),
    "package_syntax": ("def f(:\n", "SyntaxError: "),
    "package_empty": ("", "has no attribute 'COLLECTOR'"),
}
BROKEN = {name: why for name, (_, why) in {**FILES, **FOLDERS, **PACKAGES}.items()}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with settings, plug-ins, and installed packages in `site`."""
    folder = tmp_path_factory.mktemp("broken")
    (folder / "site").mkdir()
    for name, (source, _) in FILES.items():
        drop_in(folder / "plugins", name, source)
    for name, (source, _) in FOLDERS.items():
        drop_in(folder / "plugins" / name, "__init__", source)
    drop_in(folder / "plugins", "good", COLLECTOR.format(name="good"))
    for name, (source, _) in PACKAGES.items():
        install(folder / "site", f"{name} = of_{name}:COLLECTOR", source)
    install(folder / "site", "twice = of_twice:COLLECTOR", QUIET)
    blocks = "".join(f"  {name}:\n" for name in BROKEN)
    (folder / "config.yaml").write_text(
        f"plugins: {folder}/plugins\ncollectors:\n  good:\n{blocks}"
    )
    return folder


def test_broken_plugins_are_shown_and_the_others_served(
    place: Path, exporter: StartExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is a failing collector with its reason, in the metrics and on the status page."""
    monkeypatch.setenv("PYTHONPATH", str(place / "site"))
    process: Exporter = exporter((place / "config.yaml").read_text())

    found = process.samples()

    for name in BROKEN:
        of = {("collector", name), ("target", "")}
        assert found["bts_exporter_collector_success", frozenset(of)] == 0, name
        reason = frozenset({*of, ("reason", "unusable")})
        assert found["bts_exporter_collector_errors_total", reason] >= 1, name
    assert found["good_value", frozenset()] == 1
    _, page = process.get("/")
    rows = {
        name: unescape(row)
        for row in re.findall(r"<tr.*?</tr>", page, re.DOTALL)
        for name in re.findall(r"\?collector=(\w+)\"", row)
    }
    assert {name for name, why in BROKEN.items() if why not in rows[name]} == set()
    assert {name for name in BROKEN if "failing (unusable)" not in rows[name]} == set()


def test_commands_report_broken_plugins(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`check` names all of them with their line; `collectors` lists the others, and fails."""
    monkeypatch.setenv("PYTHONPATH", str(place / "site"))

    checked = run(place, "check")
    listed = run(place, "collectors", "-v")

    assert checked.returncode == listed.returncode == 1
    for line, (name, why) in enumerate(BROKEN.items(), 4):
        assert f"config.yaml:{line}: collectors.{name}: " in checked.stderr
        assert why in checked.stderr
    assert re.search(r"^good +\S+/good\.py", listed.stdout, re.MULTILINE)
    assert re.search(r"^syntax_error +BROKEN: .*SyntaxError", listed.stdout, re.MULTILINE)
    assert re.search(r"^package_import +BROKEN: .*\n +version 1\.2, of_package_import 1\.2", listed.stdout, re.MULTILINE)  # fmt: skip


def run(place: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    """Return what a command prints."""
    return subprocess.run(
        [BINARY, f"--config.file={place}/config.yaml", *argv],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
