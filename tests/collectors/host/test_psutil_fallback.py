"""Systems other than Linux, simulated: without /proc and /sys, and without the parts of Python that only Linux has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bts_collectors.host import SUBSYSTEMS, psutil_fallback
from bts_collectors.host.psutil_fallback import for_this_platform
from bts_exporter import NotPresent
from bts_exporter.testing import Samples, collect

Machine = Callable[[dict[str, str]], dict[str, Any]]

#: A process on another system, which prints the outcome of every subsystem.
ELSEWHERE = """
import ctypes, json, socket, sys, os
try:
    import psutil  # before it looks at the system's name
except ModuleNotFoundError:
    pass
sys.platform = "darwin"
for module, names in (
    (socket, ("AF_NETLINK", "NETLINK_ROUTE", "AF_PACKET", "SO_PEERCRED", "SO_BINDTODEVICE")),
    (os, ("sched_getaffinity", "O_PATH", "O_DIRECT", "pidfd_open", "posix_fadvise", "getrandom")),
):
    for name in names:
        if hasattr(module, name):
            delattr(module, name)

class Library:  # that of another system has no adjtimex
    def __init__(self, *args, **kwargs): pass

ctypes.CDLL = Library

from bts_collectors.host import SUBSYSTEMS
from bts_collectors.host.psutil_fallback import for_this_platform
from bts_exporter import NotPresent
from bts_exporter.testing import collect

paths = {"procfs": "/absent/proc", "sysfs": "/absent/sys", "udev_data": "/absent/udev"}
outcomes = {}
for name, cls in SUBSYSTEMS.items():
    here = for_this_platform(cls)
    root = "/" if here is not cls else "/absent"
    collector = here(here.Config(**paths, rootfs=root))
    try:
        outcomes[name] = sorted(collect(collector))
    except NotPresent as error:
        outcomes[name] = str(error)
    except Exception as error:
        outcomes[name] = {"fails": repr(error)}
    finally:
        collector.stop()
print(json.dumps(outcomes))
"""

#: Subsystems that work on every system without psutil.
EVERYWHERE = {"build_info", "textfile", "time", "uname"}
HELPED = {"cpu", "diskstats", "filesystem", "loadavg", "meminfo", "netdev"}


@pytest.fixture
def psutil() -> Any:
    """Give psutil, or skip the test."""
    return pytest.importorskip("psutil")


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> Callable[[str], Samples]:
    """Give a function that collects a subsystem as on a system without /proc."""

    def from_name(name: str) -> Samples:
        monkeypatch.setattr(sys, "platform", "darwin")
        subsystem = for_this_platform(SUBSYSTEMS[name])
        collector = subsystem(subsystem.Config(**(machine({}) | {"rootfs": "/"})))
        try:
            return collect(collector)
        finally:
            collector.stop()

    return from_name


def test_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Linux no subsystem is replaced."""
    monkeypatch.setattr(sys, "platform", "linux")

    assert all(for_this_platform(cls) is cls for cls in SUBSYSTEMS.values())


def test_the_same_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    """On other systems some subsystems have another class, with the same name, settings and metrics."""
    monkeypatch.setattr(sys, "platform", "darwin")
    others = {name: cls for name, cls in SUBSYSTEMS.items() if for_this_platform(cls) is not cls}

    assert others.keys() == HELPED
    for name, cls in others.items():
        other = for_this_platform(cls)
        assert (other.name, other.Settings, other.local) == (name, cls.Settings, cls.local)
        assert list(other.declared()) == list(cls.declared())


@pytest.mark.skipif(sys.platform != "linux", reason="the simulated system is the real one")
def test_every_subsystem_elsewhere() -> None:
    """Without Linux's parts of Python all subsystems can be imported, and none fails."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env=env,
        cwd=Path(__file__).parents[3],
    )
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(done.stdout)

    assert {name: found for name, found in outcomes.items() if isinstance(found, dict)} == {}
    read = {name for name, found in outcomes.items() if isinstance(found, list) and found}
    assert read - HELPED == EVERYWHERE
    assert read >= {"loadavg"}


def test_cpu(elsewhere: Callable[[str], Samples], psutil: Any) -> None:
    """Each CPU has its modes, which only increase."""
    before, after = elsewhere("cpu"), elsewhere("cpu")

    assert {key[0] for key in before["node_cpu_seconds_total"]} == {
        str(number) for number in range(len(psutil.cpu_times(percpu=True)))
    }
    assert {key[1] for key in before["node_cpu_seconds_total"]} >= {"user", "system", "idle"}
    for key, value in before["node_cpu_seconds_total"].items():
        assert after["node_cpu_seconds_total"][key] >= value or key[1] == "idle"


def test_meminfo(elsewhere: Callable[[str], Samples], psutil: Any) -> None:
    """Memory and swap have the same names as on Linux, and are in bytes."""
    found = elsewhere("meminfo")

    assert found.keys() == {
        f"node_memory_{field}_bytes"
        for field in ("MemTotal", "MemAvailable", "MemFree", "SwapTotal", "SwapFree")
    }
    assert found["node_memory_MemTotal_bytes"] == {(): psutil.virtual_memory().total}


def test_loadavg(elsewhere: Callable[[str], Samples]) -> None:
    """Load averages need no psutil."""
    assert elsewhere("loadavg").keys() == {"node_load1", "node_load5", "node_load15"}


Partition = namedtuple("Partition", "device mountpoint fstype opts")  # noqa: PYI024  # as psutil's


def test_filesystem(
    elsewhere: Callable[[str], Samples], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Mounts have their values, whatever their names; unknown values have no series."""
    (tmp_path / "a \\b").mkdir()
    partitions = [
        Partition("/dev/disk1s1", "/", "apfs", "rw,local"),
        Partition("/dev/my disk", f"{tmp_path}/a \\b", "apfs", "ro,local"),
        Partition("devfs", "/dev", "devfs", "rw"),
    ]
    monkeypatch.setattr(psutil_fallback, "_call_psutil", lambda function: partitions)
    found = elsewhere("filesystem")
    size = os.statvfs("/")
    root, other = (
        ("/dev/disk1s1", "/", "apfs", ""),
        ("/dev/my disk", f"{tmp_path}/a \\b", "apfs", ""),
    )

    assert found["node_filesystem_size_bytes"][root] == size.f_blocks * size.f_frsize
    assert found["node_filesystem_readonly"] == {root: 0, other: 1}
    assert "node_filesystem_mount_info" not in found


def test_this_machines_mounts(elsewhere: Callable[[str], Samples], psutil: Any) -> None:
    """The mounts that psutil lists on this host are parsed."""
    found = elsewhere("filesystem") if psutil.disk_partitions() else {}

    assert all(value in {0, 1} for value in found.get("node_filesystem_readonly", {}).values())


def test_diskstats(
    elsewhere: Callable[[str], Samples], monkeypatch: pytest.MonkeyPatch, psutil: Any
) -> None:
    """Disks have the counters of the system, in seconds and bytes."""
    counters = namedtuple("counters", "read_count write_count read_bytes read_time")  # noqa: PYI024
    disks = {"disk0": counters(1, 2, 3, 4000), "ram0": counters(9, 9, 9, 9)}
    monkeypatch.setattr(psutil_fallback, "_call_psutil", lambda function, perdisk: disks)

    assert elsewhere("diskstats") == {
        "node_disk_reads_completed_total": {("disk0",): 1},
        "node_disk_read_bytes_total": {("disk0",): 3},
        "node_disk_read_time_seconds_total": {("disk0",): 4},
        "node_disk_writes_completed_total": {("disk0",): 2},
    }


def test_without_disks(
    elsewhere: Callable[[str], Samples], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without counters of disks in psutil there are no series."""
    monkeypatch.setattr(psutil_fallback, "_call_psutil", lambda function, perdisk: None)

    assert elsewhere("diskstats") == {}


def test_netdev(elsewhere: Callable[[str], Samples], psutil: Any) -> None:
    """Network devices have bytes, packets, errors and drops in both directions."""
    found = elsewhere("netdev")

    assert len(found) == 8
    assert set(found["node_network_receive_bytes_total"]) == {
        (device,) for device in psutil.net_io_counters(pernic=True)
    }


def test_without_psutil(
    elsewhere: Callable[[str], Samples], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without psutil there is nothing to read, and the message has the cure."""
    monkeypatch.setitem(sys.modules, "psutil", None)

    with pytest.raises(NotPresent, match="psutil is needed on darwin: pip install"):
        elsewhere("meminfo")
