from __future__ import annotations

import re
from pathlib import Path

import pytest

from bts_collectors.host import SUBSYSTEMS, Host
from bts_exporter import Collector, Metric

SUBSYSTEM_MODULES = (
    Path(__file__).parents[3] / "collectors" / "bts_collectors" / "host" / "subsystems"
)


def names(collectors: list[Collector]) -> list[str]:
    """Return the names of `collectors`."""
    return [collector.name for collector in collectors]


def test_default_subsystems() -> None:
    """Without settings every subsystem that is collected by default is, in alphabetical order."""
    expected = sorted(name for name, cls in SUBSYSTEMS.items() if cls.by_default)

    assert expected == names(list(Host.build(Host.Config())))


def test_disable() -> None:
    """What `disable` names is not collected."""
    built = names(list(Host.build(Host.Config(disable=("cpu", "time")))))

    assert {"cpu", "time"}.isdisjoint(built)
    assert "stat" in built


def test_enable_brings_in_what_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """A subsystem that is off by default is collected when `enable` names it."""
    monkeypatch.setattr(SUBSYSTEMS["uname"], "by_default", False)

    assert "uname" not in names(list(Host.build(Host.Config())))
    assert "uname" in names(list(Host.build(Host.Config(enable=("uname",)))))


@pytest.mark.parametrize("key", ["enable", "disable"])
def test_unknown_name(key: str) -> None:
    """A name that is no subsystem is an error that names those there are."""
    with pytest.raises(
        ValueError, match=r"no such subsystem: cpus; there are: .*\bcpu, cpufreq, diskstats"
    ):
        Host.Config(**{key: ("cpus",)})


def test_name_in_both_lists() -> None:
    """A subsystem cannot be both enabled and disabled."""
    with pytest.raises(ValueError, match="both enabled and disabled: cpu"):
        Host.Config(enable=("cpu",), disable=("cpu",))


def test_settings_reach_their_subsystem() -> None:
    """Paths reach every subsystem, and each block of settings the one of its name."""
    settings = SUBSYSTEMS["stat"].Settings
    assert settings is not None
    own = settings(softirqs=True)

    built = {c.name: c for c in Host.build(Host.Config(procfs="proc", stat=own))}

    assert {"proc"} == {c.config.procfs for c in built.values()}
    assert built["stat"].config.settings is own


def test_equal_settings_build_equal_configs() -> None:
    """Settings that did not change give configs that are equal, so that a reload keeps collectors."""
    filesystem = SUBSYSTEMS["filesystem"].Settings
    assert filesystem is not None
    one, two = (
        Host.Config(filesystem=filesystem(fs_types_include=re.compile("ext.")), enable=("cpu",))
        for _ in range(2)
    )

    assert [c.config for c in Host.build(one)] == [c.config for c in Host.build(two)]


def test_what_asks_a_server_has_a_thread() -> None:
    """What reads files shares a thread: one that hangs is parted from the others by the engine."""
    assert {name for name, cls in SUBSYSTEMS.items() if not cls.local} == {"systemd"}


def test_every_module_is_a_subsystem() -> None:
    """Each module of the package has a subsystem of its own, and a test file of its name."""
    modules = sorted(path.stem for path in SUBSYSTEM_MODULES.glob("[!_]*.py"))

    assert modules == sorted(cls.__module__.rpartition(".")[2] for cls in SUBSYSTEMS.values())
    assert [
        m for m in modules if not (Path(__file__).parent / "subsystems" / f"test_{m}.py").exists()
    ] == []


def test_declared_chains_the_subsystems() -> None:
    """A host declares what its subsystems declare, each metric once, under unique names."""
    declared = list(Host.declared())

    expected = {metric for cls in SUBSYSTEMS.values() for metric in cls.declared()}
    assert expected == set(declared)
    assert len(declared) == len({metric.name for metric in declared})


def test_help_names_a_source() -> None:
    """Each metric's help says where its value comes from."""
    sources = re.compile(
        r"/proc/|/sys/|udev|D-Bus|NETLINK_SOCK_DIAG|os-release|mountinfo|\((cpu|memory|io|pids)\."
        r"|uname\(2\)|statvfs|clock_gettime|localtime|adjtimex|fstat"
        r"|entropy_avail|poolsize|selinux/config|\.pressure"
    )
    #: What the exporter tells of itself, and what a collection left out.
    counted = {
        "bts_cgroup_dropped",
        "bts_process_group_hidden_processes",
        "node_exporter_build_info",
        "node_textfile_scrape_error",
    }
    own = SUBSYSTEMS["cpu"].outcome_metrics
    assert own is not None
    for metric in Host.declared():
        if metric not in own and metric.name not in counted:
            assert sources.search(metric.help), metric.name
        if isinstance(metric, Metric) and metric.name.endswith("_total"):
            assert metric.kind == "counter"
