from __future__ import annotations

import re

import pytest

from bts_exporter import NameFilter, name_filter


def test_search_not_match() -> None:
    """An expression matches anywhere in a name, as in node_exporter, unless it is anchored."""
    assert [NameFilter(re.compile("th0"))(name) for name in ("eth0", "eth1")] == [True, False]


def test_include_and_exclude() -> None:
    """With both, a name passes that the first matches and the second does not."""
    passes = NameFilter(re.compile("^eth"), re.compile("1$"))

    assert [passes(name) for name in ("eth0", "eth1", "lo")] == [True, False, False]


NAMES = ("sda", "sda1")


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        (None, None, [True, False]),
        ("", None, [True, False]),
        ("1$", None, [False, True]),
        (None, "^s", [False, False]),
        (None, "", [True, True]),
        ("", "", [True, True]),
    ],
)
def test_default(include: str | None, exclude: str | None, expected: list[bool]) -> None:
    """A default excludes if neither expression is set; an empty `include` counts as not set."""
    passes = NameFilter(
        None if include is None else re.compile(include),
        None if exclude is None else re.compile(exclude),
        re.compile("1$"),
    )

    assert [passes(name) for name in NAMES] == expected


@pytest.mark.parametrize(("include", "exclude"), [("", "x"), ("x", ""), ("", "")])
def test_empty_is_not_exclusive(include: str, exclude: str) -> None:
    """An empty expression does not conflict with the other one."""
    NameFilter.check_exclusive("device", re.compile(include), re.compile(exclude))


def test_exclusive() -> None:
    """Two expressions conflict, and the error names both settings."""
    with pytest.raises(ValueError, match="a_include and a_exclude cannot be combined: keep one"):
        NameFilter.check_exclusive("a", re.compile("x"), re.compile("x"))


def test_memory_is_bounded() -> None:
    """However many names there were, few verdicts are kept, and all are right."""
    passes = NameFilter(exclude=re.compile("7$"))

    verdicts = [passes(f"veth{n}") for n in range(3 * name_filter._REMEMBERED)]
    assert verdicts == [n % 10 != 7 for n in range(3 * name_filter._REMEMBERED)]
    assert len(passes._verdicts) <= name_filter._REMEMBERED


def test_without_expressions() -> None:
    """A filter that cannot reject a name is false, and keeps no verdicts."""
    passes = NameFilter(re.compile(""), re.compile(""))

    assert [passes(name) for name in NAMES] == [True, True]
    assert not passes
    assert passes._verdicts == {}
    assert NameFilter(exclude=re.compile("x"))
    assert NameFilter(re.compile("x"))
    assert NameFilter(default_exclude=re.compile("x"))
