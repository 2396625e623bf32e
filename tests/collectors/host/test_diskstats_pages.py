"""The real /proc/diskstats, with a disk whose partitions fill more than a page."""

from __future__ import annotations

from pathlib import Path

import pytest

from servers.exporter import StartExporter
from servers.loopdisk import loop_disk

pytestmark = pytest.mark.live


def test_disk_with_many_partitions(exporter: StartExporter, tmp_path: Path) -> None:
    """A disk whose partitions do not fit into a page hides neither itself nor another disk."""
    server = exporter("collectors:\n  host: {diskstats: {device_exclude: ^$}}\n")
    with loop_disk(tmp_path, 100) as disk:
        found = [server.samples("/metrics?collect[]=diskstats") for _ in range(2)]
        lines = Path("/proc/diskstats").read_text(encoding="utf-8").splitlines()
        there = {line.split()[2] for line in lines}

    assert f"{disk}p100" in there
    for samples in found:
        devices = {
            dict(labels)["device"]
            for name, labels in samples
            if name == "node_disk_reads_completed_total"
        }
        assert devices == there
