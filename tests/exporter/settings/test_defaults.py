"""Defaults of settings that do not have the type that is declared for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from bts_exporter.collection.registry import Registry
from bts_exporter.errors import PluginError
from stubs import drop_in

#: A plug-in with the annotation and default of one key.
SOURCE = """\
import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NewType, Optional

import msgspec

from bts_exporter import Collector, CollectorConfig, Duration, Secret, TLSConfig, Url, gauge


class Level(enum.Enum):
    LOW = "low"


class Even(int):
    @classmethod
    def from_setting(cls, raw):
        return cls(raw)


class Inner(msgspec.Struct, frozen=True):
    every: Duration = {inner}


@dataclass
class Shard:
    wait: Duration = {shard}


class Row(NamedTuple):
    wait: Duration = {row}


Shards = NewType("Shards", list[Shard])


class Thing(Collector):
    class Config(CollectorConfig):
        # before: the key in question
        key: {key}

    value = gauge("thing_value", "A value.")

    def collect(self, scrape):
        scrape.emit(self.value, 1)
"""
LINE = SOURCE.splitlines().index("        key: {key}") + 1
LINES = {
    "Shard.wait": SOURCE.splitlines().index("    wait: Duration = {shard}") + 1,
    "Row.wait": SOURCE.splitlines().index("    wait: Duration = {row}") + 1,
}
LINE_OF_INNER = SOURCE.splitlines().index("    every: Duration = {inner}") + 1


def load(folder: Path, key: str, **inner: str) -> str:
    """Load the plug-in; return what is wrong with its defaults, without the place of the plug-in."""
    defaults = dict.fromkeys(("inner", "shard", "row"), "Duration(1)") | inner
    path = drop_in(folder, "thing", SOURCE.format(key=key, **defaults))
    try:
        Registry(folder).load("thing")
    except PluginError as error:
        return str(error).removeprefix(f"type thing ({path}) is broken: ")
    return ""


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ('Duration = "30s"', "str (expected Duration, such as Duration.from_setting(...))"),
        ("Duration = True", "bool (expected Duration)"),
        ('Duration | None = "30s"', "str (expected bts_exporter.settings.value_types.Duration | None, such as Duration.from_setting(...))"),
        ('Url = "http://127.0.0.1"', "str (expected Url, such as Url.from_setting(...))"),
        ('Secret = "hunter2"', "str (expected Secret, such as Secret.from_setting(...))"),
        ('Path = "/var/spool"', "str (expected Path, such as Path(...))"),
        ('re.Pattern[str] = "^a"', "str (expected re.Pattern[str], such as re.compile(...))"),
        ('Even = "2"', "str (expected Even, such as Even.from_setting(...))"),
        ("Even = 2", "int (expected Even)"),
        ('Level = "low"', "str (expected Level)"),
        ("str = 5", "int (expected str)"),
        ("str = None", "NoneType (expected str)"),
        ('int = "5"', "str (expected int, such as int(...))"),
        ("int = 5.5", "float (expected int)"),
        ("int = True", "bool (expected int)"),
        ('bool = "yes"', "str (expected bool)"),
        ('Literal["a", "b"] = "c"', "str (expected typing.Literal['a', 'b'])"),
        ('tuple[Duration, ...] = ("1s",)', "tuple (expected tuple[bts_exporter.settings.value_types.Duration, ...])"),
        ("tuple[str, ...] = []", "list (expected tuple[str, ...])"),
        ("tuple[int, str] = (1,)", "tuple (expected tuple[int, str])"),
        ('list[Url] = msgspec.field(default_factory=lambda: ["http://x"])', "list (expected list[bts_exporter.settings.value_types.Url])"),
        ('frozenset[Secret] = frozenset({"hunter2"})', "frozenset (expected frozenset[bts_exporter.settings.value_types.Secret])"),
        ('dict[str, Duration] = msgspec.field(default_factory=lambda: {"a": "1s"})', "dict (expected dict[str, bts_exporter.settings.value_types.Duration])"),
        ("Inner = TLSConfig()", "TLSConfig (expected Inner)"),
        ('TLSConfig = "ca.pem"', "str (expected TLSConfig, such as TLSConfig(...))"),
        ("Annotated[int, msgspec.Meta(gt=3)] = 2", "int (expected typing.Annotated[int, msgspec.Meta(gt=3)])"),
        ("Duration = msgspec.field(default_factory=lambda: '30s')", "str (expected Duration, such as Duration.from_setting(...))"),
    ],
)  # fmt: skip
def test_default_of_another_type(tmp_path: Path, key: str, words: str) -> None:
    """It is found when the type is loaded; the error has file and line of the key, and not the value."""
    problem = load(tmp_path, key)

    assert problem == (
        f"Thing.Config.key: its default is of type {words} ({tmp_path}/thing.py:{LINE})"
    )
    assert "hunter2" not in problem


@pytest.mark.parametrize(
    "key",
    [
        "str",
        "Any = object",
        "Duration = Duration(30)",
        "Duration = 30",
        "Duration | None = None",
        "Optional[Url] = None",
        'Url = Url.from_setting("http://x")',
        'Path = Path("/x")',
        're.Pattern[str] = re.compile("x")',
        "float = 1",
        "Even = Even(2)",
        "Level = Level.LOW",
        'Literal["a", 1] = 1',
        'tuple[str, ...] = ("a",)',
        'tuple[int, str] = (1, "a")',
        "list[Inner] = []",
        "dict[str, Inner] = {}",
        'Mapping[str, int] = msgspec.field(default_factory=lambda: {"a": 1})',
        "Inner = Inner()",
        "TLSConfig = TLSConfig()",
        "str | int = 5",
        "str | msgspec.UnsetType = msgspec.UNSET",
        "Annotated[int, msgspec.Meta(gt=3)] = 4",
    ],
)
def test_default_of_its_type(tmp_path: Path, key: str) -> None:
    """Defaults of the declared type are accepted, and a key needs none."""
    assert load(tmp_path, key) == ""


@pytest.mark.parametrize(
    "key",
    ["Inner = Inner()", "Inner", "list[Inner]", "dict[str, Inner] | None = None", "tuple[Inner, ...] = ()"],
)  # fmt: skip
def test_default_of_an_inner_block(tmp_path: Path, key: str) -> None:
    """The keys of blocks in the settings are checked too, however they are reached."""
    assert load(tmp_path, key, inner='"30s"') == (
        "Inner.every: its default is of type str "
        f"(expected Duration, such as Duration.from_setting(...)) ({tmp_path}/thing.py:{LINE_OF_INNER})"
    )


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("Shard = Shard()", "Shard.wait"),
        ("list[Shard]", "Shard.wait"),
        ("Shards", "Shard.wait"),
        ("Row = Row()", "Row.wait"),
        ("dict[str, tuple[Row, ...]]", "Row.wait"),
    ],
)
def test_default_of_other_kinds_of_blocks(tmp_path: Path, key: str, name: str) -> None:
    """Blocks that are dataclasses, and rows, are checked as structs are."""
    problem = load(tmp_path, key, shard='"30s"', row='"30s"')

    assert problem == (
        f"{name}: its default is of type str "
        f"(expected Duration, such as Duration.from_setting(...)) ({tmp_path}/thing.py:{LINES[name]})"
    )


def test_default_of_a_dataclass_that_cannot_be_made(tmp_path: Path) -> None:
    """A factory of a block that raises is an error of the plug-in, and no missing key of its user."""
    assert load(tmp_path, "list[Shard]", shard="field(default_factory=lambda: 1 // 0)") == (
        "Shard.wait: its default cannot be made: "
        f"ZeroDivisionError: integer division or modulo by zero ({tmp_path}/thing.py:{LINES['Shard.wait']})"
    )


def test_default_that_cannot_be_made(tmp_path: Path) -> None:
    """A factory that raises is an error of the plug-in."""
    assert load(tmp_path, "int = msgspec.field(default_factory=lambda: 1 // 0)") == (
        "Thing.Config.key: its default cannot be made: "
        f"ZeroDivisionError: integer division or modulo by zero ({tmp_path}/thing.py:{LINE})"
    )


def test_docstring_that_goes_on_at_the_margin(tmp_path: Path) -> None:
    """The place of an error in the class is known all the same."""
    source = SOURCE.replace(
        "        # before", '        """Settings.\n\nMore.\n"""\n        # before'
    )
    drop_in(tmp_path, "thing", source.format(key="str = 5", inner="1", shard="1", row="1"))

    with pytest.raises(PluginError, match=rf"\({tmp_path}/thing.py:{LINE + 4}\)"):
        Registry(tmp_path).load("thing")


def test_type_that_does_not_exist(tmp_path: Path) -> None:
    """A type that is not imported, as `from __future__ import annotations` permits, has a place too."""
    source = f"from __future__ import annotations\n{SOURCE.format(key='Duratoin', inner='1', shard='1', row='1')}"
    drop_in(tmp_path, "thing", source)

    with pytest.raises(
        PluginError,
        match=rf"NameError: name 'Duratoin' is not defined \({tmp_path}/thing.py:{LINE - 1}\)",
    ):
        Registry(tmp_path).load("thing")


def test_type_of_a_row_that_does_not_exist(tmp_path: Path) -> None:
    """The types of a row are read when the plug-in is loaded, too."""
    source = SOURCE.format(key="Row", inner="1", shard="1", row="1")
    drop_in(
        tmp_path,
        "thing",
        source.replace(
            "    wait: Duration = 1\n\n\nShards", "    wait: 'Duratoin' = 1\n\n\nShards"
        ),
    )

    with pytest.raises(PluginError, match=r"NameError: name 'Duratoin' is not defined \("):
        Registry(tmp_path).load("thing")
