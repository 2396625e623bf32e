from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bts_collectors.host.subsystems.dmi import Dmi
from bts_exporter import NotPresent
from bts_exporter.testing import collect

Machine = Callable[[dict[str, str]], dict[str, Any]]

FILES = {
    "sys/class/dmi/id/bios_date": "04/12/2021\n",
    "sys/class/dmi/id/sys_vendor": "Dell Inc.\n",
    "sys/class/dmi/id/product_name": "  PowerEdge R6515 \n",
}


def described(collector: Dmi) -> dict[str, str]:
    """Return the labels of the only sample that are not empty."""
    samples = collect(collector)["node_dmi_info"]

    assert set(samples.values()) == {1}
    (values,) = samples
    return {n: v for n, v in zip(collector.info.labels, values, strict=True) if v}


def test_files_are_labels(machine: Machine) -> None:
    """Each file is the label of its name, without surrounding spaces; sys_vendor is system_vendor."""
    assert described(Dmi(Dmi.Config(**machine(FILES)))) == {
        "bios_date": "04/12/2021",
        "system_vendor": "Dell Inc.",
        "product_name": "PowerEdge R6515",
    }


def test_unreadable_files_are_left_empty(machine: Machine) -> None:
    """A serial number that only root can read is an empty label."""
    paths = machine({**FILES, "sys/class/dmi/id/product_serial/below": ""})

    assert "product_serial" not in described(Dmi(Dmi.Config(**paths)))


def test_bytes_that_are_no_text(machine: Machine) -> None:
    """Bytes that are not UTF-8 are kept."""
    files = {"sys/class/dmi/id/board_name": "A\udcff\n"}

    assert described(Dmi(Dmi.Config(**machine(files)))) == {"board_name": "A\udcff"}


def test_read_once(machine: Machine) -> None:
    """The files are read once; later changes are ignored."""
    collector = Dmi(Dmi.Config(**machine(FILES)))
    before = described(collector)
    machine({"sys/class/dmi/id/sys_vendor": "Other\n"})

    assert before == described(collector)


@pytest.mark.parametrize("files", [{}, {"sys/class/dmi/id/bios_date": "\n"}])
def test_absent(machine: Machine, files: dict[str, str]) -> None:
    """Without firmware information, as on many virtual machines, there is nothing to read."""
    with pytest.raises(NotPresent, match="/sys/class/dmi/id is absent, or empty"):
        collect(Dmi(Dmi.Config(**machine(files))))
