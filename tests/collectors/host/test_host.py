from __future__ import annotations

import re
from pathlib import Path

import pytest

from bts_collectors.host import SUBSYSTEMS, Host
from bts_exporter import Collector, Metric

DOCS = Path(__file__).parents[3] / "docs" / "collectors" / "host.md"
MODULES = Path(__file__).parents[3] / "collectors" / "bts_collectors" / "host"


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
    with pytest.raises(ValueError, match=r"no such subsystem: cpus; there are: .*\bcpu, diskstats"):
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


def test_only_filesystem_may_hang() -> None:
    """What only reads the kernel's memory is local; asking a mount is not."""
    assert {name for name, cls in SUBSYSTEMS.items() if not cls.local} == {"filesystem"}


def test_every_module_is_a_subsystem() -> None:
    """Each module of the package has a subsystem of its own, and a test file of its name."""
    modules = sorted(path.stem for path in MODULES.glob("[!_]*.py"))

    assert modules == sorted(cls.__module__.rpartition(".")[2] for cls in SUBSYSTEMS.values())
    assert [m for m in modules if not (Path(__file__).parent / f"test_{m}.py").exists()] == []


def test_declared_chains_the_subsystems() -> None:
    """A host declares what its subsystems declare, each metric once, under unique names."""
    declared = list(Host.declared())

    expected = {metric for cls in SUBSYSTEMS.values() for metric in cls.declared()}
    assert expected == set(declared)
    assert len(declared) == len({metric.name for metric in declared})


def test_documented_metrics() -> None:
    """The page documents each declared metric with its type, labels and source, and no other."""
    row = re.compile(r"^\| `(node_\S+)` \| (\w+) \| ([^|]*) \| ([^|]+) \|$", re.MULTILINE)

    assert sorted(row.findall(DOCS.read_text())) == sorted(
        (metric.name, metric.kind, ", ".join(metric.labels), metric.help.rstrip("."))
        for metric in Host.declared()
    )


def test_documented_settings() -> None:
    """The page documents each setting, and no other."""
    documented = set(re.findall(r"^\| `([a-z_.]+)` \|", DOCS.read_text(), re.MULTILINE))

    plain = {f for f in Host.Config.__struct_fields__ if f not in SUBSYSTEMS}
    nested = {
        f"{name}.{field}"
        for name, cls in SUBSYSTEMS.items()
        if cls.Settings is not None
        for field in cls.Settings.__struct_fields__
    }
    metrics = {metric.name for metric in Host.declared()}
    assert documented - metrics == plain | nested


def test_help_names_a_source() -> None:
    """Each metric's help says where its value comes from."""
    sources = re.compile(r"/proc/|/sys/|udev|statvfs|mountinfo|uname\(2\)|clock_gettime|localtime")
    own = SUBSYSTEMS["cpu"].outcome_metrics
    assert own is not None
    for metric in Host.declared():
        if metric not in own:
            assert sources.search(metric.help), metric.name
        if isinstance(metric, Metric) and metric.name.endswith("_total"):
            assert metric.kind == "counter"
