from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bts_collectors.host.kernel import kernel_file
from bts_collectors.host.subsystems.netclass import Netclass, parse_number
from bts_exporter import NotPresent
from bts_exporter.testing import Samples, collect

Machine = Callable[[dict[str, str]], dict[str, Any]]

ETH0 = {
    "address": "01:01:01:01:01:01",
    "broadcast": "ff:ff:ff:ff:ff:ff",
    "carrier": "1",
    "duplex": "full",
    "flags": "0x1303",
    "ifalias": "",
    "mtu": "1500",
    "operstate": "up",
    "speed": "1000",
    "dev_id": "0x20",
}


def device(name: str, **files: str) -> dict[str, str]:
    """Return the files of a network device."""
    return {f"sys/class/net/{name}/{file}": f"{text}\n" for file, text in files.items()}


@pytest.fixture
def samples(machine: Machine) -> Callable[..., Samples]:
    """Give a function that collects from files, with settings."""

    def from_files(files: dict[str, str], **settings: Any) -> Samples:
        own = Netclass.Settings(**settings)
        return collect(Netclass(Netclass.Config(**machine(files), settings=own)))

    return from_files


def test_a_device(samples: Callable[..., Samples]) -> None:
    """Numbers, decimal or hexadecimal, are samples, text is labels, and megabits become bytes."""
    assert samples(device("eth0", **ETH0)) == {
        "node_network_up": {("eth0",): 1},
        "node_network_info": {
            ("eth0", "01:01:01:01:01:01", "ff:ff:ff:ff:ff:ff", "full", "up", "up", ""): 1
        },
        "node_network_carrier": {("eth0",): 1},
        "node_network_device_id": {("eth0",): 32},
        "node_network_flags": {("eth0",): 0x1303},
        "node_network_mtu_bytes": {("eth0",): 1500},
        "node_network_speed_bytes": {("eth0",): 125_000_000},
    }


def test_a_link_that_is_down(samples: Callable[..., Samples]) -> None:
    """Files that cannot be read while a link is down have no series, and -1 is not a speed."""
    files = {**ETH0, "operstate": "down", "flags": "0x1002", "speed": "-1"}
    files.pop("carrier")
    found = samples(device("eth0", **files) | {"sys/class/net/eth0/carrier/below": ""})

    assert found["node_network_up"] == {("eth0",): 0}
    assert [key[5] for key in found["node_network_info"]] == ["down"]
    assert found.keys().isdisjoint({"node_network_carrier", "node_network_speed_bytes"})


def test_changes_are_followed(machine: Machine) -> None:
    """Each scrape has the current content of the files, and no series of a removed device."""
    collector = Netclass(Netclass.Config(**machine(device("eth0", **ETH0))))
    for operstate, mtu in (("up", 1500), ("down", 1500), ("down", 9000), ("up", 1500)):
        machine(device("eth0", operstate=operstate, mtu=str(mtu)))
        found = collect(collector)

        assert found["node_network_up"] == {("eth0",): operstate == "up"}
        assert found["node_network_mtu_bytes"] == {("eth0",): mtu}
        assert [labels[4] for labels in found["node_network_info"]] == [operstate]

    Path(machine({})["sysfs"], "class/net/eth0/flags").unlink()
    assert collect(collector) == {}


def test_file_between_devices(samples: Callable[..., Samples]) -> None:
    """A file between the devices, such as bonding_masters, is skipped."""
    found = samples(device("eth0", **ETH0) | {"sys/class/net/bonding_masters": "bond0\n"})

    assert list(found["node_network_up"]) == [("eth0",)]


def test_devices_are_chosen(samples: Callable[..., Samples]) -> None:
    """Devices that are excluded, or not included, are not collected."""
    files = device("eth0", flags="0x1") | device("dmz", flags="0x1") | device("int", flags="0x1")

    excluded = samples(files, device_exclude=re.compile("(dmz|int)"))
    included = samples(files, device_include=re.compile("^d"))

    assert list(excluded["node_network_up"]) == [("eth0",)]
    assert list(included["node_network_up"]) == [("dmz",)]


def test_both_expressions() -> None:
    """Both expressions at once are an error."""
    with pytest.raises(ValueError, match="device_include and device_exclude cannot be combined"):
        Netclass.Settings(device_include=re.compile("a"), device_exclude=re.compile("b"))


def test_devices_that_swap_names(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that stay open belong to the device that has the name now."""
    monkeypatch.setattr(kernel_file, "is_kernel_made", lambda _: True)
    paths = machine(device("a", flags="0x1", mtu="1") | device("b", flags="0x1", mtu="2"))
    collector = Netclass(Netclass.Config(**paths))
    before = collect(collector)["node_network_mtu_bytes"]
    folder = Path(paths["sysfs"], "class/net")
    for old, new in (("a", "c"), ("b", "a"), ("c", "b")):
        (folder / old).rename(folder / new)

    assert before == {("a",): 1, ("b",): 2}
    assert collect(collector)["node_network_mtu_bytes"] == {("a",): 2, ("b",): 1}


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc")
def test_many_devices(
    machine: Machine, opened: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With many devices the files of a few stay open, and all are served."""
    monkeypatch.setattr(kernel_file, "is_kernel_made", lambda _: True)
    devices = [device(f"eth{number}", flags="0x1", mtu="1500") for number in range(30)]
    collector = Netclass(Netclass.Config(**machine({k: v for d in devices for k, v in d.items()})))

    assert len(collect(collector)["node_network_mtu_bytes"]) == 30
    assert len(collect(collector)["node_network_mtu_bytes"]) == 30
    assert 0 < opened() < 30


@pytest.mark.parametrize("files", [{}, {"sys/class/net": "no folder"}])
def test_absent(samples: Callable[..., Samples], files: dict[str, str]) -> None:
    """Without the directory there is nothing to read."""
    with pytest.raises(NotPresent, match="/sys/class/net is absent"):
        samples(files)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (b"0", 0),
        (b"4294967295", 4294967295),
        (b"0x1003", 0x1003),
        (b"-1", None),
        (b"1_000", None),
        (b"0b1", None),
        (b"12 kB", None),
        (b"\xff", None),
        (b"9" * 400, None),
        (b"", None),
        (None, None),
    ],
)
def test_numbers(value: bytes | None, number: int | None) -> None:
    """Only numbers in the kernel's format are accepted, not everything that Python accepts."""
    assert number == parse_number(value)
