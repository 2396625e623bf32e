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
    """Without settings the default subsystems are collected, in alphabetical order."""
    expected = sorted(name for name, cls in SUBSYSTEMS.items() if cls.by_default)

    assert expected == names(list(Host.build(Host.Config())))


def test_disable() -> None:
    """Subsystems in `disable` are not collected."""
    built = names(list(Host.build(Host.Config(disable=("cpu", "time")))))

    assert {"cpu", "time"}.isdisjoint(built)
    assert "stat" in built


def test_enable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A subsystem that is off by default is collected if `enable` names it."""
    monkeypatch.setattr(SUBSYSTEMS["uname"], "by_default", False)

    assert "uname" not in names(list(Host.build(Host.Config())))
    assert "uname" in names(list(Host.build(Host.Config(enable=("uname",)))))


@pytest.mark.parametrize("key", ["enable", "disable"])
def test_unknown_name(key: str) -> None:
    """An unknown name is an error that lists the subsystems."""
    with pytest.raises(
        ValueError, match=r"cpus: not a subsystem \(expected .*\bcpu, cpufreq, diskstats"
    ):
        Host.Config(**{key: ("cpus",)})


def test_name_in_both_lists() -> None:
    """A subsystem cannot be both enabled and disabled."""
    with pytest.raises(ValueError, match="in both enable and disable: cpu"):
        Host.Config(enable=("cpu",), disable=("cpu",))


def test_settings_reach_their_subsystem() -> None:
    """Each subsystem gets the paths and its own settings."""
    settings = SUBSYSTEMS["stat"].Settings
    assert settings is not None
    own = settings(softirqs=True)

    built = {c.name: c for c in Host.build(Host.Config(procfs="proc", stat=own))}

    assert {"proc"} == {c.config.procfs for c in built.values()}
    assert built["stat"].config.settings is own


def test_equal_settings_build_equal_configs() -> None:
    """Unchanged settings give equal configs, so that a reload keeps collectors."""
    filesystem = SUBSYSTEMS["filesystem"].Settings
    assert filesystem is not None
    one, two = (
        Host.Config(filesystem=filesystem(fs_types_include=re.compile("ext.")), enable=("cpu",))
        for _ in range(2)
    )

    assert [c.config for c in Host.build(one)] == [c.config for c in Host.build(two)]


def test_only_systemd_has_a_thread() -> None:
    """All subsystems share a thread except `systemd`, which calls a server."""
    assert {name for name, cls in SUBSYSTEMS.items() if not cls.local} == {"systemd"}


def test_every_module_is_a_subsystem() -> None:
    """Each module of the package is a subsystem, and has a test file of its name."""
    modules = sorted(path.stem for path in SUBSYSTEM_MODULES.glob("[!_]*.py"))

    assert modules == sorted(cls.__module__.rpartition(".")[2] for cls in SUBSYSTEMS.values())
    assert [
        m for m in modules if not (Path(__file__).parent / "subsystems" / f"test_{m}.py").exists()
    ] == []


def test_declared_chains_the_subsystems() -> None:
    """A host declares the metrics of its subsystems, each once, with unique names."""
    declared = list(Host.declared())

    expected = {metric for cls in SUBSYSTEMS.values() for metric in cls.declared()}
    assert expected == set(declared)
    assert len(declared) == len({metric.name for metric in declared})


def test_help_names_a_source() -> None:
    """The help of each metric names its source."""
    sources = re.compile(
        r"/proc/|/sys/|udev|D-Bus|NETLINK_SOCK_DIAG|os-release|mountinfo|\((cpu|memory|io|pids)\."
        r"|uname\(2\)|statvfs|clock_gettime|localtime|adjtimex|fstat"
        r"|entropy_avail|poolsize|selinux/config|\.pressure"
    )
    #: Metrics about the exporter itself, and about what a collection left out.
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
