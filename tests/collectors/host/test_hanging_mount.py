"""A mount that really hangs: its server is frozen, and the kernel waits for it."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from bts_collectors.host.subsystems.filesystem import Filesystem, FilesystemSettings
from bts_exporter import Duration, Scrape
from bts_exporter.testing import Samples, samples
from servers import wait_until
from servers.exporter import StartExporter
from servers.fuse import AVAILABLE, BLOCKS, UNIT, Fuse, fuse

pytestmark = pytest.mark.live

__all__ = ["fuse"]

Machine = Callable[[dict[str, str]], dict[str, Any]]


def asking() -> int:
    """Return the number of threads that query mounts, including one that idles."""
    return sum(thread.name == "bts-statvfs" for thread in threading.enumerate())


@pytest.fixture
def collector(machine: Machine, fuse: Fuse) -> Iterator[Filesystem]:
    """Give a collector of the root and of the mount, in the namespace of its server."""
    paths = machine({"proc/1/mountinfo": fuse.mountinfo()}) | {"rootfs": fuse.root}
    settings = FilesystemSettings(mount_timeout=Duration(0.3), fs_types_include=re.compile("."))
    collector = Filesystem(Filesystem.Config(**paths, settings=settings))
    yield collector
    fuse.kill()  # threads that wait for it get an error
    collector.stop()
    wait_until(lambda: asking() == 0, "no thread is left")


def scrape(collector: Filesystem) -> Samples:
    """Return the samples of a scrape, which must end by its deadline."""
    scrape = Scrape(monotonic() + 10)
    collector.collect(scrape)
    assert monotonic() < scrape.deadline
    return samples(collector, scrape)


def points(found: Samples, metric: str) -> list[str]:
    """Return the mount points of a metric's series."""
    return [labels[1] for labels in found[metric]]


def test_answering(collector: Filesystem, fuse: Fuse) -> None:
    """The values of a mount are those of its server."""
    found = scrape(collector)
    labels = ("bts-test", str(fuse.point), "fuse", "")

    assert found["node_filesystem_size_bytes"][labels] == BLOCKS * UNIT
    assert found["node_filesystem_avail_bytes"][labels] == AVAILABLE * UNIT
    assert points(found, "node_filesystem_size_bytes") == [str(fuse.point), "/"]


def test_hanging(collector: Filesystem, fuse: Fuse) -> None:
    """A hanging mount loses only its own series and occupies one thread, from its first scrape until it is back."""
    point = str(fuse.point)
    fuse.freeze()

    for _ in range(3):
        found = scrape(collector)
        stuck = ("bts-test", point, "fuse", "mountpoint timeout")
        assert found["node_filesystem_device_error"][stuck] == 1
        assert {name for name, values in found.items() if stuck in values} == {
            "node_filesystem_device_error",
            "node_filesystem_readonly",
        }
        assert points(found, "node_filesystem_size_bytes") == ["/"]
        assert asking() == 2  # one waits, one queries the others

    fuse.thaw()
    wait_until(
        lambda: point in points(scrape(collector), "node_filesystem_size_bytes"), "it is back"
    )
    assert asking() == 1


def test_server_ends(collector: Filesystem, fuse: Fuse) -> None:
    """If the server ends, the waiting thread is released, and the mount has an error."""
    fuse.freeze()
    scrape(collector)
    assert asking() == 2

    fuse.kill()
    wait_until(lambda: asking() == 1, "the thread that waited is free")
    errors = {labels[3] for labels in scrape(collector)["node_filesystem_device_error"]}
    assert "mountpoint timeout" not in errors


def test_whole_exporter(
    machine: Machine, fuse: Fuse, exporter: StartExporter, tmp_path: Path
) -> None:
    """The first scrape of an exporter with a hanging mount misses nothing else, and no collector fails."""
    machine({"proc/1/mountinfo": fuse.mountinfo()})
    for file in ("loadavg", "meminfo", "stat"):
        (tmp_path / "proc" / file).symlink_to(f"/proc/{file}")
    fuse.freeze()
    server = exporter(
        "collectors:\n  host:\n"
        f"    procfs: {tmp_path}/proc\n"
        f"    rootfs: {fuse.root}\n"
        "    filesystem: {mount_timeout: 300ms, fs_types_include: .}\n"
    )
    status, text = server.get("/metrics", {"X-Prometheus-Scrape-Timeout-Seconds": "10"})
    fuse.thaw()

    assert status == 200
    assert "node_load1 " in text
    assert re.search(r'node_filesystem_size_bytes{.*mountpoint="/",.*} [1-9]', text)
    assert re.search(r'node_filesystem_device_error{.*device_error="mountpoint timeout".*} 1', text)
    assert 'node_scrape_collector_success{collector="filesystem"} 1' in text
