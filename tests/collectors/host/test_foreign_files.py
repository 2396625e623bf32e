"""Files of other hosts, distributions and scripts, served by the real process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from servers.exporter import Exporter, StartExporter

pytestmark = pytest.mark.live

Machine = Callable[[dict[str, str]], dict[str, Any]]
Found = dict[tuple[str, frozenset[tuple[str, str]]], float]

S390X = """\
vendor_id       : IBM/S390
# processors    : 2
bogomips per cpu: 3033.00
max thread id   : 0
features\t: esan3 zarch stfle
cache0          : level=1 type=Data scope=Private size=128K line_size=256 associativity=8
processor 0: version = 00,  identification = 2733E8,  machine = 2964
processor 1: version = 00,  identification = 2733E8,  machine = 2964

cpu number      : 0
physical id     : 1
core id         : 2
cpu MHz dynamic : 5000
cpu MHz static  : 5208

cpu number      : 1
physical id     : 1
core id         : 3
cpu MHz dynamic : 5100
cpu MHz static  : 5208

"""
#: ARM before Linux 3.8: one CPU without a number.
OLD_ARM = """\
Processor\t: ARM926EJ-S rev 5 (v5l)
BogoMIPS\t: 197.42
Features\t: swp half thumb
CPU implementer\t: 0x41

Hardware\t: Versatile
Revision\t: 0000
"""
OLD_ARM_OF_TWO = """\
Processor\t: ARMv7 Processor rev 0 (v7l)
processor\t: 0
BogoMIPS\t: 1987.32

processor\t: 1
BogoMIPS\t: 1990.59

Features\t: swp half thumb
CPU implementer\t: 0x41

Hardware\t: Tegra
"""
POWER = """\
processor\t: 0
cpu\t\t: POWER9, altivec supported
clock\t\t: 2300.000000MHz
revision\t: 2.2 (pvr 004e 1202)

timebase\t: 512000000
platform\t: PowerNV
"""
X86 = """\
processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Xeon
physical id\t: 0
core id\t\t: 4
cpu MHz\t\t: 799.998
flags\t\t: fpu vme

"""


@pytest.fixture
def collected(machine: Machine, exporter: StartExporter, tmp_path: Path) -> Callable[..., Found]:
    """Give a function that writes files and returns the series that an exporter serves."""

    def run(files: dict[str, str]) -> Found:
        machine(files)
        server: Exporter = exporter(
            "collectors:\n  host:\n"
            f"    procfs: {tmp_path}/proc\n    sysfs: {tmp_path}/sys\n    rootfs: {tmp_path}\n"
            "    cpu: {info: true, flags_include: .}\n"
            f"    textfile: {{directories: [{tmp_path}/text]}}\n"
        )
        return server.samples()

    return run


def labels_of(found: Found, name: str) -> list[dict[str, str]]:
    """Return the labels of a metric's series that are not empty."""
    return [
        {label: value for label, value in labels if value} for each, labels in found if each == name
    ]


def values(found: Found, name: str, label: str) -> dict[str, float]:
    """Return the values of a metric by one of its labels."""
    return {dict(labels)[label]: value for (each, labels), value in found.items() if each == name}


@pytest.mark.parametrize(
    ("cpuinfo", "infos", "hertz", "flags"),
    [
        (
            S390X,
            [
                {"package": "1", "core": "2", "cpu": "0", "vendor": "IBM/S390"},
                {"package": "1", "core": "3", "cpu": "1", "vendor": "IBM/S390"},
            ],
            {"0": 5e9, "1": 5.1e9},
            {"esan3", "zarch", "stfle"},
        ),
        (OLD_ARM, [{"cpu": "0", "model_name": "ARM926EJ-S rev 5 (v5l)"}], {}, {"swp", "half", "thumb"}),
        (
            OLD_ARM_OF_TWO,
            [{"cpu": n, "model_name": "ARMv7 Processor rev 0 (v7l)"} for n in ("0", "1")],
            {},
            {"swp", "half", "thumb"},
        ),
        (POWER, [{"cpu": "0", "vendor": "POWER9, altivec supported"}], {"0": 2.3e9}, set()),
        (
            X86,
            [{"cpu": "0", "package": "0", "core": "4", "vendor": "GenuineIntel", "model_name": "Xeon"}],
            {"0": 799.998e6},
            {"fpu", "vme"},
        ),
    ],
)  # fmt: skip
def test_cpuinfo(
    collected: Callable[..., Found],
    cpuinfo: str,
    infos: list[dict[str, str]],
    hertz: dict[str, float],
    flags: set[str],
) -> None:
    """Each architecture's fields are recognized, and every CPU is served."""
    found = collected({"proc/cpuinfo": cpuinfo, "proc/stat": "cpu0 1 1 1 1\n"})

    assert sorted(labels_of(found, "node_cpu_info"), key=lambda each: each["cpu"]) == infos
    assert values(found, "node_cpu_frequency_hertz", "cpu") == hertz
    assert {each["flag"] for each in labels_of(found, "node_cpu_flag_info")} == flags
    assert found["node_scrape_collector_success", frozenset({("collector", "cpu")})] == 1


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (r'"Dollar \$5, \"quoted\", \`ticks\` and \\"', 'Dollar $5, "quoted", `ticks` and \\'),
        (r'"a \d stays"', r"a \d stays"),
        (r"'as it \$stands'", r"as it \$stands"),
        (r"escaped\ space", "escaped space"),
        ("""one'two'"three" # comment""", "onetwothree"),
        ("'it'\\''s'", "it's"),
        ("C#", "C#"),
        ('"no end', '"no end'),
        ('""', ""),
        ('"\u2028 is no line"', "\u2028 is no line"),
    ],
)
def test_os_release(collected: Callable[..., Found], value: str, name: str) -> None:
    """A value of os-release is read as a shell reads it."""
    found = collected({"etc/os-release": f"ID=x\nNAME={value}\nVERSION_ID=7\n"})

    (labels,) = labels_of(found, "node_os_info")
    assert labels.get("name", "") == name
    assert labels["version_id"] == "7"


TEXT = """\
# TYPE whole histogram
whole_bucket{job="a",le="1"} 1
whole_sum{job="a"} 3
whole_count{job="a"} 2
whole_bucket{job="b",le="1"} 1
whole_bucket{job="b",le="+Inf"} 4
whole_sum{job="b"} 3
whole_bucket{job="c",le="1"} 1
whole_bucket{job="d",le="+Inf"} -1
# TYPE times summary
times_count{job="a"} 1
times_sum{job="a"} 1
times_count{job="b"} -1
# TYPE runs_total counter
runs_total{job="a"} 5
runs_total{job="b"} -1
# TYPE heat gauge
heat -1
"""


def test_textfile(collected: Callable[..., Found]) -> None:
    """Values that a type does not allow are left out and reported; missing parts are added; the rest is served."""
    found = collected({"text/a.prom": TEXT})

    assert values(found, "runs_total", "job") == {"a": 5}
    assert values(found, "times_count", "job") == {"a": 1}
    assert values(found, "whole_count", "job") == {"a": 2, "b": 4}
    assert {
        (dict(labels)["job"], dict(labels)["le"]): value
        for (name, labels), value in found.items()
        if name == "whole_bucket"
    } == {("a", "1"): 1, ("a", "+Inf"): 2, ("b", "1"): 1, ("b", "+Inf"): 4}
    assert found["heat", frozenset()] == -1
    assert found["node_textfile_scrape_error", frozenset()] == 1


def test_unraid(collected: Callable[..., Found]) -> None:
    """With an array driver other than Linux's own there is nothing to read."""
    found = collected(
        {"proc/mdstat": "sbName=/boot/config/super.dat\nmdState=STARTED\ndiskName.0=\n"}
    )

    assert found["node_scrape_collector_success", frozenset({("collector", "mdadm")})] == 1
    assert not labels_of(found, "node_md_state")
