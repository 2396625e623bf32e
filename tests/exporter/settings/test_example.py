"""`bts-exporter config`: a commented example of the settings of each collector type."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bts_exporter import commands
from bts_exporter.collection.registry import Registry
from bts_exporter.errors import ExporterError
from bts_exporter.service import Options
from bts_exporter.settings.loader import COMMON_KEYS, Settings, load
from stubs import drop_in

TYPES = tuple(Registry(Path("/nonexistent")).names())

WITH_EVERYTHING = '''\
import re
from pathlib import Path
from typing import Literal
from bts_exporter import Collector, CollectorConfig, Duration, Secret, TLSConfig, Url

class Part(CollectorConfig, frozen=True):
    """A part of it."""
    size: int
    #: Why.
    note: str | None = None

class Everything(Collector):
    """Has a setting of each type."""
    class Config(CollectorConfig, frozen=True):
        path: str
        url: Url
        password: Secret
        count: int
        every: Duration
        pattern: re.Pattern[str]
        kind: Literal["a", "b"]
        names: tuple[str, ...]
        folder: Path
        main: Part
        #: The others, each of which
        #: has a size.
        others: tuple[Part, ...] = ()
        by_name: dict[str, Part] = {}
        tls: TLSConfig = TLSConfig()
        ratio: float = 0.5
        spool: Path = Path("/var/spool")
        states: frozenset[str] = frozenset({"new", "old"})
    def collect(self, scrape):
        pass
'''


def printed(capsys: pytest.CaptureFixture[str], type_name: str | None, config: Path) -> str:
    """Return what the command prints."""
    assert commands.config(Options(config_file=str(config)), type_name) == 0
    return capsys.readouterr().out


def loaded(text: str, folder: Path) -> Settings:
    """Return settings with this text."""
    file = folder / "example.yaml"
    file.write_text(f"plugins: {folder}/plugins\n{text}")
    return load(file, Registry)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return a settings file next to a folder with a plug-in."""
    drop_in(tmp_path / "plugins", "everything", WITH_EVERYTHING)
    path = tmp_path / "config.yaml"
    path.write_text(f"plugins: {tmp_path}/plugins\n")
    return path


@pytest.mark.parametrize("name", [*TYPES, "everything"])
def test_example_can_be_loaded(name: str, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The output is a settings file as it is, and has every key of the type."""
    text = printed(capsys, name, config)
    [block] = loaded(text, config.parent).blocks

    assert block.type_name == name
    keys = {*block.type.Config.__struct_fields__, *COMMON_KEYS}
    assert {*re.findall(r"^    #?(\w+):", text, re.MULTILINE)} == keys


#: Types with a required key.
REQUIRING = {"ml_service", "postgres", "relay"}


@pytest.mark.parametrize("name", [name for name in TYPES if name not in REQUIRING])
def test_defaults_are_those_of_the_type(
    name: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the # removed, keys that show their default change nothing; of types without required keys."""
    text = printed(capsys, name, config)
    lines = [line for line in text.splitlines() if "no default" not in line]
    given = re.compile(r"^    #(?=\w+: .*\S  # )")
    without = [given.sub("    ", line) for line in lines]
    [block] = loaded("\n".join(without), config.parent).blocks
    [unchanged] = loaded(f"collectors: {{{name}: }}\n", config.parent).blocks

    assert without != lines
    assert (block.config, block.common) == (unchanged.config, unchanged.common)


def test_all_types_are_one_file(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a type the output has the keys of the file and a block for each type."""
    drop_in(config.parent / "plugins", "broken", "1/0\n")
    text = printed(capsys, None, config)
    blocks = loaded(text, config.parent).blocks

    assert {block.type_name for block in blocks} == {*TYPES, "everything"}
    assert "#scrape_timeout: 9.5s" in text
    assert "# broken is broken: " in text


def test_comments_and_blocks_of_a_plugin(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Docstrings and comments explain keys; blocks by name and in lists are shown once."""
    text = printed(capsys, "everything", config)

    assert "  # Has a setting of each type.\n  everything:\n" in text
    assert "    folder: /PATH  # path, relative to the settings file; required\n" in text
    assert "    #spool: /var/spool  # path, relative to the settings file\n" in text
    assert "    #states: [new, old]  # list of: text\n" in text
    assert (
        "    # The others, each of which has a size.\n"
        "    #others:\n"
        "    #  - size: 1  # whole number; required\n"
        "    #    # Why.\n"
        "    #    note: TEXT  # text; no default\n"
        "    # A part of it.\n"
        "    #by_name:\n"
        "    #  NAME:\n"
        "    #    size: 1  # whole number; required\n"
    ) in text


def test_unknown_type(config: Path) -> None:
    """The error lists the types that exist."""
    with pytest.raises(ExporterError, match="no such collector type: radis; there are: everything"):
        commands.config(Options(config_file=str(config)), "radis")
