"""The pytest plug-in of bts_exporter.testing: fixtures, and the flag that updates golden pages.

pytest imports it in every run in an environment where bts-exporter is installed. So it imports nothing
before a fixture is used, and all of its names begin with `bts`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from bts_exporter.testing import ExporterProcess, Golden, HttpServer

_UPDATE = "--bts-update-golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the flag."""
    group = parser.getgroup("bts-exporter")
    group.addoption(_UPDATE, action="store_true", help="write the files of bts_golden")


@pytest.fixture
def bts_golden(request: pytest.FixtureRequest) -> Golden:
    """Return what compares pages with the files in the folder `golden` next to the test."""
    from bts_exporter.testing import Golden  # noqa: PLC0415  # see above

    return Golden(request.path.parent / "golden", update=request.config.getoption(_UPDATE))


@pytest.fixture
def bts_http_server() -> Iterator[HttpServer]:
    """Return an HTTP server whose replies the test sets."""
    from bts_exporter.testing import HttpServer  # noqa: PLC0415  # see above

    with HttpServer() as server:
        yield server


@pytest.fixture
def bts_exporter_process(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[..., ExporterProcess]]:
    """Return a function that starts an exporter with settings and flags; all end with the test."""
    from bts_exporter.testing import ExporterProcess  # noqa: PLC0415  # see above

    running: list[ExporterProcess] = []

    def start(*arguments: str, **more: str) -> ExporterProcess:
        running.append(ExporterProcess(tmp_path_factory.mktemp("exporter"), *arguments, **more))
        return running[-1]

    yield start
    for process in running:
        process.kill()
