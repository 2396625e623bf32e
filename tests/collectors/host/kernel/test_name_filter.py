from __future__ import annotations

import re

import pytest

from bts_collectors.host.kernel import name_filter
from bts_collectors.host.kernel.name_filter import Filter, check_exclusive


def test_search_not_match() -> None:
    """An expression is found anywhere in a name, as in the anchor, unless it is anchored."""
    assert [Filter(re.compile("th0"))(name) for name in ("eth0", "eth1")] == [True, False]


def test_include_and_exclude() -> None:
    """With both, a name is wanted that the first finds and the second does not."""
    wanted = Filter(re.compile("^eth"), re.compile("1$"))

    assert [wanted(name) for name in ("eth0", "eth1", "lo")] == [True, False, False]


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
    """A default excludes as long as neither expression is set; an empty `include` sets nothing."""
    wanted = Filter(
        None if include is None else re.compile(include),
        None if exclude is None else re.compile(exclude),
        re.compile("1$"),
    )

    assert [wanted(name) for name in NAMES] == expected


@pytest.mark.parametrize(("include", "exclude"), [("", "x"), ("x", ""), ("", "")])
def test_empty_is_not_exclusive(include: str, exclude: str) -> None:
    """An empty expression does not contradict the other one."""
    check_exclusive("device", re.compile(include), re.compile(exclude))


def test_exclusive() -> None:
    """Two expressions contradict each other, and the settings are named."""
    with pytest.raises(ValueError, match="a_include and a_exclude cannot be combined: keep one"):
        check_exclusive("a", re.compile("x"), re.compile("x"))


def test_memory_is_bounded() -> None:
    """However many names there were, few are remembered, and the verdicts stay right."""
    wanted = Filter(exclude=re.compile("7$"))

    verdicts = [wanted(f"veth{n}") for n in range(3 * name_filter._REMEMBERED)]
    assert verdicts == [n % 10 != 7 for n in range(3 * name_filter._REMEMBERED)]
    assert len(wanted._verdicts) <= name_filter._REMEMBERED
