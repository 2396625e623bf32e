from __future__ import annotations

import pytest

from bts_collectors.redis.queues.config import LibrarySettings, WantedNames


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (True, LibrarySettings()),
        (None, LibrarySettings()),
        ({}, LibrarySettings()),
        (False, LibrarySettings(on=False)),
        (["a", "b*"], LibrarySettings(names=("a", "b*"))),
        ([], LibrarySettings(names=())),
        ({"prefix": "app:"}, LibrarySettings(prefix="app:")),
        ({"names": ["a"], "prefix": ""}, LibrarySettings(names=("a",), prefix="")),
    ],
)
def test_ways_to_ask_for_queues(raw: object, expected: LibrarySettings) -> None:
    """A library can be enabled with its defaults, for some queues, or with another prefix."""
    assert LibrarySettings.from_setting(raw) == expected


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (5, "expected true, a list of names, or a block of names and prefix, got 5"),
        ("celery", "expected true, a list of names, or a block of names and prefix, got 'celery'"),
        ({"queues": []}, "unknown key 'queues'; known: names, prefix"),
        ([1], "names: expected strings, got 1 (put it in quotes)"),
        ({"names": "a"}, "names: expected a list, got 'a'"),
        ({"prefix": 1}, "prefix: expected a string, got 1 (put it in quotes)"),
    ],
)
def test_settings_that_are_off(raw: object, message: str) -> None:
    """An error in a setting names the expected value."""
    with pytest.raises(ValueError, match=r"expected|unknown") as caught:
        LibrarySettings.from_setting(raw)

    assert str(caught.value) == message


def test_libraries_without_a_prefix() -> None:
    """A library without a prefix has no such setting."""
    assert WantedNames.from_setting(["a"]) == WantedNames(names=("a",))
    with pytest.raises(ValueError, match="unknown key 'prefix'; known: names"):
        WantedNames.from_setting({"prefix": "a"})
