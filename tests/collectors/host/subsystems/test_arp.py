from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from bts_collectors.host.subsystems.arp import Arp, ArpSettings, parse
from bts_exporter import NotPresent, TargetError
from bts_exporter.testing import Samples, collect

Machine = Callable[[dict[str, str]], dict[str, Any]]

HEADING = "IP address       HW type     Flags       HW address            Mask     Device\n"
ROWS = """\
192.168.1.1      0x1         0x2         cc:aa:dd:ee:aa:bb     *        eth0
192.168.1.2      0x1         0x0         00:00:00:00:00:00     *        eth0
10.0.0.1         0x1         0x2         bb:cc:dd:ee:ff:00     *        wlan0.7
"""


@pytest.fixture
def samples(machine: Machine) -> Callable[..., Samples]:
    """Give a function that collects from a /proc/net/arp, with settings."""

    def run(content: str, **settings: Any) -> Samples:
        config = Arp.Config(**machine({"proc/net/arp": content}), settings=ArpSettings(**settings))
        return collect(Arp(config))

    return run


def test_entries(samples: Callable[..., Samples]) -> None:
    """Entries are counted by device, including incomplete ones."""
    assert samples(HEADING + ROWS) == {"node_arp_entries": {("eth0",): 2, ("wlan0.7",): 1}}


def test_no_entries(samples: Callable[..., Samples]) -> None:
    """An empty table has no series, and is not an error."""
    assert samples(HEADING) == {}


@pytest.mark.parametrize(
    "settings", [{"device_include": re.compile("^eth")}, {"device_exclude": re.compile(r"\.")}]
)
def test_filter(samples: Callable[..., Samples], settings: dict[str, re.Pattern[str]]) -> None:
    """Devices are selected by one of two expressions."""
    assert samples(HEADING + ROWS, **settings) == {"node_arp_entries": {("eth0",): 2}}


def test_contradictory_settings() -> None:
    """Both expressions at once are an error."""
    with pytest.raises(ValueError, match="device_include and device_exclude cannot be combined"):
        ArpSettings(device_include=re.compile("a"), device_exclude=re.compile("b"))


def test_cut_off() -> None:
    """A truncated last line is left out: its device name may be incomplete."""
    assert list(parse((HEADING + ROWS)[:-3].encode())) == ["eth0", "eth0"]


@pytest.mark.parametrize("content", ["", HEADING + "192.168.1.1 0x1 eth0\n", HEADING + "\n"])
def test_error_names_the_file(samples: Callable[..., Samples], content: str) -> None:
    """A table without a heading, or with other columns, is an error with the path."""
    with pytest.raises(TargetError, match=r"/proc/net/arp: (is empty|unexpected content)"):
        samples(content)


def test_absent(machine: Machine) -> None:
    """Without the file there is nothing to read."""
    with pytest.raises(NotPresent, match="/proc/net/arp is absent"):
        collect(Arp(Arp.Config(**machine({}))))
