from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bts_collectors.host.subsystems import cgroup_group
from bts_collectors.host.subsystems.cgroup_group import CgroupGroup, CgroupGroupSettings
from bts_exporter import NotPresent, TargetError
from bts_exporter.testing import Samples, collect

Machine = Callable[[dict[str, str]], dict[str, Any]]
#: Collects from files below the root, with names and other settings.
Run = Callable[..., Samples]

TICKS = os.sysconf("SC_CLK_TCK")
INFINITY = float("inf")

PRESSURE = (
    "some avg10=0.00 avg60=0.00 avg300=0.00 total=3000000\n"
    "full avg10=0.00 avg60=0.00 avg300=0.00 total=1000000\n"
)
SERVICE = "system.slice/a.service"
V2 = {
    "cgroup.controllers": "cpu io memory pids\n",
    f"{SERVICE}/cpu.stat": "usage_usec 9\nuser_usec 5000000\nsystem_usec 4000000\nnr_periods 8\n"
    "nr_throttled 2\nthrottled_usec 1500000\nnr_bursts 0\n",
    f"{SERVICE}/memory.current": "4096\n",
    f"{SERVICE}/memory.max": "max\n",
    f"{SERVICE}/memory.swap.current": "8192\n",
    f"{SERVICE}/memory.events": "low 1\nhigh 2\nmax 3\noom 4\noom_kill 5\noom_group_kill 6\n",
    f"{SERVICE}/io.stat": "8:0 rbytes=10 wbytes=20 rios=3 wios=4\n8:16 rbytes=1 wbytes=2 rios=1 wios=1\n",
    f"{SERVICE}/pids.current": "7\n",
    f"{SERVICE}/pids.max": "100\n",
    f"{SERVICE}/cpu.pressure": PRESSURE,
    f"{SERVICE}/memory.pressure": PRESSURE,
    f"{SERVICE}/io.pressure": PRESSURE,
}
V1 = {
    f"cpuacct/{SERVICE}/cpuacct.stat": f"user {5 * TICKS}\nsystem {4 * TICKS}\n",
    f"cpu/{SERVICE}/cpu.stat": "nr_periods 8\nnr_throttled 2\nthrottled_time 1500000000\n",
    f"memory/{SERVICE}/memory.usage_in_bytes": "4096\n",
    f"memory/{SERVICE}/memory.limit_in_bytes": "9223372036854771712\n",
    f"memory/{SERVICE}/memory.stat": "cache 1\nswap 1\ntotal_swap 8192\n",
    f"memory/{SERVICE}/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n",
    f"blkio/{SERVICE}/blkio.throttle.io_service_bytes_recursive": "8:0 Read 10\n8:0 Write 20\n"
    "8:16 Read 1\n8:16 Write 2\nTotal 33\n",
    f"blkio/{SERVICE}/blkio.throttle.io_serviced_recursive": "8:0 Read 4\n8:0 Write 5\nTotal 9\n",
    f"pids/{SERVICE}/pids.current": "7\n",
    f"pids/{SERVICE}/pids.max": "100\n",
    f"unified/{SERVICE}/cpu.pressure": PRESSURE,
    f"unified/{SERVICE}/memory.pressure": PRESSURE,
    f"unified/{SERVICE}/io.pressure": PRESSURE,
    f"unified/{SERVICE}/cpu.stat": "usage_usec 9\nuser_usec 7\nsystem_usec 7\n",
}
ALL = {
    "bts_cgroup_dropped": {(): 0},
    "bts_cgroup_cpu_seconds_total": {(SERVICE, "user"): 5, (SERVICE, "system"): 4},
    "bts_cgroup_cpu_periods_total": {(SERVICE,): 8},
    "bts_cgroup_cpu_throttled_periods_total": {(SERVICE,): 2},
    "bts_cgroup_cpu_throttled_seconds_total": {(SERVICE,): 1.5},
    "bts_cgroup_memory_bytes": {(SERVICE,): 4096},
    "bts_cgroup_memory_max_bytes": {(SERVICE,): INFINITY},
    "bts_cgroup_memory_swap_bytes": {(SERVICE,): 8192},
    "bts_cgroup_memory_oom_kills_total": {(SERVICE,): 5},
    "bts_cgroup_io_read_bytes_total": {(SERVICE,): 11},
    "bts_cgroup_io_written_bytes_total": {(SERVICE,): 22},
    "bts_cgroup_io_reads_total": {(SERVICE,): 4},
    "bts_cgroup_io_writes_total": {(SERVICE,): 5},
    "bts_cgroup_pids": {(SERVICE,): 7},
    "bts_cgroup_pids_max": {(SERVICE,): 100},
    "bts_cgroup_pressure_waiting_seconds_total": {
        (SERVICE, resource): 3 for resource in ("cpu", "memory", "io")
    },
    "bts_cgroup_pressure_stalled_seconds_total": {
        (SERVICE, resource): 1 for resource in ("cpu", "memory", "io")
    },
}


@pytest.fixture
def run(machine: Machine) -> Run:
    """Give a function that collects cgroups by names."""

    def collect_from(files: dict[str, str], *names: str, **settings: Any) -> Samples:
        paths = machine({f"sys/fs/cgroup/{path}": content for path, content in files.items()})
        config = CgroupGroup.Config(**paths, settings=CgroupGroupSettings(names=names, **settings))
        return collect(CgroupGroup(config))

    return collect_from


def cgroups(found: Samples) -> list[str]:
    """Return the cgroups with a known number of processes."""
    return [labels[0] for labels in found.get("bts_cgroup_pids", {})]


def tree(*names: str) -> dict[str, str]:
    """Return the files of cgroups of version 2."""
    return V2 | {f"{name}/pids.current": "1\n" for name in names}


def test_version_2(run: Run) -> None:
    """All values of version 2 are served, in seconds and bytes."""
    assert run(V2, SERVICE) == ALL


def test_version_1(run: Run) -> None:
    """Version 1 gives the same values, with pressure from systemd's version 2."""
    assert run(V1, SERVICE) == ALL


def test_version_1_without_accounting_of_cpu(run: Run) -> None:
    """Without cpuacct the CPU time is that of systemd's version 2."""
    files = {path: content for path, content in V1.items() if not path.startswith("cpuacct")}

    assert run(files, SERVICE)["bts_cgroup_cpu_seconds_total"] == {
        (SERVICE, "user"): 7e-6,
        (SERVICE, "system"): 7e-6,
    }


def test_globs(run: Run) -> None:
    """Names are globs, with `**` for any depth; each cgroup is served once."""
    files = tree("system.slice/b.service", "user.slice", "user.slice/user-0.slice/c.scope")

    assert cgroups(run(files, "system.slice/*.service", "system.slice/a*", "user.slice/")) == [
        SERVICE,
        "system.slice/b.service",
        "user.slice",
    ]
    assert cgroups(run(files, "**/*.scope")) == ["user.slice/user-0.slice/c.scope"]
    assert cgroups(run(files, "nothing*")) == []


def test_escaped_names(run: Run) -> None:
    """Names with backslashes, as systemd escapes them, are found and served unchanged."""
    name = r"system.slice/system-a\x2db.slice"

    assert cgroups(run(tree(name), "system.slice/*.slice")) == [name]
    assert cgroups(run(tree(name), name)) == [name]


def test_too_many(run: Run) -> None:
    """The first cgroups by name are served, and the number of the others."""
    found = run(tree("c", "a", "d", "b"), "?", max_cgroups=3)

    assert cgroups(found) == ["a", "b", "c"]
    assert found["bts_cgroup_dropped"] == {(): 1}


def test_files_are_no_groups(run: Run) -> None:
    """Files that match a name do not count as cgroups beyond the limit."""
    found = run(V2, "*", f"{SERVICE}*", f"{SERVICE}/*", max_cgroups=0)

    assert found == {"bts_cgroup_dropped": {(): 2}}


def test_controller_off(run: Run) -> None:
    """Values of a controller that is off have no series."""
    files = {path: content for path, content in V2.items() if "memory" not in path}

    found = run(files, SERVICE)
    assert not [name for name in found if "memory" in name]
    assert found.keys() == {name for name in ALL if "memory" not in name}


def test_other_root(machine: Machine, tmp_path: Path) -> None:
    """The root can be set."""
    machine({f"elsewhere/{path}": content for path, content in V2.items()})
    settings = CgroupGroupSettings(names=(SERVICE,), root=str(tmp_path / "elsewhere"))

    assert collect(CgroupGroup(CgroupGroup.Config(settings=settings))) == ALL


@pytest.mark.parametrize("number", [errno.ENODEV, errno.ENOTSUP])
def test_removed_cgroup(run: Run, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """A cgroup that is removed during the collection, and pressure that is switched off, are left out."""
    real = cgroup_group.read

    def refuse(path: str) -> bytes:
        if path.endswith(f"{SERVICE}/cpu.pressure"):
            raise OSError(number, os.strerror(number), path)
        return real(path)

    monkeypatch.setattr(cgroup_group, "read", refuse)
    found = run(V2, SERVICE)
    assert (SERVICE, "cpu") not in found["bts_cgroup_pressure_waiting_seconds_total"]
    assert found.keys() == ALL.keys()


def test_unreadable(run: Run) -> None:
    """A file that cannot be read for another reason is an error."""
    files = V2 | {f"{SERVICE}/memory.max/below": ""}
    del files[f"{SERVICE}/memory.max"]

    with pytest.raises(IsADirectoryError):
        run(files, SERVICE)


@pytest.mark.parametrize(
    "file", sorted({path for path in V2 if "/" in path} - {f"{SERVICE}/io.stat"})
)
def test_error_names_the_file(run: Run, file: str) -> None:
    """The error for an unreadable file has its path."""
    with pytest.raises(
        TargetError, match=f"/sys/fs/cgroup/{file}: unexpected content: 'what is this"
    ):
        run(V2 | {file: "what is this\n"}, SERVICE)


@pytest.mark.parametrize("name", ["", "/system.slice", "../etc", "system.slice/../.."])
def test_names_outside_of_the_root(name: str) -> None:
    """Names outside of the root are an error."""
    with pytest.raises(ValueError, match="is not a path below the root"):
        CgroupGroupSettings(names=(name,))


def test_no_names(run: Run) -> None:
    """Without names there is nothing to read."""
    with pytest.raises(NotPresent, match=r"cgroup_group.names is not set"):
        run(V2)


def test_no_cgroups(run: Run) -> None:
    """A host without cgroups has nothing to read."""
    with pytest.raises(NotPresent, match="/sys/fs/cgroup has no cgroups"):
        run({}, SERVICE)


def test_real_groups() -> None:
    """The values of a real cgroup lie between those of the kernel before and after."""
    root = next(
        (path for path in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified") if _is_version_2(path)), None
    )
    found = sorted(Path(root).glob("*/cpu.stat")) if root else []
    if not found:
        pytest.skip("there is no cgroup of version 2")
    name = found[0].parent.name
    one = CgroupGroup(CgroupGroup.Config(settings=CgroupGroupSettings(names=(name,), root=root)))

    def user_seconds() -> float:
        return collect(one)["bts_cgroup_cpu_seconds_total"][name, "user"]

    before = user_seconds()
    stat = dict(line.split() for line in found[0].read_text(encoding="utf-8").splitlines())
    assert before <= int(stat["user_usec"]) / 1e6 <= user_seconds()


def _is_version_2(path: str) -> bool:
    return Path(path, "cgroup.controllers").exists()
