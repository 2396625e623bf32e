"""The fixtures of node_exporter, and the output that its test suite expects for them.

Their license does not let us publish the data. The test looks for it next to the repository, or in
BTS_CONFORMANCE_DIR.
"""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import NamedTuple

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bts_collectors.host import SUBSYSTEMS

REPOSITORY = Path(__file__).parents[2]
DATA = Path(
    os.environ.get("BTS_CONFORMANCE_DIR", REPOSITORY.parent / "shared" / "conformance" / "host")
)
SETTINGS = Path(__file__).parent / "host.yaml"

#: Subsystems for which the fixtures have all files.
COMPARED = {
    "arp",
    "conntrack",
    "cpu",
    "diskstats",
    "dmi",
    "entropy",
    "filefd",
    "kernel_hung",
    "loadavg",
    "meminfo",
    "netclass",
    "netstat",
    "os",
    "pressure",
    "schedstat",
    "sockstat",
    "softnet",
    "stat",
    "textfile",
    "time",
    "udp_queues",
    "vmstat",
}

#: A series: name, labels that are not empty (an empty label means the same as no label).
Series = tuple[str, frozenset[tuple[str, str]]]


class Page(NamedTuple):
    """A parsed page: values by series, types by name."""

    values: dict[Series, float]
    kinds: dict[str, str]


def parse(text: str) -> Page:
    """Return a parsed page; AssertionError for a duplicate."""
    values: dict[Series, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = frozenset((name, value) for name, value in sample.labels.items() if value)
            assert (sample.name, labels) not in values
            values[sample.name, labels] = sample.value
    # Not the types of families: the parser renames counters.
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    return Page(values, kinds)


@pytest.fixture(scope="module")
def expected() -> Page:
    """Give the output that node_exporter's test suite expects; skip if the data is missing."""
    if not (DATA / "expected_core.prom").is_file():
        pytest.skip(f"no conformance data in {DATA}: set BTS_CONFORMANCE_DIR")
    return parse((DATA / "expected_core.prom").read_text())


@pytest.fixture(scope="module")
def actual(expected: Page, tmp_path_factory: pytest.TempPathFactory) -> Page:
    """Give the output of our command for the same host."""
    folder = tmp_path_factory.mktemp("machine")
    with tarfile.open(DATA / "fixtures.tar.gz") as archive:
        # The fixtures contain dangling links, and links out of the directory.
        archive.extractall(folder / "collector" / "fixtures", filter="fully_trusted")
    done = subprocess.run(
        [sys.executable, "-m", "bts_exporter", "once", f"--config.file={SETTINGS}"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout, done.stderr
    return parse(done.stdout)


def test_every_series(expected: Page, actual: Page) -> None:
    """Each series of node_exporter is there."""
    assert [series for series in expected.values if series not in actual.values] == []
    assert len(expected.values) == 567


def test_every_value(expected: Page, actual: Page) -> None:
    """Each series has node_exporter's value."""
    different = {
        series: (value, actual.values[series])
        for series, value in expected.values.items()
        if series in actual.values
        and not math.isclose(value, actual.values[series], rel_tol=1e-9, abs_tol=0)
    }

    assert different == {}


def test_every_type(expected: Page, actual: Page) -> None:
    """Each metric has node_exporter's type."""
    assert expected.kinds == {name: actual.kinds.get(name) for name in expected.kinds}


def test_no_failure(actual: Page) -> None:
    """None of the compared subsystems fails with the fixtures."""
    assert SUBSYSTEMS.keys() >= COMPARED
    failed = [
        name
        for name in COMPARED
        if actual.values["node_scrape_collector_success", frozenset({("collector", name)})] != 1
    ]

    assert failed == []
