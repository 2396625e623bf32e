from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bts_collectors.host.subsystems.loadavg import Loadavg, parse
from bts_exporter import NotPresent, TargetError
from bts_exporter.testing import collect

Machine = Callable[[dict[str, str]], dict[str, Any]]


def test_averages(machine: Machine) -> None:
    """The three averages are node_load1, node_load5 and node_load15."""
    paths = machine({"proc/loadavg": "0.21 0.37 10.39 1/719 19737\n"})

    assert collect(Loadavg(Loadavg.Config(**paths))) == {
        "node_load1": {(): 0.21},
        "node_load5": {(): 0.37},
        "node_load15": {(): 10.39},
    }


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"0.21 0.37",
        b"0.21 0.37 1",
        b"a b c 1/2 3",
        b"nan 0 0 1/2 3",
        b"0 1e999 0 1/2 3",
        b"-1 0 0 1/2 3",
    ],
)
def test_no_averages(content: bytes) -> None:
    """Truncated content, words that are not numbers, and impossible loads raise ValueError."""
    with pytest.raises(ValueError, match=r"unexpected content|is empty|could not convert"):
        parse(content)


def test_error_names_the_file(machine: Machine) -> None:
    """The error for unreadable content has the path and the content."""
    paths = machine({"proc/loadavg": "garbage\n"})

    with pytest.raises(TargetError, match=r"/proc/loadavg: unexpected content: 'garbage\\n'"):
        collect(Loadavg(Loadavg.Config(**paths)))


def test_absent(machine: Machine) -> None:
    """Without /proc there is nothing to read."""
    with pytest.raises(NotPresent, match="/proc/loadavg is absent"):
        collect(Loadavg(Loadavg.Config(**machine({}))))
