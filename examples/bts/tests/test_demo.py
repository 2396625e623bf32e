"""The demo as a process: it starts everything, ends at any moment, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from running_demo import RunningDemo

from bts import demo, programs
from bts.programs import DemoError, Program
from servers import listens, wait_until


@pytest.fixture
def running(tmp_path: Path) -> Iterator[RunningDemo]:
    """Return a demo that has just been started."""
    result = RunningDemo(tmp_path)
    yield result
    result.process.kill()
    wait_until(lambda: not processes_of(result), "end of the demo's processes")


def processes_of(running: RunningDemo) -> dict[str, int]:
    """Return command and id of the processes that work in the demo's folder; zombies have no folder."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cwd").readlink().is_relative_to(running.folder):
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                found[command] = int(process.name)
    return found


@pytest.mark.live
@pytest.mark.parametrize("moment", ["starting mosquitto", "starting rabbitmq", "starting bridge"])
def test_demo_that_is_stopped_while_it_starts_leaves_nothing(
    running: RunningDemo, moment: str
) -> None:
    """Ctrl-C between two starts ends what has been started, and deletes the folder."""
    running.process.ready(lambda: moment in running.output, 120)
    assert processes_of(running) or moment == "starting mosquitto"

    assert running.stop(signal.SIGINT) == 0

    assert running.output.endswith("stopping\n")
    assert not processes_of(running)
    assert not running.folder.exists()


@pytest.mark.live
def test_demo_runs_until_it_is_stopped(running: RunningDemo) -> None:
    """A second demo is refused, a process that ends is started again, and SIGTERM ends a frozen one, too."""
    running.wait_until_ready()
    port = int(running.address("Prometheus").rpartition(":")[2])
    argv = [sys.executable, "-m", "bts.demo", f"--folder={running.folder}"]
    second = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 1
    assert "a demo is running already" in second.stderr

    [worker] = [pid for command, pid in processes_of(running).items() if "bts.worker" in command]
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: "worker has ended, and is started again" in running.output, "restart")
    wait_until(lambda: "predictions out 1" in running.output, "predictions", 60)

    injected = running.inject("consumer-frozen")
    wait_until(lambda: "fault: consumer-frozen" in running.output, "fault")
    assert running.stop(signal.SIGTERM) == 0
    assert not processes_of(running)
    assert not running.folder.exists()
    assert not listens(port)
    running.revert(injected)


@pytest.mark.live
def test_killed_demo_takes_its_programs_with_it(running: RunningDemo) -> None:
    """After SIGKILL no process remains, and the next demo deletes the folder."""
    running.process.ready(lambda: "starting redis" in running.output, 120)
    running.process.popen.kill()
    wait_until(lambda: not processes_of(running), "end of the processes")

    demo.claim(running.folder)

    assert [path.name for path in running.folder.iterdir()] == [demo.MARK]


def test_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    """A folder that no demo has made is not deleted."""
    (tmp_path / "thesis").touch()

    with pytest.raises(DemoError, match="choose another folder"):
        demo.claim(tmp_path)
    assert (tmp_path / "thesis").exists()


def test_missing_programs_are_named_with_the_command_that_installs_them() -> None:
    """All of them at once, and each package once."""
    with pytest.raises(DemoError, match=r"missing: no-such, not-there; .*apt-get install some$"):
        programs.find_all({"not-there": "some", "no-such": "some", "sh": "dash"})


def test_port_that_is_taken_is_replaced() -> None:
    """A free port is chosen where something listens on the preferred one; no port is chosen twice."""
    with programs._bind(0) as taken:
        taken.listen()
        number = taken.getsockname()[1]
        chosen = programs.choose_ports({"a": number, "b": number})

    assert len({number, *chosen.values()}) == 3


def test_program_that_ends_at_once_is_named_with_its_log(tmp_path: Path) -> None:
    """The message holds what the program wrote before it ended."""
    program = Program("broken", ["sh", "-c", "echo no license; exit 3"], tmp_path, port=1)
    program.start()

    with pytest.raises(DemoError, match=r"broken has ended. The end of its log:\nno license"):
        program.wait_until_ready(threading.Event())
