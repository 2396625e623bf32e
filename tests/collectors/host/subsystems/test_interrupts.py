from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bts_collectors.host.subsystems.interrupts import Interrupts, InterruptsSettings, parse
from bts_exporter import NotPresent, TargetError
from bts_exporter.testing import Samples, collect

Machine = Callable[[dict[str, str]], dict[str, Any]]

INTERRUPTS = """\
           CPU0       CPU2
  0:         18          0  IR-IO-APIC-edge      timer
 24:          1          2  IO-APIC   5-edge      ACPI:Ged, mmc0
NMI:         47       5031   Non-maskable interrupts
ERR:          0
MIS:          0
"""


@pytest.fixture
def samples(machine: Machine) -> Callable[..., Samples]:
    """Give a function that collects from a /proc/interrupts with some settings."""

    def run(content: str, **kwargs: Any) -> Samples:
        paths = machine({"proc/interrupts": content})
        return collect(
            Interrupts(Interrupts.Config(**paths, settings=InterruptsSettings(**kwargs)))
        )

    return run


def test_counts(samples: Callable[..., Samples]) -> None:
    """Each CPU has a count of each interrupt; an offline CPU has no column and no series."""
    timer = ("0", "IR-IO-APIC-edge", "timer")
    shared = ("24", "IO-APIC", "5-edge ACPI:Ged, mmc0")
    nmi = ("NMI", "Non-maskable interrupts", "")

    assert samples(INTERRUPTS) == {
        "node_interrupts_total": {
            ("0", *timer): 18,
            ("2", *timer): 0,
            ("0", *shared): 1,
            ("2", *shared): 2,
            ("0", *nmi): 47,
            ("2", *nmi): 5031,
        }
    }


def test_without_zeros(samples: Callable[..., Samples]) -> None:
    """Counts of 0 can be left out."""
    found = samples(INTERRUPTS, include_zeros=False)["node_interrupts_total"]

    assert ("2", "0", "IR-IO-APIC-edge", "timer") not in found
    assert len(found) == 5


@pytest.mark.parametrize(
    ("setting", "expression", "kinds"),
    [
        ("name_include", "^NMI;", {"NMI"}),
        ("name_include", ";timer$", {"0"}),
        ("name_exclude", ";IO-APIC;", {"0", "NMI"}),
    ],
)
def test_filters(
    samples: Callable[..., Samples], setting: str, expression: str, kinds: set[str]
) -> None:
    """The expressions match type, info and devices, separated by semicolons."""
    found = samples(INTERRUPTS, **{setting: re.compile(expression)})

    assert {labels[1] for labels in found["node_interrupts_total"]} == kinds


def test_both_filters() -> None:
    """Only one of the two expressions can be set."""
    with pytest.raises(ValueError, match="name_include and name_exclude"):
        InterruptsSettings(name_include=re.compile("a"), name_exclude=re.compile("b"))


def test_no_space_before_the_counts(samples: Callable[..., Samples]) -> None:
    """On arm64 there may be no space between a long name and the first count."""
    found = samples("       CPU0\nIPI0:123456 Rescheduling interrupts\n")

    assert found == {
        "node_interrupts_total": {("0", "IPI0", "Rescheduling interrupts", ""): 123456}
    }


def test_one_processor(samples: Callable[..., Samples]) -> None:
    """A count for all CPUs together is not taken for that of the only CPU."""
    assert samples("       CPU0\nERR:          0\nMIS:          0\n") == {}


def test_opt_in() -> None:
    """The subsystem is off by default, since it has many series."""
    assert not Interrupts.by_default


@pytest.mark.parametrize(
    "content", ["", "garbage\n", "CPU0 CPU\n", "CPU0\nno colon\n", "CPU0\n1: many IO timer\n"]
)
def test_garbage(samples: Callable[..., Samples], content: str) -> None:
    """An unreadable file is an error with the path."""
    with pytest.raises(TargetError, match="/proc/interrupts: "):
        samples(content)


def test_cut_off() -> None:
    """A truncated file gives no row that the whole file does not have."""
    whole = list(parse(INTERRUPTS.encode())[1])

    for end in range(INTERRUPTS.index("\n") + 1, len(INTERRUPTS)):
        assert [r for r in parse(INTERRUPTS.encode()[:end])[1] if r not in whole] == []


@settings(max_examples=200)
@given(noise=st.binary(max_size=200))
def test_noise(noise: bytes) -> None:
    """Arbitrary bytes give rows or a ValueError."""
    try:
        cpus, rows = parse(INTERRUPTS.encode() + noise)
        assert all(len(row.counts) == len(cpus) for row in rows)
    except ValueError:
        pass


def test_absent(machine: Machine) -> None:
    """Without the file there is nothing to read."""
    with pytest.raises(NotPresent, match="/proc/interrupts is absent"):
        collect(Interrupts(Interrupts.Config(**machine({}))))
