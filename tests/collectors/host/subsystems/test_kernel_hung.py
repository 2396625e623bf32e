from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bts_collectors.host.subsystems.kernel_hung import KernelHung
from bts_exporter import NotPresent, TargetError
from bts_exporter.testing import collect

Machine = Callable[[dict[str, str]], dict[str, Any]]

FILE = "proc/sys/kernel/hung_task_detect_count"


def test_tasks(machine: Machine) -> None:
    """The number of hung tasks is served."""
    assert collect(KernelHung(KernelHung.Config(**machine({FILE: "3\n"})))) == {
        "node_kernel_hung_tasks_total": {(): 3}
    }


def test_error_names_the_file(machine: Machine) -> None:
    """The error for unreadable content has the path."""
    with pytest.raises(TargetError, match=f"{FILE}: unexpected content: 'some"):
        collect(KernelHung(KernelHung.Config(**machine({FILE: "some\n"}))))


def test_absent(machine: Machine) -> None:
    """Before Linux 6.13 there is nothing to read."""
    with pytest.raises(NotPresent, match="hung_task_detect_count is absent"):
        collect(KernelHung(KernelHung.Config(**machine({}))))
