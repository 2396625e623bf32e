"""The tables that `make collector-pages` writes: they are those of the declarations, and nothing is left out."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from bts_exporter.collection.registry import Registry
from bts_exporter.flags import build_parser
from bts_exporter.self_metrics import DECLARED
from bts_exporter.settings.field_types import keys_of
from bts_exporter.settings.loader import Common, TopLevel

DOCS = Path(__file__).parents[1] / "docs"
REGISTRY = Registry(Path("/nonexistent"))
TYPES = [name for name in REGISTRY.names() if REGISTRY.load(name).__module__.startswith("bts_collectors.")]  # fmt: skip


@pytest.fixture(scope="module")
def writer() -> ModuleType:
    """Return the program that writes the pages."""
    spec = importlib.util.spec_from_file_location("collector_pages", DOCS / "collector_pages.py")
    assert spec is not None
    assert spec.loader is not None
    made = sys.modules["collector_pages"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def flags(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield the names of all flags and commands."""
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                yield name
                yield from flags(command)


def test_pages_are_those_of_the_declarations(writer: ModuleType) -> None:
    """Each page is what `make collector-pages` writes now."""
    stale = [path for path, text in writer.pages(DOCS).items() if (DOCS / path).read_text() != text]

    assert stale == [], "run make collector-pages"


@pytest.mark.parametrize("name", TYPES)
def test_page_has_every_setting_and_metric(name: str) -> None:
    """The page of a collector has each of its settings, and each of its metrics."""
    page = (DOCS / "collectors" / f"{name}.md").read_text()
    cls = REGISTRY.load(name)
    settings, metrics = page.partition("## All settings")[2].split("## All metrics")

    assert [
        key.key for key in keys_of(cls.Config) or () if f"| `{key.key}` |" not in settings
    ] == []
    assert [each.name for each in cls.declared() if f"| `{each.name}` |" not in metrics] == []


def test_reference_has_every_key_metric_and_flag() -> None:
    """The reference has the keys of the file and of every collector, our own metrics, and all flags."""
    page = (DOCS / "reference.md").read_text()
    keys = [key.key for kind in (TopLevel, Common) for key in keys_of(kind) or ()]
    names = [*keys, *(metric.name for metric in DECLARED), *flags(build_parser())]

    assert [name for name in names if name not in {"-h", "--help"} and name not in page] == []


@pytest.mark.parametrize("name", [*TYPES, ""])
def test_every_setting_has_a_description(name: str, writer: ModuleType) -> None:
    """No cell of a description is empty."""
    kinds = [REGISTRY.load(name).Config] if name else [TopLevel, Common]

    assert [row[0] for kind in kinds for row in writer._rows(kind, "", ()) if not row[3]] == []


def test_page_of_a_new_collector(writer: ModuleType, tmp_path: Path) -> None:
    """A collector without a page gets one; text around the tables stays."""
    (tmp_path / "collectors").mkdir()
    written = writer.pages(tmp_path)[Path("collectors/relay.md")]
    (tmp_path / "collectors" / "relay.md").write_text(f"{written}\nMore.\n")

    assert written.startswith("# relay\n\nThe metrics that an application serves itself.\n")
    assert writer.pages(tmp_path)[Path("collectors/relay.md")] == f"{written}\nMore.\n"
