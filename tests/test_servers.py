"""The processes that tests start."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from servers import Process, wait_until
from servers.sources import ROOT

RUN = """
import sys, time
from pathlib import Path
from servers import Process
from servers.exporter import Exporter
folder = Path(sys.argv[1])
server, exporter = Process(["sleep", "600"], folder), Exporter(folder, "collectors: {host: {}}")
print(server.popen.pid, exporter.popen.pid, flush=True)
time.sleep(600)
"""


def test_killed_test_run_leaves_no_process(tmp_path: Path) -> None:
    """After SIGKILL of a test run, the kernel ends the servers and exporters that it has started."""
    argv = [sys.executable, "-c", RUN, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env=environment) as run:
        assert run.stdout is not None
        started = [Path(f"/proc/{int(number)}/cwd") for number in run.stdout.readline().split()]
        run.kill()

    assert len(started) == 2
    # Zombies have no folder.
    wait_until(lambda: not any(folder.exists() for folder in started), "end of the processes")


def test_server_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    """A server that a helper thread has started does not end with this thread."""
    started: list[tuple[int, Process]] = []

    def start() -> None:
        started.append((threading.get_native_id(), Process(["sleep", "600"], tmp_path)))

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    number, server = started[0]
    try:
        wait_until(lambda: not Path(f"/proc/self/task/{number}").exists(), "end of the thread")
        with pytest.raises(subprocess.TimeoutExpired):
            server.popen.wait(0.5)
    finally:
        server.kill()
