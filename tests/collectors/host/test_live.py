"""This host, as the exporter and node_exporter see it at the same moment."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bts_collectors.host import Host
from bts_collectors.host.subsystems.diskstats import DEVICE_EXCLUDE
from bts_collectors.host.subsystems.filesystem import FS_TYPES_EXCLUDE, MOUNT_POINTS_EXCLUDE
from bts_exporter import Collector, Scrape
from servers import Process, free_port, listens, need

pytestmark = pytest.mark.live

#: Subsystems that node_exporter has, too, with the defaults of its latest version.
FLAGS = {
    "cpu": (),
    "diskstats": (f"--collector.diskstats.device-exclude={DEVICE_EXCLUDE.pattern}",),
    "filesystem": (
        f"--collector.filesystem.mount-points-exclude={MOUNT_POINTS_EXCLUDE.pattern}",
        f"--collector.filesystem.fs-types-exclude={FS_TYPES_EXCLUDE.pattern}",
    ),
    "loadavg": (),
    "meminfo": (),
    "netdev": ("--collector.netdev.device-exclude=^$",),
    "stat": (),
    "time": (),
    "uname": (),
}

#: Metrics that the packaged node_exporter does not have yet, or only with other kernels.
NEWER = {"node_disk_info", "node_filesystem_mount_info", "node_cpu_online"}

#: A series: the name and the labels that are not empty.
Series = tuple[str, frozenset[tuple[str, str]]]


class Machine:
    """The samples of one moment, and the types of the metrics."""

    def __init__(self) -> None:
        self.values: dict[Series, float] = {}
        self.kinds: dict[str, str] = {}

    def add(self, name: str, kind: str, labels: dict[str, str], value: float) -> None:
        """Add a sample."""
        present = frozenset((label, text) for label, text in labels.items() if text)
        self.values[name, present] = value
        self.kinds[name] = kind


def ours(collectors: list[Collector]) -> Machine:
    """Return the samples of our collectors."""
    seen = Machine()
    for collector in collectors:
        scrape = Scrape(monotonic() + 10)
        collector.collect(scrape)
        assert scrape.losses == []
        for metric, samples in scrape.samples.items():
            for key, value in samples.items():
                labels = dict(zip(metric.labels, key, strict=True))
                seen.add(metric.name, str(metric.kind), labels, value)
    return seen


def theirs(port: int) -> Machine:
    """Return the samples of node_exporter, without those about itself."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        page = answer.read().decode()
    seen = Machine()
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            own = sample.name.startswith(("node_scrape_", "node_exporter_"))
            if sample.name.startswith("node_") and not own:
                seen.add(sample.name, family.type, sample.labels, sample.value)
    return seen


@pytest.fixture(scope="module")
def moments(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Machine, Machine, Machine]]:
    """Give our samples, node_exporter's, and ours again."""
    program = need("prometheus-node-exporter", "prometheus-node-exporter")
    port = free_port()
    flags = [flag for name, more in FLAGS.items() for flag in (f"--collector.{name}", *more)]
    listen = f"--web.listen-address=127.0.0.1:{port}"
    argv = [program, listen, "--collector.disable-defaults", *flags]
    reference = Process(argv, Path(tmp_path_factory.mktemp("reference")))
    collectors = [c for c in Host.build(Host.Config()) if c.name in FLAGS]
    try:
        reference.ready(lambda: listens(port))
        yield ours(collectors), theirs(port), ours(collectors)
    finally:
        reference.kill()
        for collector in collectors:
            collector.stop()


def test_same_series(moments: tuple[Machine, Machine, Machine]) -> None:
    """Both have the same series."""
    _, reference, own = moments

    assert {series for series in own.values if series[0] not in NEWER} == {
        series for series in reference.values if series[0] not in NEWER
    }


def test_same_types(moments: tuple[Machine, Machine, Machine]) -> None:
    """Each metric has the same type as in node_exporter."""
    _, reference, own = moments

    common = own.kinds.keys() & reference.kinds.keys()
    assert {name: own.kinds[name] for name in common} == {
        name: reference.kinds[name] for name in common
    }
    assert len(common) > 100


def test_same_counts(moments: tuple[Machine, Machine, Machine]) -> None:
    """Each counter of node_exporter lies between our values before and after."""
    before, reference, after = moments

    wrong = {}
    for series, value in reference.values.items():
        # These two decrease in the kernel, but not in our metrics.
        falling = {("mode", "idle"), ("mode", "iowait")} & series[1]
        if reference.kinds[series[0]] == "counter" and not falling:
            low, high = before.values[series], after.values[series]
            # node_exporter multiplies and we divide: the last digit differs.
            if not low * (1 - 1e-12) <= value <= high * (1 + 1e-12):
                wrong[series] = (low, value, high)
    assert wrong == {}


def test_same_sizes(moments: tuple[Machine, Machine, Machine]) -> None:
    """Constant values are equal."""
    _, reference, own = moments

    still = ("_size_bytes", "_MemTotal_bytes", "boot_time_seconds", "_readonly", "_offset_seconds")
    compared = {series for series in reference.values if series[0].endswith(still)}
    assert {series: own.values[series] for series in compared} == {
        series: reference.values[series] for series in compared
    }
    assert len(compared) >= 5
