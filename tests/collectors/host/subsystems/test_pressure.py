from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bts_collectors.host.kernel.pressure import parse_pressure
from bts_collectors.host.subsystems.pressure import Pressure
from bts_exporter import NotPresent, TargetError
from bts_exporter.testing import collect

Machine = Callable[[dict[str, str]], dict[str, Any]]

SOME = "some avg10=0.10 avg60=2.00 avg300=3.85 total=15\n"
FULL = "full avg10=0.20 avg60=3.00 avg300=4.95 total=2500000\n"


def test_stalls(machine: Machine) -> None:
    """Microseconds become seconds; CPU has only waiting, no stall."""
    paths = machine(
        {
            "proc/pressure/cpu": SOME + FULL,
            "proc/pressure/io": SOME + FULL,
            "proc/pressure/memory": FULL + SOME,
            "proc/pressure/irq": FULL,
        }
    )

    assert collect(Pressure(Pressure.Config(**paths))) == {
        "node_pressure_cpu_waiting_seconds_total": {(): 15e-6},
        "node_pressure_io_waiting_seconds_total": {(): 15e-6},
        "node_pressure_io_stalled_seconds_total": {(): 2.5},
        "node_pressure_memory_waiting_seconds_total": {(): 15e-6},
        "node_pressure_memory_stalled_seconds_total": {(): 2.5},
        "node_pressure_irq_stalled_seconds_total": {(): 2.5},
    }


def test_older_kernel(machine: Machine) -> None:
    """A kernel without values for interrupts, or for CPU `full`, serves the rest."""
    paths = machine({"proc/pressure/cpu": SOME})

    assert collect(Pressure(Pressure.Config(**paths))) == {
        "node_pressure_cpu_waiting_seconds_total": {(): 15e-6}
    }


def test_absent(machine: Machine) -> None:
    """A kernel without PSI has nothing to read."""
    with pytest.raises(NotPresent, match="/proc/pressure/cpu is absent"):
        collect(Pressure(Pressure.Config(**machine({}))))


def test_switched_off(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """With psi=0 the files exist but cannot be read: nothing to read."""

    def refuse(path: str) -> int:
        raise OSError(95, "Operation not supported", path)

    monkeypatch.setattr("bts_collectors.host.kernel.kernel_file.open_there", refuse)
    with pytest.raises(NotPresent, match="switched off"):
        collect(Pressure(Pressure.Config(**machine({}))))


def test_unreadable(machine: Machine) -> None:
    """A file that cannot be read for another reason is an error."""
    paths = machine({})
    Path(paths["procfs"], "pressure", "io").mkdir(parents=True)

    with pytest.raises(IsADirectoryError):
        collect(Pressure(Pressure.Config(**paths)))


@pytest.mark.parametrize(
    "content",
    [b"", b"some avg10=0.00 total=12", b"some\n", b"some total=-1\n", b"full avg10=0.00 total=\n"],
)
def test_no_total(content: bytes) -> None:
    """A line without a total, or a truncated one, raises ValueError."""
    with pytest.raises(ValueError, match=r"unexpected content|is empty"):
        list(parse_pressure(content))


def test_error_names_the_file(machine: Machine) -> None:
    """The error for an unreadable file has its path; the other files are served."""
    paths = machine({"proc/pressure/cpu": SOME, "proc/pressure/io": "garbage\n"})

    with pytest.raises(TargetError, match="/proc/pressure/io: unexpected content: 'garbage'"):
        collect(Pressure(Pressure.Config(**paths)))
