"""A generated host, as the exporter and node_exporter read it."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from servers import Process, free_port, listens, need
from storage_and_fabric import MACHINE

pytestmark = pytest.mark.live

Machine = Callable[[dict[str, str]], dict[str, Any]]
#: A series: type, name, labels that are not empty.
Series = tuple[str, str, frozenset[tuple[str, str]]]

NAMES = ("btrfs", "fibrechannel", "infiniband", "ipvs", "nfs", "nfsd", "xfs", "zfs")
PREFIXES = tuple(f"node_{name}_" for name in NAMES)

#: Operations that node_exporter 1.5.0 reads at the wrong position: it skips 35 and 36.
MISREAD = {"Verify", "Write", "RelLockOwner"}


def series(page: str) -> dict[Series, float]:
    """Return the values of the subsystems' series on a page."""
    return {
        (
            family.type,
            sample.name,
            frozenset((label, text) for label, text in sample.labels.items() if text),
        ): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name.startswith(PREFIXES)
    }


@pytest.fixture
def pages(machine: Machine, tmp_path: Path) -> tuple[dict[Series, float], dict[Series, float]]:
    """Give node_exporter's series of the host, and ours."""
    program = need("prometheus-node-exporter", "prometheus-node-exporter")
    paths = machine(MACHINE)
    port = free_port()
    argv = [
        program,
        f"--web.listen-address=127.0.0.1:{port}",
        f"--path.procfs={paths['procfs']}",
        f"--path.sysfs={paths['sysfs']}",
        "--collector.disable-defaults",
        *(f"--collector.{name}" for name in NAMES),
    ]
    reference = Process(argv, tmp_path)
    try:
        reference.ready(lambda: listens(port))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            theirs = answer.read().decode()
    finally:
        reference.kill()
    settings = tmp_path / "config.yaml"
    settings.write_text(
        f"collectors:\n  host: {{procfs: {paths['procfs']}, sysfs: {paths['sysfs']}}}\n"
    )
    ours = subprocess.run(
        [sys.executable, "-m", "bts_exporter", f"--config.file={settings}", "once"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return series(theirs), series(ours.stdout)


def test_node_exporter_reads_the_same_from_the_same_files(
    pages: tuple[dict[Series, float], dict[Series, float]],
) -> None:
    """Each series of node_exporter is one of ours, with type, labels and value."""
    theirs, ours = pages
    misread = {key for key in theirs if MISREAD & {text for _, text in key[2]} and "nfsd" in key[1]}

    assert {key: ours.get(key) for key in theirs if key not in misread} == {
        key: value for key, value in theirs.items() if key not in misread
    }
    assert {name: any(key[1].startswith(name) for key in theirs) for name in PREFIXES} == (
        dict.fromkeys(PREFIXES, True)
    )
