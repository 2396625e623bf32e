"""The speed of network devices, as the exporter and node_exporter see it."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bts_collectors.host.subsystems.netclass import Netclass
from bts_exporter.testing import collect
from servers import Process, free_port, listens, need
from servers.link import link_with_speed

pytestmark = pytest.mark.live

SPEED = "node_network_speed_bytes"
#: Contents of the file `speed`: Mbit/s, or -1 if unknown.
SPEEDS = ("0", "10", "100", "1000", "2500", "10000", "25000", "400000", "-1")


@contextmanager
def node_exporter(folder: Path, *flags: str) -> Iterator[int]:
    """Run node_exporter; give its port."""
    port = free_port()
    program = need("prometheus-node-exporter", "prometheus-node-exporter")
    only = ("--collector.disable-defaults", "--collector.netclass", *flags)
    process = Process([program, f"--web.listen-address=127.0.0.1:{port}", *only], folder)
    try:
        process.ready(lambda: listens(port))
        yield port
    finally:
        process.kill()


def known_speeds(port: int) -> dict[tuple[str, ...], float]:
    """Return the speeds of node_exporter by device; negative ones are unknown ones."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    return {
        (sample.labels["device"],): sample.value
        for family in families
        for sample in family.samples
        if sample.name == SPEED and sample.value >= 0
    }


def test_known_speeds_are_those_of_node_exporter(tmp_path: Path) -> None:
    """Each speed that is known has the same value; an unknown or unreadable one has no series."""
    network = tmp_path / "sys/class/net"
    for number, speed in enumerate(SPEEDS):
        device = network / f"eth{number}"
        device.mkdir(parents=True)
        (device / "flags").write_text("0x1003\n")
        (device / "speed").write_text(f"{speed}\n")
    (network / "down").mkdir()
    (network / "down/flags").write_text("0x1002\n")

    with node_exporter(tmp_path, f"--path.sysfs={tmp_path / 'sys'}") as port:
        expected = known_speeds(port)

    assert len(expected) == len(SPEEDS) - 1
    assert collect(Netclass(Netclass.Config(sysfs=f"{tmp_path}/sys")))[SPEED] == expected


def test_speeds_of_this_machine_are_those_of_node_exporter(tmp_path: Path) -> None:
    """Devices of the kernel, of which some refuse to report a speed, have the same known speeds."""
    with link_with_speed() as device:
        if device is None:
            pytest.skip("not everywhere: adding network devices takes root and ip")
        with node_exporter(tmp_path) as port:
            expected = known_speeds(port)
            found = collect(Netclass(Netclass.Config()))[SPEED]

    assert found == expected
    assert found[device,] == 1_250_000_000
