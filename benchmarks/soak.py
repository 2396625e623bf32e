"""A soak: one exporter for a long time under scrapes, reloads, flapping targets and bad clients.

Prints what it uses each minute, and ends with 1 if a scrape failed or if it uses more than at the beginning.

    .venv/bin/python benchmarks/soak.py [--seconds 1800]
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
os.environ |= {"MALLOC_ARENA_MAX": "2", "MALLOC_TRIM_THRESHOLD_": "1048576"}  # as the unit

from servers import free_port  # noqa: E402  # of the folder above
from servers.exporter import Exporter  # noqa: E402  # as above
from servers.footprint import Footprint, Scraper  # noqa: E402  # as above
from servers.redis import RedisServer  # noqa: E402  # as above

#: Growth of resident memory that does not count as a leak, in MB.
MARGIN = 6
#: The first part of the time is not measured: caches are being filled.
WARM_UP = 0.1

_HALF = b"GET /metrics HTTP/1.1\r\nHost: te"
_WHOLE = b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n" * 20


def _settings(redis: int, closed: int) -> str:
    return (
        f"collectors:\n  host:\n  redis: {{url: 'redis://127.0.0.1:{redis}', streams: ['*']}}\n"
        f"  rabbitmq: {{url: 'http://127.0.0.1:{closed}'}}\n"
        f"  mqtt: {{url: 'mqtt://127.0.0.1:{closed}'}}\n"
    )


def _bad_clients(process: Exporter, stack: ExitStack) -> None:
    """Open connections that send half a request, or read nothing; the others' are closed."""
    stack.close()
    for sent in (_HALF, _WHOLE, b""):
        for _ in range(5):
            with suppress(OSError):
                sock = stack.enter_context(socket.create_connection(("127.0.0.1", process.port)))
                sock.sendall(sent)


def _reload(process: Exporter) -> None:
    process.popen.send_signal(signal.SIGHUP)


def _flap(redis: RedisServer) -> None:
    if redis.popen.poll() is None:
        redis.kill()
    else:
        redis.restart()
        redis.client.xadd("stream", {"a": 1})


def _soak(process: Exporter, redis: RedisServer, seconds: float) -> list[Footprint]:
    """Disturb the process for so long; return what it used, each tenth second of the undisturbed time."""
    used: list[Footprint] = []
    with ExitStack() as stack:
        tasks: list[tuple[float, Callable[[], None]]] = [
            (5.0, lambda: _bad_clients(process, stack)),
            (7.0, lambda: _reload(process)),
            (11.0, lambda: _flap(redis)),
            (max(seconds / 30, 2.0), lambda: used.append(_show(process))),
        ]
        due = [time.monotonic() + period for period, _ in tasks]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for number, (period, task) in enumerate(tasks):
                if time.monotonic() >= due[number]:
                    task()
                    due[number] = time.monotonic() + period
            time.sleep(0.2)
    return used


def _show(process: Exporter) -> Footprint:
    now = Footprint.of(process)
    sys.stdout.write(
        f"{now.megabytes:6.1f} MB  {now.threads:3} threads  {now.files:3} files without those of the kernel\n"
    )
    sys.stdout.flush()
    return now


def main() -> int:
    """Run the soak; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1800.0, help="duration (default 1800)")
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as name, ExitStack() as ends:
        folder = Path(name)
        for part in ("redis", "exporter"):
            (folder / part).mkdir()
        redis = RedisServer(folder / "redis")
        ends.callback(redis.kill)
        process = Exporter(folder / "exporter", _settings(redis.port, free_port()))
        ends.callback(process.kill)
        with Scraper(process) as first, Scraper(process, "/metrics?collect[]=host") as second:
            used = _soak(process, redis, seconds)
        rest = used[int(len(used) * WARM_UP) :]
        third = max(len(rest) // 3, 1)
        growth = max(u.megabytes for u in rest[-third:]) - max(u.megabytes for u in rest[:third])
        threads = max(u.threads for u in rest[-third:]) - max(u.threads for u in rest[:third])
        answers, failures = len(first.answers + second.answers), first.failures + second.failures
        lines = len(process.log.read_text().splitlines())
    sys.stdout.write(
        f"{answers} scrapes, failed: {len(failures)} {failures[:3]}; from the first to the last third:"
        f" {growth:+.1f} MB, {threads:+} threads; {lines} log lines\n"
    )
    return int(bool(failures) or growth > MARGIN or threads > MARGIN)


if __name__ == "__main__":
    sys.exit(main())
