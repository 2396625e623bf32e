"""CONTRIBUTING.md: its example works as it stands, and what it names exists."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from bts_exporter import Collector

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
COLLECTOR, TEST = re.findall(
    r"^\*\*\d\. [^\n]*\n\n```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE
)


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the example's collector, importable under the name that the text gives it."""
    name = "bts_collectors.spooldir"
    made = ModuleType(name)
    monkeypatch.setitem(sys.modules, name, made)
    exec(compile(COLLECTOR, f"CONTRIBUTING.md: {name}", "exec"), made.__dict__)
    return made


def test_example_is_a_collector(example: ModuleType) -> None:
    """The module ends with the class that the entry point asks for."""
    assert issubclass(example.COLLECTOR, Collector)


def test_examples_test_passes(example: ModuleType, tmp_path: Path) -> None:
    """The test that the text shows runs, and passes, with the collector that it shows."""
    names: dict[str, Callable[[Path], None]] = {}
    exec(compile(TEST, "CONTRIBUTING.md: test", "exec"), names)
    [test] = [function for name, function in names.items() if name.startswith("test_")]

    test(tmp_path)


def test_commands_are_those_of_the_makefile() -> None:
    """Every `make` command that the text names is one that the Makefile has."""
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))

    assert set(re.findall(r"`make ([a-z-]+)", TEXT)) <= targets


def test_links_lead_somewhere() -> None:
    """Every link to a file of the repository has its file."""
    links = re.findall(r"\]\(([^)#:]+)\)", TEXT)

    assert [link for link in links if not (ROOT / link).exists()] == []
