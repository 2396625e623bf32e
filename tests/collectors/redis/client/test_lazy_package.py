"""redis-py as the collector imports it: small, and complete for others in the same process."""

from __future__ import annotations

import subprocess
import sys

import pytest


def printed(code: str) -> str:
    """Return what a new Python prints."""
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


COLLECTOR = "import bts_collectors.redis, sys\n"


def test_clients_are_not_imported() -> None:
    """The collector imports neither the asyncio client nor the cluster client: they take 4 MB."""
    found = printed(
        COLLECTOR
        + "print([m for m in sys.modules if m in ('redis.asyncio', 'redis.client', 'redis.cluster')])"
    )

    assert found == "[]"


@pytest.mark.parametrize(
    "code",
    [
        "import redis; print(redis.Redis.__module__)",
        "from redis import Redis; print(Redis.__module__)",
        "from redis import *; print(Redis.__module__)",
        "import redis.asyncio; print(redis.Redis.__module__)",
        "from redis import asyncio, client; print(client.Redis.__module__)",
        "import redis; print(redis.__version__ and redis.Redis.__module__)",
    ],
)
def test_plugins_have_the_whole_package(code: str) -> None:
    """A plug-in can use redis-py as if the collector had not imported it, before and after that."""
    assert printed(COLLECTOR + code) == "redis.client"
    assert printed(f"{code}\n{COLLECTOR}import redis; print(redis.Redis.__module__)").split() == [
        "redis.client",
        "redis.client",
    ]


def test_name_that_the_package_does_not_have() -> None:
    """A wrong name is an AttributeError, the first time and later."""
    code = "import redis; print([hasattr(redis, 'Rediss') for _ in range(2)])"

    assert printed(COLLECTOR + code) == "[False, False]"


def test_threads_at_once() -> None:
    """Threads that use the package at once all have it complete."""
    code = """
import threading, redis
barrier, found = threading.Barrier(8), []
def use():
    barrier.wait()
    found.append(issubclass(redis.RedisCluster, object) and redis.Sentinel.__name__)
threads = [threading.Thread(target=use) for _ in range(8)]
for each in threads: each.start()
for each in threads: each.join()
print(found == 8 * ["Sentinel"])
"""

    assert printed(COLLECTOR + code) == "True"
