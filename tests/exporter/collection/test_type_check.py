"""The contract of collector types: API versions, and attributes that the class must have."""

from __future__ import annotations

import logging
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import bts_exporter
from bts_exporter.collection import type_check
from bts_exporter.collection.registry import Registry
from bts_exporter.errors import PluginError
from stubs import QUIET, drop_in, environment

NEEDING = QUIET.replace("    value", "    requires_api = {needed!r}\n    value", 1)


def problem_with(folder: Path, source: str) -> str:
    """Return why the plug-in cannot be loaded; empty if it can."""
    path = drop_in(folder, "quiet", source)
    try:
        Registry(folder).load("quiet")
    except PluginError as error:
        return str(error).removeprefix(f"type quiet ({path}) is broken: ")
    return ""


@pytest.mark.parametrize("needed", ["", "2.0", "2.2", "2.3"])
def test_api_version_that_is_there(
    needed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A type works with the version that it names and later ones with the same first number."""
    monkeypatch.setattr(type_check, "API_VERSION", "2.3")

    assert problem_with(tmp_path, NEEDING.format(needed=needed)) == ""


@pytest.mark.parametrize(
    ("needed", "problem"),
    [
        ("2.4", "Quiet needs plug-in API 2.4, and this bts-exporter has 2.3: install a newer bts-exporter"),
        ("2.10", "Quiet needs plug-in API 2.10, and this bts-exporter has 2.3: install a newer bts-exporter"),
        ("3.0", "Quiet needs plug-in API 3.0, and this bts-exporter has 2.3: install a newer bts-exporter"),
        ("1.9", "Quiet needs plug-in API 1.9, and this bts-exporter has 2.3: parts of the older API are gone: install a newer version of the plug-in"),
        ("2", "Quiet.requires_api must be a text such as \"2.3\", got '2'"),
        (2.3, 'Quiet.requires_api must be a text such as "2.3", got 2.3'),
    ],
)  # fmt: skip
def test_api_version_that_is_not_there(
    needed: object, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error has both versions, what to install, and the line of the class."""
    monkeypatch.setattr(type_check, "API_VERSION", "2.3")

    assert problem_with(tmp_path, NEEDING.format(needed=needed)) == (
        f"{problem} ({tmp_path}/quiet.py:3)"
    )


def test_name_that_this_version_does_not_have(tmp_path: Path) -> None:
    """An import of what another version has says which version this is."""
    problem = problem_with(tmp_path, "from bts_exporter import Teapot\n")

    assert problem.startswith("ImportError: cannot import name 'Teapot' from 'bts_exporter'")
    assert problem.endswith(
        f"({tmp_path}/quiet.py:1); this bts-exporter has API version {bts_exporter.API_VERSION}: "
        "the plug-in may need another one"
    )


def test_limit_of_series_that_is_no_number(tmp_path: Path) -> None:
    """An attribute of the class with a wrong type is found when the type is loaded."""
    source = QUIET.replace("    value", "    default_max_series = '100'\n    value", 1)

    assert problem_with(tmp_path, source) == (
        f"Quiet.default_max_series must be a whole number above 0 ({tmp_path}/quiet.py:3)"
    )


def test_former_name_warns_once_for_each_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A plug-in with a former name works; the log has its line once, and Python's warning too."""
    for name in ("one", "two"):
        drop_in(tmp_path, name, f"from bts_exporter import NothingToRead\n{QUIET}")
    registry = Registry(tmp_path)

    with (
        caplog.at_level(logging.WARNING, "bts_exporter"),
        warnings.catch_warnings(record=True) as found,
    ):
        warnings.simplefilter("always")
        for name in ("one", "two", "one"):
            registry.load(name)
        drop_in(tmp_path, "one", f"\nfrom bts_exporter import NothingToRead\n{QUIET}")
        Registry(tmp_path).load("one")

    message = (
        "bts_exporter.NothingToRead is deprecated, and will be removed with API 2.0: use NotPresent"
    )
    assert caplog.messages == [f"{tmp_path}/{name}.py:1: {message}" for name in ("one", "two")]
    assert [(str(w.message), w.category, w.lineno) for w in found] == [
        (message, DeprecationWarning, 1)
    ] * 2


def test_former_name_is_not_a_new_one() -> None:
    """The former name means the same class, is not exported any more, and others still do not exist."""
    code = (
        "import bts_exporter, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "assert bts_exporter.NothingToRead is bts_exporter.NotPresent\n"
        "assert 'NothingToRead' not in bts_exporter.__all__\n"
        "assert not hasattr(bts_exporter, 'nothing_to_read')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(),
        capture_output=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stderr.decode().count("is deprecated")) == (0, 1)


def test_api_of_the_test_kit() -> None:
    """The names of the test kit are exactly this list: plug-ins' tests use them."""
    from bts_exporter import testing  # noqa: PLC0415  # of this test only

    assert testing.__all__ == [
        "Collected",
        "ExporterProcess",
        "Golden",
        "Handler",
        "HttpServer",
        "Page",
        "Reply",
        "Request",
        "Running",
        "Sample",
        "Samples",
        "collect",
        "configured",
        "drop",
        "hang",
        "in_turn",
        "look",
        "naming_problems",
        "not_emitted",
        "raw",
        "reply",
        "restart",
        "run",
        "samples",
    ]
