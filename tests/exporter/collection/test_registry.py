from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from bts_exporter import Scrape
from bts_exporter.collection.registry import Registry
from bts_exporter.errors import PluginError
from bts_exporter.plugin import Collector
from bts_exporter.settings.loader import load
from bts_exporter.testing import collect
from stubs import SPOOLDIR, drop_in, install

#: A valid type of an installed package.
FINE = """\
from bts_exporter import Collector, gauge
class Fine(Collector):
    value = gauge("fine_value", "A value.")
    def collect(self, scrape):
        scrape.emit(self.value, 1)
COLLECTOR = Fine
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the path of the drop-in folder."""
    return tmp_path / "plugins"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a folder whose distributions are installed, until the test ends."""
    before = set(sys.modules)
    path = tmp_path / "site"
    path.mkdir()
    monkeypatch.syspath_prepend(path)
    yield path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(path)):
            del sys.modules[name]


def problem_with(registry: Registry, name: str) -> str:
    """Return why the type cannot be loaded."""
    with pytest.raises(PluginError) as caught:
        registry.load(name)
    return str(caught.value)


# Drop-in files


def test_example_of_the_design_as_a_file(folder: Path, tmp_path: Path) -> None:
    """The smallest plug-in is a file in a folder, as printed in the design, found by its class."""
    drop_in(folder, "spool")
    (tmp_path / "a.job").touch()
    (tmp_path / "b.txt").touch()

    registry = Registry(folder)
    cls = registry.load("spool")

    assert "spool" in registry.names()
    assert registry.source("spool") == str(folder / "spool.py")
    collector = cls(cls.Config(path=str(tmp_path), pattern="*.job"))  # type: ignore[call-arg]
    assert collect(collector) == {"spool_files": {(str(tmp_path),): 1}}


def test_folder_that_is_missing(tmp_path: Path) -> None:
    """The drop-in folder may be missing."""
    assert "spool" not in Registry(tmp_path / "missing").names()


def test_files_that_are_no_plugins(folder: Path) -> None:
    """Other files, names that begin with `_`, and cache folders are ignored."""
    for name in ("_helper", "__init__"):
        drop_in(folder, name)
    (folder / "README.txt").touch()
    (folder / "__pycache__").mkdir()

    assert {"_helper", "__init__", "README", "__pycache__"}.isdisjoint(Registry(folder).names())


def test_type_is_imported_only_when_asked_for(folder: Path, tmp_path: Path) -> None:
    """A drop-in file is executed once, when its type is first loaded."""
    mark = tmp_path / "imported"
    drop_in(folder, "noisy", f"import os\nos.mkdir({str(mark)!r})\n{FINE}")
    drop_in(folder, "spool")

    registry = Registry(folder)
    registry.load("spool")
    assert (sorted(set(registry.names()) & {"noisy", "spool"}), mark.exists()) == (
        ["noisy", "spool"],
        False,
    )
    types = [registry.load("noisy"), registry.load("noisy"), Registry(folder).load("noisy")]

    # The file creates this folder, and would fail if it were executed twice.
    assert mark.exists()
    assert len(set(types)) == 1


def test_settings_import_only_what_they_name(folder: Path, tmp_path: Path) -> None:
    """A type in the folder that the settings do not name is not imported."""
    mark = tmp_path / "imported"
    drop_in(folder, "noisy", f"import os\nos.mkdir({str(mark)!r})\n{FINE}")
    drop_in(folder, "quiet", FINE)
    (tmp_path / "c.yaml").write_text(f"plugins: {folder}\ncollectors: {{quiet: }}\n")

    settings = load(tmp_path / "c.yaml", Registry)

    assert [block.type_name for block in settings.blocks] == ["quiet"]
    assert not mark.exists()


def test_file_that_changed_is_loaded_anew(folder: Path) -> None:
    """A reload executes a changed file again; the type in use does not change."""
    drop_in(folder, "changing", FINE)
    before = Registry(folder).load("changing")
    drop_in(folder, "changing", FINE.replace("fine_value", "finer_value"))
    after = Registry(folder).load("changing")

    names = [[metric.name for metric in cls.declared()] for cls in (before, after)]
    assert names == [["fine_value"], ["finer_value"]]


def test_two_collectors_in_a_file(folder: Path) -> None:
    """A file with several collectors needs COLLECTOR."""
    path = drop_in(folder, "two", f"{SPOOLDIR}\nclass Other(SpoolDir): pass\n")

    assert problem_with(Registry(folder), "two") == (
        f"type two ({path}) is broken: {path} defines several collectors: "
        "one class with a collect method, or name it COLLECTOR"
    )


def test_two_collectors_of_which_one_is_named(folder: Path) -> None:
    """COLLECTOR selects one of several collectors."""
    drop_in(folder, "named", f"{SPOOLDIR}\nclass Other(SpoolDir): pass\nCOLLECTOR = Other\n")

    assert Registry(folder).load("named").__name__ == "Other"


def test_file_without_a_collector(folder: Path) -> None:
    """A file that only imports the base has no collector."""
    path = drop_in(folder, "none", "from bts_exporter import Collector\n")

    assert problem_with(Registry(folder), "none") == (
        f"type none ({path}) is broken: {path} defines no collector: "
        "one class with a collect method, or name it COLLECTOR"
    )


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def broken(:\n", "SyntaxError: invalid syntax (FILE:1)"),
        ("import not_installed_anywhere\n", "ModuleNotFoundError: No module named 'not_installed_anywhere' (FILE:1)"),
        ("import sys\nsys.exit(3)\n", "SystemExit: 3 (FILE:2)"),
        ("raise ValueError('at import')\n", "ValueError: at import (FILE:1)"),
        ("class Mute(Exception):\n    def __str__(self):\n        raise ValueError\nraise Mute\n", "Mute: an error whose text cannot be read (FILE:4)"),
        ("from bts_exporter import gauge\ngauge('no name', 'Help.')\n", "ValueError: 'no name' is not a metric name (FILE:2)"),
        ("value = 1\n\0", "SyntaxError: source code cannot contain null bytes (FILE:2)"),
        ("COLLECTOR = 5\n", "5 is neither a Collector nor a class with a collect method"),
        ("from bts_exporter import Collector\nclass C(Collector): pass\nCOLLECTOR = C\n", "C has no collect method (FILE:2)"),
        (f"{FINE}Fine.commands = {{'a': print}}\n", "Fine: declared must yield metrics, and commands hold a Command for each name (FILE:2)"),
        (f"{FINE}Fine.declared = classmethod(lambda cls: [5])\n", "Fine: declared must yield metrics, and commands hold a Command for each name (FILE:2)"),
        (f"{FINE}Fine.declared = classmethod(lambda cls: 1/0)\n", "ZeroDivisionError: division by zero (FILE:7)"),
        (f"{FINE}Fine.Config = dict\n", "Fine.Config must derive from CollectorConfig (FILE:2)"),
        (f"{FINE}Fine.Config = 5\n", "Fine.Config must derive from CollectorConfig (FILE:2)"),
        (
            f"{FINE}from bts_exporter import CollectorConfig\nclass C(CollectorConfig):\n    interval: int = 1\n    name: str = ''\nFine.Config = C\n",
            "Fine.Config: interval, name is reserved by the engine; choose another name (FILE:9)",
        ),
    ],
    ids=["syntax", "import", "exit", "raise", "mute", "metric", "null byte", "no class", "no collect", "commands", "declared", "declared raises", "dict", "number", "engine's keys"],
)  # fmt: skip
def test_broken_file(folder: Path, source: str, words: str) -> None:
    """A broken plug-in is an error with its type, origin and cause, and does not affect others."""
    path = drop_in(folder, "broken", source)
    drop_in(folder, "spool")
    registry = Registry(folder)

    expected = f"type broken ({path}) is broken: {words.replace('FILE', str(path))}"
    assert problem_with(registry, "broken") == expected
    assert problem_with(registry, "broken") == expected
    assert registry.load("spool").__name__ == "SpoolDir"


def test_file_that_is_interrupted(folder: Path) -> None:
    """Ctrl-C while a plug-in is imported ends the command, not the plug-in."""
    drop_in(folder, "slow", "raise KeyboardInterrupt\n")

    with pytest.raises(KeyboardInterrupt):
        Registry(folder).load("slow")


# Installed packages


def test_example_of_the_design_as_a_package(folder: Path, site: Path, tmp_path: Path) -> None:
    """The same file is a type when a distribution has an entry point for it."""
    install(site, "spool_package = spool_package:SpoolDir", SPOOLDIR)
    (tmp_path / "job").touch()

    registry = Registry(folder)
    cls = registry.load("spool_package")

    assert registry.source("spool_package") == "spool_package 1.2"
    collector = cls(cls.Config(path=str(tmp_path), pattern="job"))  # type: ignore[call-arg]
    assert collect(collector) == {"spool_files": {(str(tmp_path),): 1}}


def test_package_is_imported_only_when_asked_for(folder: Path, site: Path) -> None:
    """An installed type that is not configured costs no import."""
    install(site, "lazy_package = lazy_package:COLLECTOR", FINE)

    registry = Registry(folder)

    assert "lazy_package" in registry.names()
    assert "lazy_package" not in sys.modules
    registry.load("lazy_package")
    assert "lazy_package" in sys.modules


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (
            "import not_installed_anywhere\n",
            "ModuleNotFoundError: No module named 'not_installed_anywhere' (FILE:1)",
        ),
        ("raise SystemExit(1)\n", "SystemExit: 1 (FILE:1)"),
        ("", "AttributeError: module 'broken_package' has no attribute 'COLLECTOR'"),
        (
            "COLLECTOR = dict\n",
            "<class 'dict'> is neither a Collector nor a class with a collect method",
        ),
    ],
)
def test_broken_package(folder: Path, site: Path, source: str, words: str) -> None:
    """The error about a package that cannot be imported has its name and version."""
    install(site, "broken_package = broken_package:COLLECTOR", source, version="0.9")
    importlib.invalidate_caches()

    assert problem_with(Registry(folder), "broken_package") == (
        "type broken_package (broken_package 0.9) is broken: "
        + words.replace("FILE", str(site / "broken_package.py"))
    )


def test_name_that_two_provide(folder: Path, site: Path) -> None:
    """A type with two sources is an error that names both."""
    install(site, "twice = package_of_twice:COLLECTOR", FINE)
    path = drop_in(folder, "twice", FINE)

    registry = Registry(folder)

    assert problem_with(registry, "twice") == (
        f"type twice is provided by package_of_twice 1.2 and {path}: remove one of them"
    )


def test_own_collectors_take_the_same_road(folder: Path) -> None:
    """Our own collectors are found by the entry points of the installed distribution, like all others."""
    registry = Registry(folder)
    shipped = [
        name for name in registry.names() if registry.source(name).startswith("bts-exporter ")
    ]
    if not shipped:
        pytest.skip("bts-exporter is not installed")

    assert {"mqtt", "rabbitmq", "redis"} <= set(shipped)
    for name in shipped:
        cls = registry.load(name)
        assert issubclass(cls, Collector)
        assert cls.__module__.startswith(f"bts_collectors.{name}")


def test_type_that_builds_several(folder: Path) -> None:
    """A type may have no `collect` if its `build` returns other collectors."""
    source = f"""{FINE}
class Several(Collector):
    @classmethod
    def build(cls, config):
        return [Fine(config)]
COLLECTOR = Several
"""
    drop_in(folder, "several", source)
    cls = Registry(folder).load("several")

    [built] = cls.build(cls.Config())

    scrape = Scrape(monotonic() + 60)
    built.collect(scrape)
    assert [metric.name for metric in scrape.samples] == ["fine_value"]
