from __future__ import annotations

from collections.abc import Mapping

import pytest

from bts_exporter import Metric, gauge
from bts_exporter.collection.outcome import SUCCESS
from bts_exporter.collection.runner import Snapshot
from bts_exporter.live.host_figures import HostFigures
from bts_exporter.metric import Key
from stubs import LocalStub, Stub, runner_of

Found = Mapping[str, Mapping[Key, float]]


def snapshot(found: Found, *, local: bool = True) -> Snapshot:
    """Return the samples of a collector of this host, or of another one."""
    with runner_of(LocalStub() if local else Stub()) as runner:
        samples: dict[Metric, dict[Key, float]] = {
            gauge(name, "Help."): dict(series) for name, series in found.items()
        }
        return Snapshot(runner, SUCCESS, samples, 0.0)


def figures(before: Found, after: Found, seconds: float = 10) -> dict[str, float]:
    """Return the figures of the second of two readings."""
    host = HostFigures()
    host.of([snapshot(before)], 100)
    return host.of([snapshot(after)], 100 + seconds)


def test_cpu() -> None:
    """The CPU is busy while it is not idle and does not wait for I/O."""
    name = "node_cpu_seconds_total"
    before = {name: {("0", "idle"): 0, ("0", "user"): 0, ("1", "iowait"): 0, ("1", "system"): 0}}
    after = {name: {("0", "idle"): 5, ("0", "user"): 5, ("1", "iowait"): 7, ("1", "system"): 3}}

    assert figures(before, after)["cpu_share"] == pytest.approx(0.4)


def test_first_reading_has_no_rates() -> None:
    """A counter needs two readings, and one that started again has no rate."""
    received = "node_network_receive_bytes_total"

    assert HostFigures().of([snapshot({received: {("eth0",): 5}})], 1) == {}
    assert figures({received: {("eth0",): 50}}, {received: {("eth0",): 5}}) == {}


def test_bytes_are_counted_once() -> None:
    """Partitions, stacked block devices, and devices of containers are a part of others."""
    disks = ("sda", "sda1", "nvme0n1", "nvme0n1p2", "dm-0", "md127", "loop3")
    devices = ("eth0", "lo", "veth1a2b", "docker0", "br-12", "bond0", "eth0.7")
    rates = figures(
        {
            "node_disk_read_bytes_total": {(disk,): 0 for disk in disks},
            "node_network_transmit_bytes_total": {(device,): 0 for device in devices},
        },
        {
            "node_disk_read_bytes_total": {(disk,): 100 for disk in disks},
            "node_network_transmit_bytes_total": {(device,): 100 for device in devices},
        },
    )

    assert rates == {"disk_read_bytes": 20, "network_sent_bytes": 10}


def test_memory_and_fullest_file_system() -> None:
    """Memory is used that is not available; of the file systems the fullest counts, without images."""
    root, data, image = (
        ("/dev/sda1", "/", "ext4", ""),
        ("/dev/sdb1", "/data", "xfs", ""),
        ("/dev/loop0", "/snap/core", "squashfs", ""),
    )
    host = HostFigures()

    found = host.of(
        [
            snapshot({"node_memory_MemTotal_bytes": {(): 100}, "node_memory_MemAvailable_bytes": {(): 25}}),
            snapshot(
                {
                    "node_filesystem_size_bytes": {root: 100, data: 100, image: 100},
                    "node_filesystem_avail_bytes": {root: 60, data: 10, image: 0},
                }
            ),
        ],
        1,
    )  # fmt: skip

    assert found == {"memory_share": 0.75, "filesystem_share": 0.9}
    assert host.fullest == "/data"


def test_pressure() -> None:
    """Pressure is the share of the time in which tasks waited."""
    name = "node_pressure_io_waiting_seconds_total"

    assert figures({name: {(): 1}}, {name: {(): 3}}) == {"io_pressure_share": 0.2}


def test_other_machines_are_not_this_host() -> None:
    """Metrics with the same names that a relay serves are those of another machine."""
    found = {"node_memory_MemTotal_bytes": {(): 100}, "node_memory_MemAvailable_bytes": {(): 25}}

    assert HostFigures().of([snapshot(found, local=False)], 1) == {}
