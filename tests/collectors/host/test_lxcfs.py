"""Files below /proc from a FUSE server, as in containers of LXC, Proxmox and LXD."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path

import pytest

from servers.exporter import Exporter, StartExporter
from servers.lxcfs import Lxcfs, lxcfs

pytestmark = pytest.mark.live

__all__ = ["lxcfs"]

STAT = "cpu  1 1 1 1\ncpu0 1 1 1 1 1 1 1 1 1 1\nctxt 5\nbtime 1700000000\n"
QUERY = "/metrics?collect[]=meminfo&collect[]=stat&collect[]=diskstats"


def disks(number: int) -> str:
    """Return a /proc/diskstats with so many disks."""
    return "".join(f"   8 {n} sd{'abcdefghijklmnop'[n]} {'1 ' * 17}\n" for n in range(number))


@pytest.fixture
def server(lxcfs: Lxcfs, exporter: StartExporter, tmp_path: Path) -> Exporter:
    """Give an exporter whose /proc is the FUSE server's."""
    for name, content in (
        ("meminfo", "MemTotal: 4 kB\n"),
        ("stat", STAT),
        ("diskstats", disks(2)),
    ):
        (lxcfs.source / name).write_text(content)
    return exporter(
        f"collectors:\n  host: {{procfs: {lxcfs.root}, sysfs: {tmp_path}, udev_data: {tmp_path}}}\n"
    )


def outcome(server: Exporter, collector: str) -> float | None:
    """Return whether a collector succeeded in a new scrape."""
    found = server.samples(QUERY)
    return found[("node_scrape_collector_success", frozenset({("collector", collector)}))]


def test_server_that_ends(server: Exporter, lxcfs: Lxcfs) -> None:
    """If the server of /proc ends, no client loses a scrape, and all recovers when it is back."""
    assert outcome(server, "meminfo") == 1
    lxcfs.end()

    def client(_: int) -> list[int]:
        connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
        statuses = []
        for _ in range(20):
            connection.request("GET", QUERY)
            response = connection.getresponse()
            response.read()
            statuses.append(response.status)
        connection.close()
        return statuses

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(client, range(4))) == [[200] * 20] * 4
    assert (outcome(server, "meminfo"), outcome(server, "stat")) == (0, 0)
    (lxcfs.source / "meminfo").write_text("MemTotal: 8 kB\n")
    lxcfs.start_again()

    found = server.samples(QUERY)
    assert found["node_memory_MemTotal_bytes", frozenset()] == 8192
    assert found["node_context_switches_total", frozenset()] == 5
    assert outcome(server, "meminfo") == 1


def test_file_that_grows(server: Exporter, lxcfs: Lxcfs) -> None:
    """A file that grows by more than lxcfs reserves at open is read to its new end."""
    before = server.samples(QUERY)
    (lxcfs.source / "diskstats").write_text(disks(16))
    after = server.samples(QUERY)

    def devices(found: dict[tuple[str, frozenset[tuple[str, str]]], float]) -> int:
        return sum(name == "node_disk_reads_completed_total" for name, _ in found)

    assert (devices(before), devices(after)) == (2, 16)


def test_over_the_real_proc(lxcfs: Lxcfs, exporter: StartExporter) -> None:
    """A file mounted over one of /proc may fail and be unmounted, and affects only itself."""
    (lxcfs.source / "meminfo").write_text("MemTotal: 4 kB\n")
    enter = ("nsenter", f"--mount=/proc/{lxcfs.popen.pid}/ns/mnt")
    subprocess.run(
        [*enter, "mount", "--bind", f"{lxcfs.point}/meminfo", "/proc/meminfo"], check=True
    )
    server = exporter("collectors: {host: }\n", enter=enter)
    total = "node_memory_MemTotal_bytes"
    of_lxcfs = server.value(total)
    lxcfs.end()
    failed = [
        dict(labels)["collector"]
        for (name, labels), success in server.samples().items()
        if name == "node_scrape_collector_success" and not success
    ]
    subprocess.run([*enter, "umount", "/proc/meminfo"], check=True)

    assert of_lxcfs == 4096
    assert failed == ["meminfo"]
    assert (server.value(total) or 0) > 4096
