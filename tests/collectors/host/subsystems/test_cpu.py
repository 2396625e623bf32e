from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from bts_collectors.host.subsystems.cpu import Cpu, CpuSettings, parse_list, parse_times
from bts_exporter import TargetError
from bts_exporter.testing import collect

Machine = Callable[[dict[str, str]], dict[str, Any]]

HERTZ = os.sysconf("SC_CLK_TCK")
MODES = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
SYS = "sys/devices/system/cpu"

CPUINFO = """\
processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 142
model name\t: Intel(R) Core(TM) i7-8650U CPU @ 1.90GHz
stepping\t: 10
microcode\t: 0xb4
cpu MHz\t\t: 799.998
cache size\t: 8192 KB
physical id\t: 0
core id\t\t: 3
flags\t\t: fpu aes avx avx2
bugs\t\t: mds spectre_v1
power management:

processor\t: 1
vendor_id\t: GenuineIntel
flags\t\t: other

"""


def stat(*processors: str) -> dict[str, str]:
    """Return a /proc/stat with `processors`."""
    rows = "".join(f"cpu{number} {ticks}\n" for number, ticks in enumerate(processors))
    return {"proc/stat": f"cpu  1 2 3 4\n{rows}intr 5 6\n"}


def seconds(values: Mapping[tuple[str, ...], float], cpu: str = "0") -> list[float]:
    """Return the ticks of one CPU, in the order of /proc/stat."""
    return [round(values[cpu, mode] * HERTZ) for mode in MODES]


def test_modes(machine: Machine) -> None:
    """Ticks of each CPU become seconds by mode; the line with the sum is left out."""
    samples = collect(
        Cpu(Cpu.Config(**machine(stat("1 2 3 4 5 6 7 8 9 10", "0 0 0 0 0 0 0 0 0 0"))))
    )

    assert seconds(samples["node_cpu_seconds_total"]) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert {cpu for cpu, _ in samples["node_cpu_seconds_total"]} == {"0", "1"}
    assert samples["node_cpu_guest_seconds_total"] == {
        ("0", "user"): 9 / HERTZ,
        ("0", "nice"): 10 / HERTZ,
        ("1", "user"): 0,
        ("1", "nice"): 0,
    }


def test_without_guests(machine: Machine) -> None:
    """With `guest: false` there is no metric for guests."""
    config = Cpu.Config(**machine(stat("1 2 3 4 5 6 7 8 9 10")), settings=CpuSettings(guest=False))

    assert collect(Cpu(config)).keys() == {"node_cpu_seconds_total"}


def test_old_kernels(machine: Machine) -> None:
    """Modes that the kernel does not count have no series."""
    samples = collect(Cpu(Cpu.Config(**machine(stat("1 2 3 4")))))

    assert samples.keys() == {"node_cpu_seconds_total"}
    assert {mode for _, mode in samples["node_cpu_seconds_total"]} == set(MODES[:4])


def test_fields_do_not_decrease(machine: Machine) -> None:
    """A field that decreases keeps its value until it is exceeded; the others increase."""
    collector = Cpu(Cpu.Config(**machine(stat("10 20 30 40 50 60 70 80"))))
    collect(collector)

    machine(stat("11 19 31 39 49 61 70 80"))
    samples = collect(collector)
    assert seconds(samples["node_cpu_seconds_total"]) == [11, 20, 31, 40, 50, 61, 70, 80]

    machine(stat("11 21 31 39 51 61 70 80"))
    samples = collect(collector)
    assert seconds(samples["node_cpu_seconds_total"]) == [11, 21, 31, 40, 51, 61, 70, 80]


def test_unplugged(machine: Machine) -> None:
    """If idle decreases by three seconds or more the CPU was unplugged: its new values are served."""
    idle = 100 * HERTZ
    collector = Cpu(Cpu.Config(**machine(stat(f"10 20 30 {idle} 50 60 70 80"))))
    collect(collector)

    machine(stat(f"1 2 3 {idle - 3 * HERTZ} 5 6 7 8"))
    samples = collect(collector)
    assert seconds(samples["node_cpu_seconds_total"]) == [1, 2, 3, idle - 3 * HERTZ, 5, 6, 7, 8]


def test_not_unplugged(machine: Machine) -> None:
    """If idle decreases by less than three seconds it keeps its value."""
    idle = 100 * HERTZ
    collector = Cpu(Cpu.Config(**machine(stat(f"10 20 30 {idle} 50 60 70 80"))))
    before = collect(collector)

    machine(stat(f"1 2 3 {idle - 3 * HERTZ + 1} 5 6 7 8"))
    assert collect(collector) == before


def test_offline_cpu(machine: Machine) -> None:
    """A CPU that is offline has no times, and continues from its last ones when it is back."""
    collector = Cpu(Cpu.Config(**machine(stat("1 1 1 1", "9 9 9 9"))))
    collect(collector)

    machine(stat("1 1 1 1"))
    assert {cpu for cpu, _ in collect(collector)["node_cpu_seconds_total"]} == {"0"}

    machine(stat("1 1 1 1", "8 9 9 9"))
    assert collect(collector)["node_cpu_seconds_total"]["1", "user"] == 9 / HERTZ


def test_online(machine: Machine) -> None:
    """Each CPU that is present is online or not; possible ones are left out."""
    files = {f"{SYS}/online": "0,2-3\n", f"{SYS}/present": "0-3\n", f"{SYS}/offline": "1,4-127\n"}

    samples = collect(Cpu(Cpu.Config(**machine(stat("1 1 1 1") | files))))
    assert samples["node_cpu_online"] == {("0",): 1, ("1",): 0, ("2",): 1, ("3",): 1}


def test_isolated(machine: Machine) -> None:
    """Each isolated CPU has a series."""
    files = {f"{SYS}/isolated": "1,3-5,9\n"}

    samples = collect(Cpu(Cpu.Config(**machine(stat("1 1 1 1") | files))))
    assert samples["node_cpu_isolated"] == {(cpu,): 1 for cpu in "13459"}


def throttled(cpu: int, package: str, core: str, counts: tuple[str, str]) -> dict[str, str]:
    """Return the files of a CPU with throttling counters."""
    folder = f"{SYS}/cpu{cpu}"
    return {
        f"{folder}/topology/physical_package_id": f"{package}\n",
        f"{folder}/topology/core_id": f"{core}\n",
        f"{folder}/thermal_throttle/core_throttle_count": f"{counts[0]}\n",
        f"{folder}/thermal_throttle/package_throttle_count": f"{counts[1]}\n",
    }


def test_throttles(machine: Machine) -> None:
    """A core and a package are counted once, for the first of the CPUs that share them."""
    files = {
        **throttled(0, "0", "0", ("5", "30")),
        **throttled(1, "0", "1", ("0", "31")),
        **throttled(2, "1", "0", ("7", "6")),
        **throttled(10, "0", "0", ("99", "99")),
        f"{SYS}/cpu11/topology/core_id": "4\n",
    }
    # Whatever the order of the directory listing.
    for cpu in range(12, 40):
        files |= throttled(cpu, "0", "0", (f"{cpu}", f"{cpu}"))

    samples = collect(Cpu(Cpu.Config(**machine(stat("1 1 1 1") | files))))
    assert samples["node_cpu_core_throttles_total"] == {
        ("0", "0"): 5,
        ("0", "1"): 0,
        ("1", "0"): 7,
    }
    assert samples["node_cpu_package_throttles_total"] == {("0",): 30, ("1",): 6}


def test_throttles_follow_the_processors(machine: Machine) -> None:
    """Counters of CPUs that come online are found, and those of removed CPUs are dropped."""
    files = {**throttled(0, "0", "0", ("5", "30")), f"{SYS}/online": "0\n"}
    paths = machine(stat("1 1 1 1") | files)
    collector = Cpu(Cpu.Config(**paths))
    collect(collector)

    machine({**throttled(1, "0", "1", ("2", "30")), f"{SYS}/online": "0-1\n"})
    cores = {("0", "0"): 5, ("0", "1"): 2}
    assert collect(collector)["node_cpu_core_throttles_total"] == cores

    (Path(paths["sysfs"]) / "devices/system/cpu/cpu1/thermal_throttle/core_throttle_count").unlink()
    assert collect(collector)["node_cpu_core_throttles_total"] == {("0", "0"): 5}


def test_info(machine: Machine) -> None:
    """With `info` each CPU has labels, which are empty for missing fields."""
    paths = machine(stat("1 1 1 1") | {"proc/cpuinfo": CPUINFO})

    samples = collect(Cpu(Cpu.Config(**paths, settings=CpuSettings(info=True))))
    name = "Intel(R) Core(TM) i7-8650U CPU @ 1.90GHz"
    assert samples["node_cpu_info"] == {
        ("0", "3", "0", "GenuineIntel", "6", "142", name, "0xb4", "10", "8192 KB"): 1,
        ("", "", "1", "GenuineIntel", "", "", "", "", "", ""): 1,
    }
    assert samples["node_cpu_frequency_hertz"] == {("0", "3", "0"): pytest.approx(799_998_000)}
    assert "node_cpu_flag_info" not in samples


def test_flags_and_bugs(machine: Machine) -> None:
    """An expression for flags or bugs selects those of the first CPU, and implies `info`."""
    paths = machine(stat("1 1 1 1") | {"proc/cpuinfo": CPUINFO})
    settings = CpuSettings(
        flags_include=re.compile("^(aes|avx.?)$"), bugs_include=re.compile("^spectre_.*$")
    )

    samples = collect(Cpu(Cpu.Config(**paths, settings=settings)))
    assert samples["node_cpu_flag_info"] == {("aes",): 1, ("avx",): 1, ("avx2",): 1}
    assert samples["node_cpu_bug_info"] == {("spectre_v1",): 1}
    assert "node_cpu_info" in samples


def test_arm_info(machine: Machine) -> None:
    """On ARM flags are named features, and the last block is not a CPU."""
    cpuinfo = "processor\t: 0\nFeatures\t: fp asimd\n\nHardware\t: BCM2835\n"
    paths = machine(stat("1 1 1 1") | {"proc/cpuinfo": cpuinfo})

    samples = collect(Cpu(Cpu.Config(**paths, settings=CpuSettings(flags_include=re.compile("")))))
    assert samples["node_cpu_flag_info"] == {("fp",): 1, ("asimd",): 1}
    assert len(samples["node_cpu_info"]) == 1


def test_unreadable_cpuinfo(machine: Machine) -> None:
    """A /proc/cpuinfo without a CPU is an error with the path."""
    paths = machine(stat("1 1 1 1") | {"proc/cpuinfo": "\n\nprocessor: x\n"})

    with pytest.raises(TargetError, match="/proc/cpuinfo: unexpected content"):
        collect(Cpu(Cpu.Config(**paths, settings=CpuSettings(info=True))))


def test_unreadable_line_loses_only_itself() -> None:
    """The CPUs around an unreadable line are served, and the error has the line."""
    rows = parse_times(b"cpu 1 1 1 1\ncpu0 1 2 3 4\ncpu1 1 2\ncpu2 1 2 3 4\nintr 1\n")

    assert [next(rows), next(rows)] == [("0", [1, 2, 3, 4]), ("2", [1, 2, 3, 4])]
    with pytest.raises(ValueError, match="unexpected content: 'cpu1 1 2'"):
        next(rows)


def test_no_processors(machine: Machine) -> None:
    """A /proc/stat without CPUs is an error with the path."""
    with pytest.raises(TargetError, match="/proc/stat: unexpected content: 'intr 1"):
        collect(Cpu(Cpu.Config(**machine({"proc/stat": "intr 1\n"}))))


def test_absent(machine: Machine) -> None:
    """A missing /proc/stat is an error: the system is not Linux, or `procfs` is wrong."""
    with pytest.raises(
        TargetError, match=r"/proc/stat is absent, .* is `host.procfs` the host's /proc"
    ):
        collect(Cpu(Cpu.Config(**machine({}))))


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"", []), (b"0", ["0"]), (b"2-4,0", ["2", "3", "4", "0"]), (b"0-1,1-2", ["0", "1", "2"])],
)
def test_list(content: bytes, expected: list[str]) -> None:
    """A list of CPUs consists of numbers and ranges."""
    assert list(parse_list(content)) == expected


@pytest.mark.parametrize(
    "content", [b"a", b"3-1", b"-1", b"0-65536", b"0-99999999999", b"1-", b"1--2"]
)
def test_bad_list(content: bytes) -> None:
    """A list that no host can have raises ValueError, without being expanded."""
    with pytest.raises(ValueError, match=r"invalid literal|unexpected content"):
        parse_list(content)
