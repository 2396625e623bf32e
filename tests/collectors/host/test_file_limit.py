"""A process with a low limit on open files: kept files are closed if others need to be opened."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from itertools import count
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from servers import wait_until
from servers.exporter import Exporter, StartExporter

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc"),
]

SETTINGS = """\
collectors:
  host:
    enable: [interrupts, cgroups]
    process_group: {groups: [{name: all, comm: .}]}
"""


@contextmanager
def files(limit: int) -> Iterator[None]:
    """Start processes with this soft limit on open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def opened(server: Exporter) -> list[str]:
    """Return the files that the exporter has open."""
    links = Path(f"/proc/{server.popen.pid}/fd").iterdir()
    return [str(link.readlink()) for link in links if link.is_symlink()]


def kept(server: Exporter) -> int:
    """Return the number of kernel files that the exporter keeps open."""
    return sum(path.startswith(("/proc/", "/sys/")) for path in opened(server))


def failed(page: str) -> list[str]:
    """Return the collectors that failed."""
    return [
        sample.labels["collector"]
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == "node_scrape_collector_success" and not sample.value
    ]


@pytest.mark.parametrize(("limit", "least"), [(64, 0), (80, 10), (128, 50), (256, 100)])
def test_low_limit(exporter: StartExporter, limit: int, least: int) -> None:
    """Kernel files are kept open as long as 64 of the limit are left; every collector succeeds."""
    with files(limit):
        server = exporter(SETTINGS)
    pages = [server.get("/metrics")[1] for _ in range(3)]

    assert [failed(page) for page in pages] == [[], [], []]
    assert 'bts_process_group_processes{group="all"}' in pages[2]
    assert least <= kept(server) <= limit - 64


def test_too_many_open_files(exporter: StartExporter) -> None:
    """If no file can be opened, the kept files are closed, and no collector fails."""
    server = exporter(SETTINGS)
    connection = HTTPConnection("127.0.0.1", server.port, timeout=30)

    def page() -> str:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()

    def closes_all() -> bool:
        # Files of processes that have ended leave numbers free below those of others.
        numbers = {int(link.name) for link in Path(f"/proc/{server.popen.pid}/fd").iterdir()}
        limit = next(number for number in count() if number not in numbers)
        resource.prlimit(server.popen.pid, resource.RLIMIT_NOFILE, (limit, limit))
        assert failed(page()) == []
        return kept(server) == 0

    page()
    before = kept(server)
    wait_until(closes_all, "kept files are closed")
    connection.close()

    assert before > 100
