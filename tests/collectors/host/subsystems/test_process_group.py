from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from bts_collectors.host.kernel import kernel_file
from bts_collectors.host.subsystems import process_group
from bts_collectors.host.subsystems.process_group import (
    Group,
    ProcessGroup,
    ProcessGroupSettings,
)
from bts_exporter import NotPresent, Scrape, TargetError
from bts_exporter.testing import Samples, collect
from servers import wait_until

Machine = Callable[[dict[str, str]], dict[str, Any]]

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
BOOT = {"proc/stat": "cpu 1 2\nbtime 1700000000\n"}


def stat(name: str, user: int = 0, system: int = 0, *, start: int = 100, threads: int = 1) -> str:
    """Return a stat file with CPU times in seconds."""
    times = f"{user * TICKS} {system * TICKS}"
    return f"1 ({name}) S 0 1 1 0 -1 4 5 6 7 8 {times} 11 12 20 0 {threads} 0 {start} 2048 3 0\n"


def process(pid: int, name: str, user: int = 0, system: int = 0, **more: Any) -> dict[str, str]:
    """Return the files of a process: command line, effective user, bytes read and written."""
    cmdline, uid, got, put = (more.pop(key, 0) for key in ("cmdline", "uid", "read", "written"))
    folder = f"proc/{pid}"
    return {
        f"{folder}/stat": stat(name, user, system, **more),
        f"{folder}/cmdline": str(cmdline or name).replace(" ", "\0") + "\0",
        f"{folder}/status": f"Name:\t{name}\nUid:\t9\t{uid}\t9\t9\n",
        f"{folder}/io": f"rchar: 99\nread_bytes: {got}\nwrite_bytes: {put}\ncancelled: 1\n",
        f"{folder}/fd/0": "",
    }


INIT = process(1, "systemd")


@pytest.fixture
def collector(machine: Machine) -> Callable[..., ProcessGroup]:
    """Give a function that makes a collector of groups, by default of one: `redis`."""

    def make(*groups: Group, **settings: Any) -> ProcessGroup:
        groups = groups or (Group(name="redis", comm=re.compile("^redis-server$")),)
        return ProcessGroup(
            ProcessGroup.Config(
                **machine(BOOT | INIT), settings=ProcessGroupSettings(groups=groups, **settings)
            )
        )

    return make


def cpu(found: Samples, group: str = "redis") -> tuple[float, float]:
    """Return the CPU seconds of a group, in user and in system mode."""
    seconds = found["bts_process_group_cpu_seconds_total"]
    return seconds[group, "user"], seconds[group, "system"]


def members(found: Samples) -> dict[str, float]:
    """Return the number of processes by group."""
    return {labels[0]: value for labels, value in found["bts_process_group_processes"].items()}


def record_paths(monkeypatch: pytest.MonkeyPatch, function: str) -> list[str]:
    """Return the list of paths that a function of the module is called with from now on."""
    paths: list[str] = []
    real = getattr(process_group, function)

    def listen(path: str) -> Any:
        paths.append(path)
        return real(path)

    monkeypatch.setattr(process_group, function, listen)
    return paths


def test_figures(machine: Machine, collector: Callable[..., ProcessGroup]) -> None:
    """The values of a group's processes are summed; the start time is that of the oldest one."""
    one = collector()
    machine(process(7, "redis-server", 5, 2, start=900 * TICKS, threads=4, read=10, written=20))
    machine(process(8, "redis-server", 1, 1, start=800 * TICKS, read=1, written=2))
    machine(process(9, "other", 100, 100, start=1))

    found = collect(one)
    assert found.pop("bts_process_group_open_fds") is not None  # an inode of /proc
    assert found == {
        "bts_process_group_processes": {("redis",): 2},
        "bts_process_group_threads": {("redis",): 5},
        "bts_process_group_cpu_seconds_total": {("redis", "user"): 6, ("redis", "system"): 3},
        "bts_process_group_resident_memory_bytes": {("redis",): 2 * 3 * PAGE},
        "bts_process_group_oldest_start_time_seconds": {("redis",): 1700000800},
        "bts_process_group_read_bytes_total": {("redis",): 11},
        "bts_process_group_written_bytes_total": {("redis",): 22},
        "bts_process_group_hidden_processes": {("redis",): 0},
    }


def test_no_process(collector: Callable[..., ProcessGroup]) -> None:
    """A group without processes has 0 for all counts, and no start time."""
    found = collect(collector())

    assert members(found) == {"redis": 0}
    assert cpu(found) == (0, 0)
    assert found["bts_process_group_open_fds"] == {("redis",): 0}
    assert "bts_process_group_oldest_start_time_seconds" not in found
    assert "bts_process_group_read_bytes_total" not in found


def test_counters_never_go_back(
    machine: Machine, collector: Callable[..., ProcessGroup], tmp_path: Path
) -> None:
    """The counters of a group include processes that have ended."""
    one = collector()
    machine(process(7, "redis-server", 50, 20, read=1000) | process(8, "redis-server", 1, 1))
    collect(one)
    machine(process(7, "redis-server", 60, 21, read=1500))
    assert cpu(collect(one)) == (61, 22)

    shutil.rmtree(tmp_path / "proc/7")
    machine(process(8, "redis-server", 3, 1))
    found = collect(one)
    assert cpu(found) == (63, 22)
    assert found["bts_process_group_read_bytes_total"] == {("redis",): 1500}

    shutil.rmtree(tmp_path / "proc/8")
    found = collect(one)
    assert (members(found), cpu(found)) == ({"redis": 0}, (63, 22))


def test_id_is_used_again(machine: Machine, collector: Callable[..., ProcessGroup]) -> None:
    """A new process with the same id, recognized by its start time, adds all of its counters."""
    one = collector()
    machine(process(7, "redis-server", 50, start=100))
    collect(one)
    machine(process(7, "redis-server", 4, start=200))

    assert cpu(collect(one)) == (54, 0)


def test_rename_in_a_group(machine: Machine, collector: Callable[..., ProcessGroup]) -> None:
    """A process that changes its name and stays in the group is not counted twice."""
    one = collector(Group(name="redis", comm=re.compile("redis")))
    machine(process(7, "redis-server", 50))
    collect(one)
    machine(process(7, "redis-bgsave", 51))

    assert cpu(collect(one)) == (51, 0)


def test_execution_of_another_program(
    machine: Machine, collector: Callable[..., ProcessGroup]
) -> None:
    """A process that executes another program changes its group, after a while if it had none."""
    one = collector()
    machine(process(7, "sh", 1))
    for _ in range(5):
        assert members(collect(one)) == {"redis": 0}

    machine({"proc/7/stat": stat("redis-server", 2)})
    found = [collect(one) for _ in range(process_group._SCANS_WITHOUT_GROUP)]
    assert (members(found[-1]), cpu(found[-1])) == ({"redis": 1}, (2, 0))

    machine({"proc/7/stat": stat("sh", 9)})
    assert (members(collect(one)), cpu(collect(one))) == ({"redis": 0}, (2, 0))


def test_execution_of_another_program_of_the_same_name(
    machine: Machine, collector: Callable[..., ProcessGroup]
) -> None:
    """The group of a process that keeps its name is checked again in turn."""
    one = collector(
        Group(name="worker", cmdline=re.compile("worker")),
        Group(name="manager", cmdline=re.compile("manager")),
    )
    machine(process(7, "python", cmdline="python -m launcher"))
    for _ in range(3):
        assert members(collect(one)) == {"worker": 0, "manager": 0}

    machine(process(7, "python", cmdline="python -m worker"))
    found = [collect(one) for _ in range(process_group._SCANS_WITHOUT_GROUP)]
    assert members(found[-1]) == {"worker": 1, "manager": 0}

    machine(process(7, "python", cmdline="python -m manager"))
    found = [collect(one) for _ in range(process_group._SCANS_UNCHANGED)]
    assert members(found[-1]) == {"worker": 0, "manager": 1}


def test_process_read_before_its_program_runs(
    machine: Machine, collector: Callable[..., ProcessGroup]
) -> None:
    """A process that was read before it executed its program is in its group in the next scrape."""
    one = collector(Group(name="worker", cmdline=re.compile("worker")))
    machine(process(7, "python", cmdline="python -m manager"))
    assert members(collect(one)) == {"worker": 0}

    machine(process(7, "python", cmdline="python -m worker"))
    assert members(collect(one)) == {"worker": 1}


def test_processes_without_a_group_are_rarely_read(
    machine: Machine, collector: Callable[..., ProcessGroup], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process without a group is read in its first two scrapes, then in every eighth."""
    one = collector()
    machine(process(7, "other"))
    looked = record_paths(monkeypatch, "read_content")
    collect(one)
    collect(one)
    assert sum(folder.endswith("/7") for folder in looked) == 2

    looked.clear()
    for _ in range(3 * process_group._SCANS_WITHOUT_GROUP):
        collect(one)
    assert sum(folder.endswith("/7") for folder in looked) == 3


def test_unchanged_process_is_rarely_read(
    machine: Machine, collector: Callable[..., ProcessGroup], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While its stat does not change, io of a process is read only now and then."""
    one = collector()
    machine(process(7, "redis-server", 5, 2, threads=4, read=10))
    read = record_paths(monkeypatch, "read")
    first, *others = [collect(one) for _ in range(2 + 3 * process_group._SCANS_UNCHANGED)]

    assert all(found == first for found in others)
    # In the first two scans, and three times more, one of which may be among these.
    assert sum(path.endswith("/7/io") for path in read) in {4, 5}


def test_changed_process_is_read_at_once(
    machine: Machine, collector: Callable[..., ProcessGroup]
) -> None:
    """If stat has changed, io is read in the same scrape."""
    one = collector()
    machine(process(7, "redis-server", 5, 2, read=10))
    for _ in range(3):
        collect(one)
    machine(process(7, "redis-server", 6, 2, read=400))

    found = collect(one)

    assert cpu(found) == (6, 2)
    assert found["bts_process_group_read_bytes_total"] == {("redis",): 400}


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc")
def test_files_that_stay_open(
    machine: Machine,
    collector: Callable[..., ProcessGroup],
    opened: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The files of some members stay open; a new process with the same id is read from its own file."""
    monkeypatch.setattr(kernel_file, "is_kernel_made", lambda _: True)
    monkeypatch.setattr(process_group, "_KEPT_OPEN", 2)
    one = collector()
    for pid in range(7, 11):
        machine(process(pid, "redis-server", 1))
    found = [collect(one) for _ in range(3)]

    assert [members(each) for each in found] == [{"redis": 4}] * 3
    assert opened() == 2
    for pid in range(7, 10):
        shutil.rmtree(tmp_path / f"proc/{pid}")
    assert members(collect(one)) == {"redis": 1}
    assert opened() <= 1


def test_first_group_that_matches(machine: Machine, collector: Callable[..., ProcessGroup]) -> None:
    """A process is counted in one group only, so that groups can be summed."""
    one = collector(
        Group(name="bus", cmdline=re.compile("dbus")),
        Group(name="python", comm=re.compile("^python")),
        Group(name="rest", comm=re.compile("")),
    )
    machine(process(7, "python3", cmdline="python3 dbus.py") | process(8, "python3"))

    assert members(collect(one)) == {"bus": 1, "python": 1, "rest": 1}


def test_all_expressions(machine: Machine, collector: Callable[..., ProcessGroup]) -> None:
    """All expressions of a group must match; a user is matched by name, or by id without a name."""
    machine({"root/etc/passwd": "root:x:0:0::/:/bin/sh\nredis:x:101:101::/:/bin/sh\nbroken\n"})
    one = collector(
        Group(
            name="cache",
            comm=re.compile("^redis"),
            cmdline=re.compile("--port 6379"),
            user=re.compile("^redis$"),
        ),
        Group(name="nameless", user=re.compile("^64021$")),
    )
    machine(process(7, "redis", uid=101, cmdline="redis --port 6379"))
    machine(process(8, "redis", uid=0, cmdline="redis --port 6379"))
    machine(process(9, "redis", uid=101, cmdline="redis --port 6380"))
    machine(process(10, "x", uid=101, cmdline="x --port 6379"))
    machine(process(11, "redis", uid=64021))

    assert members(collect(one)) == {"cache": 1, "nameless": 1}


def test_users_without_names(machine: Machine, collector: Callable[..., ProcessGroup]) -> None:
    """Without a passwd file groups by user are an error, not 0 processes."""
    one = collector(Group(name="cache", user=re.compile("redis")))

    with pytest.raises(TargetError, match="/root/etc/passwd is absent: process_group"):
        collect(one)


def test_hidden_process(
    machine: Machine, collector: Callable[..., ProcessGroup], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process without permission is counted, without its bytes, and reported as hidden."""
    one = collector()
    machine(process(7, "redis-server", 5, read=7) | process(8, "redis-server", 1, read=9))
    real = process_group.read

    def refuse(path: str) -> bytes:
        if path.endswith("/8/io"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(process_group, "read", refuse)
    found = collect(one)
    assert (members(found), cpu(found)) == ({"redis": 2}, (6, 0))
    assert found["bts_process_group_read_bytes_total"] == {("redis",): 7}
    assert found["bts_process_group_hidden_processes"] == {("redis",): 1}


def test_process_that_ends(machine: Machine, collector: Callable[..., ProcessGroup]) -> None:
    """A process that ends during the collection loses only itself."""
    one = collector()
    machine(process(7, "redis-server", 5))
    machine({"proc/6/comm": "gone", "proc/8/stat": stat("redis-server", 1)})

    found = collect(one)
    assert found["bts_process_group_read_bytes_total"] == {("redis",): 0}
    assert cpu(found) == (6, 0)


def test_too_many_open_files(
    collector: Callable[..., ProcessGroup], machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that is not about the process fails the scrape, and counters continue after it."""
    one = collector()
    machine(process(7, "redis-server", 5) | process(8, "redis-server", 5))
    collect(one)

    def refuse(folder: str) -> bytes:
        raise OSError(24, "Too many open files", folder)

    with monkeypatch.context() as patch:
        patch.setattr(process_group, "read_content", refuse)
        with pytest.raises(OSError, match="Too many open files"):
            collect(one)
    assert cpu(collect(one)) == (10, 0)


def test_scan_limit(machine: Machine, collector: Callable[..., ProcessGroup]) -> None:
    """With more processes than the limit there are no values, and the error has the setting."""
    one = collector(Group(name="a", comm=re.compile("a")), scan_limit=2)
    machine(process(7, "a") | process(8, "a"))

    with pytest.raises(
        TargetError, match=r"3 processes are more than process_group.scan_limit \(2\)"
    ):
        collect(one)


def test_state_of_ended_processes_is_dropped(
    machine: Machine, collector: Callable[..., ProcessGroup], tmp_path: Path
) -> None:
    """The state of processes that have ended is dropped."""
    one = collector()
    machine(process(7, "redis-server") | process(8, "x"))
    collect(one)
    assert one._known.keys() == {"1", "7", "8"}

    shutil.rmtree(tmp_path / "proc/7")
    shutil.rmtree(tmp_path / "proc/8")
    collect(one)
    assert one._known.keys() == {"1"}


def test_overlapping_scrapes(
    machine: Machine, collector: Callable[..., ProcessGroup], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Concurrent scrapes run one after another, so that each increase is added once."""
    one = collector()
    machine(process(7, "redis-server", 5))
    meeting = threading.Barrier(2)
    met: list[str] = []
    real = process_group.read_content

    def meet(folder: str) -> bytes:
        with contextlib.suppress(threading.BrokenBarrierError):
            meeting.wait(0.3)
            met.append(folder)
        return real(folder)

    monkeypatch.setattr(process_group, "read_content", meet)
    threads = [
        threading.Thread(target=one.collect, args=[Scrape(monotonic() + 60)]) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert met == []
    assert cpu(collect(one)) == (5, 0)


def test_real_processes(tmp_path: Path) -> None:
    """Real processes are found by their command lines, and their usage is served."""
    work = (
        f"import sys; tag = {tmp_path.name!r}\n"
        "data = open(sys.argv[1], 'wb')\n"
        "data.write(b'x' * 1048576); data.flush(); __import__('os').fsync(data.fileno())\n"
        "while __import__('time').process_time() < 0.3: pass\n"
        "print(flush=True); sys.stdin.read()\n"
    )
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", work, str(tmp_path / f"data{number}")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for number in range(2)
    ]
    settings = ProcessGroupSettings(
        groups=(
            Group(name="ours", cmdline=re.compile(re.escape(tmp_path.name)), comm=re.compile("py")),
        )
    )
    one = ProcessGroup(ProcessGroup.Config(settings=settings))
    try:
        for worker in workers:
            assert worker.stdout is not None
            worker.stdout.readline()
        found = collect(one)
    finally:
        for worker in workers:
            worker.communicate()

    assert members(found) == {"ours": 2}
    assert sum(cpu(found, "ours")) >= 0.6 - 4 / TICKS
    assert found["bts_process_group_open_fds"]["ours",] >= 2 * 4
    assert found["bts_process_group_resident_memory_bytes"]["ours",] > 2 * 1024**2
    wait_until(lambda: members(collect(one)) == {"ours": 0}, "both have ended")
    assert cpu(collect(one), "ours") >= cpu(found, "ours")


def test_no_groups(machine: Machine) -> None:
    """Without groups there is nothing to read."""
    with pytest.raises(NotPresent, match=r"process_group.groups is not set"):
        collect(ProcessGroup(ProcessGroup.Config(**machine({}))))


@pytest.mark.parametrize(
    ("file", "content"),
    [("stat", "garbage\n"), ("7/stat", "7 (x\n"), ("7/io", "read_bytes: 1\n"), ("7/io", "")],
)
def test_error_names_the_file(
    machine: Machine, collector: Callable[..., ProcessGroup], file: str, content: str
) -> None:
    """The error for an unreadable file has its path."""
    one = collector()
    machine(process(7, "redis-server") | {f"proc/{file}": content})

    with pytest.raises(TargetError, match=f"/proc/{file}: "):
        collect(one)
