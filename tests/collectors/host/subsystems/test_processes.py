from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from bts_collectors.host.kernel import kernel_file
from bts_collectors.host.kernel.parts import Parts
from bts_collectors.host.kernel.processes import TaskStates
from bts_collectors.host.subsystems.processes import Processes, ProcessesSettings
from bts_exporter import NotPresent, Scrape, TargetError
from bts_exporter.testing import Samples, collect, samples

Machine = Callable[[dict[str, str]], dict[str, Any]]

LIMITS = {"proc/sys/kernel/pid_max": "4194304\n", "proc/sys/kernel/threads-max": "28909\n"}


def stat(state: str, threads: int = 1) -> str:
    """Return a stat file."""
    return f"1 (a b) {state} 0 1 1 0 -1 4 5 6 7 8 9 10 11 12 20 0 {threads} 0 100 2048 3 0\n"


FOUR = LIMITS | {
    "proc/1/stat": stat("S"),
    "proc/2/stat": stat("I"),
    "proc/30/stat": stat("S"),
    "proc/40/stat": stat("S", 3),
    "proc/40/task/40/stat": stat("S", 3),
    "proc/40/task/41/stat": stat("R", 3),
    "proc/40/task/42/stat": stat("D", 3),
}


def run(machine: Machine, files: dict[str, str], limit: int = 100) -> Samples:
    """Return the samples collected from files."""
    settings = ProcessesSettings(scan_limit=limit)
    return collect(Processes(Processes.Config(**machine(files), settings=settings)))


def test_states(machine: Machine) -> None:
    """Processes and threads are counted by state; the limits of both are served."""
    assert run(machine, FOUR) == {
        "node_processes_pids": {(): 4},
        "node_processes_threads": {(): 6},
        "node_processes_state": {("S",): 3, ("I",): 1},
        "node_processes_threads_state": {("S",): 3, ("I",): 1, ("R",): 1, ("D",): 1},
        "node_processes_max_processes": {(): 4194304},
        "node_processes_max_threads": {(): 28909},
    }


def test_states_are_followed(machine: Machine) -> None:
    """Each scrape has the current states."""
    collector = Processes(Processes.Config(**machine(FOUR)))
    for state in "SDDRS":
        machine({"proc/30/stat": stat(state), "proc/40/task/41/stat": stat(state, 3)})
        found = collect(collector)

        others = {("S",): 2, ("I",): 1}
        assert found["node_processes_state"] == others | {
            (state,): others.get((state,), 0) + 1,
        }
        threads = {("S",): 2, ("I",): 1, ("D",): 1}
        assert found["node_processes_threads_state"] == threads | {
            (state,): threads.get((state,), 0) + 2,
        }


def test_ended_process(machine: Machine) -> None:
    """A process or a thread that ends during the collection is left out."""
    gone = {"proc/30/comm": "x", "proc/40/task/43/comm": "x"}
    files = {path: content for path, content in FOUR.items() if not path.startswith("proc/30/")}

    found = run(machine, files | gone)
    assert found["node_processes_state"] == {("S",): 2, ("I",): 1}
    assert found["node_processes_threads_state"] == {("S",): 2, ("I",): 1, ("R",): 1, ("D",): 1}


def test_too_many_processes(machine: Machine) -> None:
    """With more processes than the limit, only their number is served."""
    assert run(machine, FOUR, 3) == {
        "node_processes_pids": {(): 4},
        "node_processes_max_processes": {(): 4194304},
        "node_processes_max_threads": {(): 28909},
    }


def test_too_many_threads(machine: Machine) -> None:
    """With more threads than the limit, only their states are left out."""
    found = run(machine, FOUR, 5)

    assert found["node_processes_threads"] == {(): 6}
    assert "node_processes_state" in found
    assert "node_processes_threads_state" not in found


def test_hidden_processes(machine: Machine) -> None:
    """If processes are hidden the limits are served, no wrong numbers, and the error has the cure."""
    files = {path: content for path, content in FOUR.items() if path != "proc/1/stat"}
    collector = Processes(Processes.Config(**machine(files)))
    scrape = Scrape(monotonic() + 60)

    with pytest.raises(TargetError, match="hides processes of other users"):
        collector.collect(scrape)
    assert samples(collector, scrape).keys() == {
        "node_processes_max_processes",
        "node_processes_max_threads",
    }


def test_real_threads() -> None:
    """On this host the numbers of processes and threads are consistent, and include our own."""
    go = threading.Event()
    waiting = [threading.Thread(target=go.wait) for _ in range(5)]
    for thread in waiting:
        thread.start()
    try:
        found = collect(Processes(Processes.Config()))
    finally:
        go.set()
        for thread in waiting:
            thread.join()

    assert found["node_processes_state"][("R",)] >= 1
    assert found["node_processes_threads"][()] >= found["node_processes_pids"][()]
    assert found["node_processes_max_processes"][()] > os.getpid()


def test_processes_come_and_go() -> None:
    """A process that has ended is not counted in the next scrape; a new one is."""
    sleeps = [subprocess.Popen(["/bin/sleep", "60"]) for _ in range(3)]
    try:
        folders = [f"/proc/{sleep.pid}" for sleep in sleeps]
        known = TaskStates()
        assert [folder for folder, _, _ in known.read(folders, Parts())] == folders
        sleeps[1].kill()
        sleeps[1].wait()
        assert [folder for folder, _, _ in known.read(folders, Parts())] == [folders[0], folders[2]]
    finally:
        for sleep in sleeps:
            sleep.kill()
            sleep.wait()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc")
def test_few_files_stay_open(
    machine: Machine, opened: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With many processes only the files of the first ones stay open."""
    monkeypatch.setattr(kernel_file, "is_kernel_made", lambda _: True)
    procfs = machine({f"proc/{pid}/stat": stat("S") for pid in range(1, 301)})["procfs"]
    folders = [f"{procfs}/{pid}" for pid in range(1, 301)]
    states = TaskStates()

    assert len(states.read(folders, Parts())) == 300
    assert len(states.read(folders, Parts())) == 300
    assert 0 < opened() <= 150
    assert states.read([], Parts()) == []
    assert opened() == 0


@pytest.mark.parametrize("file", LIMITS)
def test_error_names_the_file(machine: Machine, file: str) -> None:
    """The error for an unreadable limit has the path."""
    with pytest.raises(TargetError, match=f"{file}: unexpected content: 'max"):
        run(machine, FOUR | {file: "max\n"})


def test_absent(machine: Machine) -> None:
    """Without /proc there is nothing to read."""
    with pytest.raises(NotPresent, match="absent"):
        run(machine, {})
