from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import msgspec
import pytest

from bts_exporter import CollectorConfig, Duration, Secret, Url
from bts_exporter.settings.schema import INVALID, Schema
from bts_exporter.settings.yaml_document import Document


class Inner(msgspec.Struct, frozen=True):
    """A block in a block."""

    host: str
    port: int = 1


class Pair(msgspec.Struct, frozen=True):
    """A block with its own check and a pattern."""

    low: int = 0
    high: int = 10
    pattern: str = ""

    def __post_init__(self) -> None:
        """Check the values."""
        if self.low > self.high:
            msg = f"low must not be above high, got {self.low} and {self.high}"
            raise ValueError(msg)
        re.compile(self.pattern)


class Even(int):
    """A setting type of a plug-in."""

    @classmethod
    def from_setting(cls, raw: object) -> Self:
        """Return the number; ValueError if it is odd, and another error if it is not a number."""
        number = {"two": 2, "three": 3}[str(raw)]
        if number % 2:
            msg = f"expected an even number, got {raw!r}"
            raise ValueError(msg)
        return cls(number)


#: Where `Even` raises a KeyError.
LINE_OF_DEFECT = inspect.getsourcelines(Even)[1] + 6


class Renamed(msgspec.Struct, rename={"from_": "from"}):
    """A block with a key that is a keyword of Python."""

    from_: str


class Everything(CollectorConfig, frozen=True):
    """A block with settings of every type."""

    text: str = ""
    number: int = 0
    ratio: float = 0.0
    flag: bool = False
    anything: Any = None
    maybe: int | None = None
    either: int | str | None = None
    level: Literal["low", "high"] = "low"
    names: tuple[str, ...] = ()
    numbers: list[int] = []  # noqa: RUF012  # msgspec copies it
    members: frozenset[str] = frozenset()
    table: dict[str, int] = {}  # noqa: RUF012  # as above
    inner: Inner | None = None
    inners: tuple[Inner, ...] = ()
    pair: Pair = Pair()
    wait: Duration = Duration(0)
    address: Url | None = None
    password: Secret | None = None
    pattern: re.Pattern[str] | None = None
    even: Even = Even(2)
    share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    code: Annotated[str, msgspec.Meta(max_length=1)] = ""
    some: Annotated[tuple[int, ...], msgspec.Meta(min_length=1, max_length=2)] = (1,)


def convert(text: str, kind: Any = Everything) -> tuple[Any, list[str]]:
    """Return the settings in `text` and the problems with them."""
    schema = Schema(Document("c.yaml", text))
    return schema.convert(schema.document.value, kind, ()), list(map(str, schema.problems))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("text: words", "words"),
        ("text: '5'", "5"),
        ("number: 5", 5),
        ("ratio: 5", 5.0),
        ("flag: yes", True),
        ("anything: {a: [1]}", {"a": [1]}),
        ("maybe: null", None),
        ("maybe:", None),
        ("maybe: 3", 3),
        ("either: 3", 3),
        ("either: three", "three"),
        ("either:", None),
        ("level: high", "high"),
        ("names: [a, b]", ("a", "b")),
        ("numbers: [1, 2]", [1, 2]),
        ("members: [a, a]", frozenset({"a"})),
        ("table: {a: 1}", {"a": 1}),
        ("inner: {host: h}", Inner("h", 1)),
        ("inners: [{host: h, port: 2}]", (Inner("h", 2),)),
        ("pair:", Pair()),
        ("pair: {low: 3}", Pair(3)),
        ("wait: 1m", Duration(60)),
        ("password: hunter2", Secret("hunter2")),
        ("pattern: ^a+$", re.compile("^a+$")),
        ("even: two", Even(2)),
        ("share: 0.5", 0.5),
    ],
)
def test_value_of_each_type(text: str, expected: object) -> None:
    """Plain values are converted to the type of the setting."""
    settings, problems = convert(text)

    assert problems == []
    key = text.partition(":")[0]
    assert getattr(settings, key) == expected
    assert type(getattr(settings, key)) is type(expected)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("text: 5", "c.yaml:1: text: expected str, got int (put it in quotes: '5')"),
        ("text: yes", "c.yaml:1: text: expected str, got bool (put it in quotes: 'True')"),
        ("text: [a]", "c.yaml:1: text: expected str, got a list"),
        ("text:", "c.yaml:1: text: expected str, got null"),
        ("number: five", "c.yaml:1: number: expected int, got str; write a number, without quotes or a unit"),
        ("number: 5.5", "c.yaml:1: number: expected int, got float"),
        ("ratio: half", "c.yaml:1: ratio: expected float, got str; write a number, without quotes or a unit"),
        ("flag: 1", "c.yaml:1: flag: expected bool, got int; write true or false, without quotes"),
        ("maybe: x", "c.yaml:1: maybe: expected int, got str; write a number, without quotes or a unit"),
        ("either: [1]", "c.yaml:1: either: expected int or str, got a list"),
        ("either: 0.5", "c.yaml:1: either: expected int or str, got float 0.5"),
        ("level: hi", "c.yaml:1: level: expected one of low, high, got 'hi'; did you mean high?"),
        ("level: 5", "c.yaml:1: level: expected one of low, high, got 5"),
        ("names: a", 'c.yaml:1: names: expected a list, got str; write it in brackets: ["a"]'),
        ("names: [a, 5]", "c.yaml:1: names[1]: expected str, got int (put it in quotes: '5')"),
        ("numbers:\n- 1\n- x", "c.yaml:3: numbers[1]: expected int, got str; write a number, without quotes or a unit"),
        ("members: [5]", "c.yaml:1: members[0]: expected str, got int (put it in quotes: '5')"),
        ("table: [a]", "c.yaml:1: table: expected a block of keys, got a list; write its keys without hyphens and brackets, key: value"),
        ("table:\n  a: x", "c.yaml:2: table.a: expected int, got str; write a number, without quotes or a unit"),
        ("inner: {}", "c.yaml:1: inner: host is missing"),
        ("inner: host", "c.yaml:1: inner: expected a block of keys, got str 'host'; write its keys below it, indented, or {key: value}"),
        ("inner: [host]", "c.yaml:1: inner: expected a block of keys, got a list; write its keys without hyphens and brackets, key: value"),
        ("inner:\n  host: h\n  prot: 1", "c.yaml:3: inner.prot: unknown key 'prot'; did you mean port?"),
        ("inner:\n  host: h\n  x: 1", "c.yaml:3: inner.x: unknown key 'x'; known: host, port"),
        ("inners:\n- {host: h}\n- {}", "c.yaml:3: inners[1]: host is missing"),
        ("pair: {low: 11}", "c.yaml:1: pair: low must not be above high, got 11 and 10"),
        ("pair: {pattern: (}", "c.yaml:1: pair: missing ), unterminated subpattern at position 0"),
        ("wait: soon", "c.yaml:1: wait: expected seconds or a duration such as 1m30s, got 'soon'"),
        ("address: host", "c.yaml:1: address: missing scheme, e.g. redis://; an address is scheme://host[:port]"),
        ("password: 271828", "c.yaml:1: password: expected a string, got int (put it in quotes)"),
        ("pattern: (", "c.yaml:1: pattern: not a regular expression: missing ), unterminated subpattern at position 0"),
        ("pattern: a{99999999999999999999}", "c.yaml:1: pattern: not a regular expression: the repetition number is too large"),
        ("pattern: 5", "c.yaml:1: pattern: expected a regular expression, got int 5"),
        ("even: three", "c.yaml:1: even: expected an even number, got 'three'"),
        ("even: five", f"c.yaml:1: even: KeyError: 'five' ({__file__}:{LINE_OF_DEFECT})"),
        ("share: 2", "c.yaml:1: share: must be at most 1, got 2"),
        ("share: -1", "c.yaml:1: share: must be at least 0, got -1"),
        ("code: ab", "c.yaml:1: code: must have at most 1 character, got 2"),
        ("some: []", "c.yaml:1: some: must have at least 1 entry, got 0"),
        ("some: [1, 2, 3]", "c.yaml:1: some: must have at most 2 entries, got 3"),
        ("txet: a", "c.yaml:1: txet: unknown key 'txet'; did you mean text?"),
        ("[1]", "c.yaml:1: expected a block of keys, got a list; write its keys without hyphens and brackets, key: value"),
        ("word", "c.yaml:1: expected a block of keys, got str 'word'; write its keys below it, indented, or {key: value}"),
    ],
    ids=lambda value: None if value.startswith("c.yaml") else value.replace("\n", " "),
)  # fmt: skip
def test_value_of_the_wrong_type(text: str, problem: str) -> None:
    """Each error has its location, what was expected and, if it is known, the fix."""
    settings, problems = convert(text)

    assert problems == [problem]
    assert settings is INVALID


def test_all_problems_at_once() -> None:
    """All errors are reported at once."""
    _, problems = convert("text: 5\nnames: [1, a, 2]\ninner: {}\ntxet: x\n")

    assert sorted(problems) == [
        "c.yaml:1: text: expected str, got int (put it in quotes: '5')",
        "c.yaml:2: names[0]: expected str, got int (put it in quotes: '1')",
        "c.yaml:2: names[2]: expected str, got int (put it in quotes: '2')",
        "c.yaml:3: inner: host is missing",
        "c.yaml:4: txet: unknown key 'txet'; did you mean text?",
    ]


def test_nothing_given() -> None:
    """An empty block has the defaults."""
    assert convert("") == (Everything(), [])


def test_missing_key_of_a_block_without_keys() -> None:
    """A setting without a default is required."""
    assert convert("", Inner) == (INVALID, ["c.yaml: host is missing"])


def test_key_with_another_name() -> None:
    """Renamed fields of a struct have the new name in the file."""
    assert convert("from: here", Renamed) == (Renamed("here"), [])
    assert convert("from_: here", Renamed)[1] == [
        "c.yaml:1: from_: unknown key 'from_'; did you mean from?",
        "c.yaml:1: from is missing",
    ]


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("text", "5", "5"),
        ("number", "5", 5),
        ("ratio", "0.5", 0.5),
        ("flag", "true", True),
        ("wait", "30", Duration(30)),
        ("wait", "1m", Duration(60)),
        ("maybe", "7", 7),
        ("level", "high", "high"),
        ("password", "12345", Secret("12345")),
        ("anything", "5", "5"),
    ],
)
def test_value_from_the_environment(
    key: str, value: str, expected: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values from the environment are texts, and are converted for settings that are numbers."""
    monkeypatch.setenv("STUB_VALUE", value)

    settings, problems = convert(f"{key}: !env STUB_VALUE")

    assert problems == []
    assert getattr(settings, key) == expected


@pytest.mark.parametrize(
    "key",
    ["number", "ratio", "flag", "level", "names", "table", "inner", "wait", "address", "pattern"],
)
def test_secret_in_the_wrong_place_is_not_shown(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No message quotes a value from the environment."""
    monkeypatch.setenv("STUB_VALUE", "hunter2(")

    _, [problem] = convert(f"{key}: !env STUB_VALUE")

    assert "hunter2" not in problem


def test_error_of_an_authors_own_check_that_cannot_say_what_it_is() -> None:
    """An exception in a plug-in's own check is a problem with its location."""

    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    class Defect(msgspec.Struct):
        def __post_init__(self) -> None:
            raise MuteError

    settings, [problem] = convert("", Defect)
    assert settings is INVALID
    assert problem.startswith(f"c.yaml: MuteError: an error whose text cannot be read ({__file__}:")


def test_path_is_relative_to_the_settings() -> None:
    """A setting of type Path is joined to the folder of the file, as every path in it."""

    class Paths(msgspec.Struct):
        absolute: Path
        relative: Path | None

    document = Document("/etc/bts/c.yaml", "{absolute: /x, relative: y/z}")
    schema = Schema(document)

    assert schema.convert(document.value, Paths, ()) == Paths(Path("/x"), Path("/etc/bts/y/z"))
    assert schema.problems == []


def test_tuple_of_a_fixed_length() -> None:
    """Each value of a tuple has its own type, and their number counts."""

    class Pairs(msgspec.Struct):
        pair: tuple[str, Duration]

    assert convert("pair: [a, 1m]", Pairs) == (Pairs(("a", Duration(60))), [])
    assert convert("pair: [a]", Pairs)[1] == ["c.yaml:1: pair: expected a list of 2 values, got 1"]
    assert convert("pair: [a, b]", Pairs)[1] == [
        "c.yaml:1: pair[1]: expected seconds or a duration such as 1m30s, got 'b'"
    ]
