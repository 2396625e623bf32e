from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bts_collectors.host.subsystems.selinux import Selinux, parse
from bts_exporter import NotPresent, TargetError
from bts_exporter.testing import Samples, collect

Machine = Callable[[dict[str, str]], dict[str, Any]]


@pytest.fixture
def samples(machine: Machine) -> Callable[[dict[str, str]], Samples]:
    """Give a function that collects from files."""
    return lambda files: collect(Selinux(Selinux.Config(**machine(files))))


def test_on(samples: Callable[[dict[str, str]], Samples]) -> None:
    """With SELinux the current and the configured mode are served."""
    files = {
        "sys/fs/selinux/enforce": "1",
        "root/etc/selinux/config": "# comment\nSELINUXTYPE=targeted\nSELINUX = permissive\n",
    }

    assert samples(files) == {
        "node_selinux_enabled": {(): 1},
        "node_selinux_current_mode": {(): 1},
        "node_selinux_config_mode": {(): 0},
    }


def test_off(samples: Callable[[dict[str, str]], Samples]) -> None:
    """A Linux without SELinux has it disabled, as in node_exporter, and no mode."""
    assert samples({"sys/fs/cgroup/x": ""}) == {"node_selinux_enabled": {(): 0}}


def test_switched_off(samples: Callable[[dict[str, str]], Samples]) -> None:
    """SELinux that the settings disable has the configured mode -1."""
    files = {"sys/fs/cgroup/x": "", "root/etc/selinux/config": "SELINUX=disabled\n"}

    assert samples(files) == {
        "node_selinux_enabled": {(): 0},
        "node_selinux_config_mode": {(): -1},
    }


def test_absent(samples: Callable[[dict[str, str]], Samples]) -> None:
    """Without /sys there is nothing to read: the state is unknown."""
    with pytest.raises(NotPresent, match="/sys/fs/selinux/enforce is absent"):
        samples({})


def test_garbage(samples: Callable[[dict[str, str]], Samples]) -> None:
    """An unknown mode is an error with the path."""
    with pytest.raises(TargetError, match="/sys/fs/selinux/enforce: unexpected content: '7'"):
        samples({"sys/fs/selinux/enforce": "7"})


@pytest.mark.parametrize(
    ("content", "mode"),
    [
        (b"SELINUX=enforcing\n", 1),
        (b"SELINUX=Permissive\n", 0),
        (b"SELINUX=enforcing\nSELINUX=disabled\n", -1),
        (b"#SELINUX=enforcing\n", None),
        (b"SELINUX=what\n", None),
        (b"", None),
        (b"\0\xff=\n=", None),
    ],
)
def test_settings(content: bytes, mode: int | None) -> None:
    """The last setting is used, and an invalid one gives no mode."""
    assert mode == parse(content)
