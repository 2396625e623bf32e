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

#: A plug-in with a key of every type that is permitted.
EVERY = (Path(__file__).parent / "every_type.py").read_text()
WITH_EVERYTHING = '''\
import datetime as dt
import re
from enum import Enum
from pathlib import Path
from typing import Literal, NamedTuple
from uuid import UUID
from bts_exporter import Collector, CollectorConfig, Duration, Secret, TLSConfig, Url

class Color(Enum):
    RED = "red"
    BLUE = "blue"

class Point(NamedTuple):
    x: int
    name: str

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
        day: dt.date
        moment: dt.datetime
        clock: dt.time
        period: dt.timedelta
        id: UUID
        content: bytes
        color: Color
        point: Point
        by_number: dict[int, bool]
        #: The others, each of which
        #: has a size.
        others: tuple[Part, ...] = ()
        by_name: dict[str, Part] = {}
        tls: TLSConfig = TLSConfig()
        ratio: float = 0.5
        spool: Path = Path("/var/spool")
        states: frozenset[str] = frozenset({"new", "old"})
        since: dt.date = dt.date(2026, 1, 31)
        colors: frozenset[Color] = frozenset(Color)
    def collect(self, scrape):
        pass
'''

#: A plug-in with defaults that YAML reads as something else unless they are written with care.
ODD = """\
from typing import Literal
from bts_exporter import Collector, CollectorConfig, Duration

class Odd(Collector):
    class Config(CollectorConfig, frozen=True):
        must: Literal["no", "yes"] = "no"
        mode: Literal["on", "off"] | None = "on"
        text: str = "null"
        names: tuple[str, ...] = ("y", "no", "a")
        most: float = float("inf")
        large: float = 1e20
        fortnight: Duration = Duration(1_209_600)
        moment: Duration = Duration(0.0001)
    def collect(self, scrape):
        pass
"""


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
    drop_in(tmp_path / "plugins", "every", EVERY)
    drop_in(tmp_path / "plugins", "odd", ODD)
    return path


@pytest.mark.parametrize("name", [*TYPES, "everything", "every", "odd"])
def test_example_can_be_loaded(name: str, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The output is a settings file as it is, and has every key of the type."""
    text = printed(capsys, name, config)
    [block] = loaded(text, config.parent).blocks

    assert block.type_name == name
    keys = {*block.type.Config.__struct_fields__, *COMMON_KEYS}
    assert {*re.findall(r"^    #?(\w+):", text, re.MULTILINE)} == keys


#: Types with a required key.
REQUIRING = {"ml_service", "postgres", "relay"}


@pytest.mark.parametrize("name", [*(name for name in TYPES if name not in REQUIRING), "odd"])
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

    assert {block.type_name for block in blocks} == {*TYPES, "everything", "every", "odd"}
    assert "#scrape_timeout: 9.5s" in text
    assert "# broken is broken: " in text


def test_comments_and_blocks_of_a_plugin(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Docstrings and comments explain keys; blocks by name and in lists are shown once."""
    text = printed(capsys, "everything", config)

    assert "  # Has a setting of each type.\n  everything:\n" in text
    assert "    folder: /PATH  # path, relative to the settings file; required\n" in text
    assert "    #spool: /var/spool  # path, relative to the settings file\n" in text
    assert "    #states: [new, old]  # list of: text\n" in text
    assert '    #since: "2026-01-31"  # date\n' in text
    assert "    #colors: [blue, red]  # list of: one of red, blue\n" in text
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


def test_blocks_that_are_told_apart_or_contain_themselves(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A block of a union has the key that says which one it is; one within itself is shown once."""
    text = printed(capsys, "every", config)

    assert "    #shape:\n    #  type: circle\n    #  radius: 1.0  # number; required\n" in text
    assert (
        "    #nodes:\n    #  - name: TEXT  # text; required\n    #    # The next ones.\n"
        "    #    children: []  # list of: a block that can contain itself\n"
    ) in text


def test_unknown_type(config: Path) -> None:
    """The error lists the types that exist."""
    with pytest.raises(
        ExporterError, match="no such collector type: radis; there are: every, everything"
    ):
        commands.config(Options(config_file=str(config)), "radis")
