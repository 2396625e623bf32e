from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bts_collectors.host.subsystems.edac import Edac, dimm_label
from bts_exporter import NotPresent
from bts_exporter.testing import collect

Machine = Callable[[dict[str, str]], dict[str, Any]]

MC = "sys/devices/system/edac/mc"


def test_errors(machine: Machine) -> None:
    """Errors are counted by controller, csrow and channel; some have no csrow."""
    paths = machine(
        {
            f"{MC}/mc0/ce_count": "1\n",
            f"{MC}/mc0/ue_count": "5\n",
            f"{MC}/mc0/ce_noinfo_count": "2\n",
            f"{MC}/mc0/ue_noinfo_count": "6\n",
            f"{MC}/mc0/csrow1/ce_count": "3\n",
            f"{MC}/mc0/csrow1/ue_count": "4\n",
            f"{MC}/mc0/csrow1/ch0_ce_count": "7\n",
            f"{MC}/mc0/csrow1/ch0_ue_count": "8\n",
            f"{MC}/mc0/csrow1/ch0_dimm_label": "mc#0csrow#1channel#0\n",
            f"{MC}/mc0/power/control": "auto\n",
        }
    )

    assert collect(Edac(Edac.Config(**paths))) == {
        "node_edac_correctable_errors_total": {("0",): 1},
        "node_edac_uncorrectable_errors_total": {("0",): 5},
        "node_edac_csrow_correctable_errors_total": {("0", "unknown"): 2, ("0", "1"): 3},
        "node_edac_csrow_uncorrectable_errors_total": {("0", "unknown"): 6, ("0", "1"): 4},
        "node_edac_channel_correctable_errors_total": {("0", "1", "0", "mc0_csrow1_channel0"): 7},
        "node_edac_channel_uncorrectable_errors_total": {("0", "1", "0", "mc0_csrow1_channel0"): 8},
    }


def test_controller_without_rows(machine: Machine) -> None:
    """Drivers without csrows have the counters of the controller."""
    paths = machine({f"{MC}/mc3/ce_count": "1\n", f"{MC}/mc3/ue_count": "damaged\n"})

    assert collect(Edac(Edac.Config(**paths))) == {
        "node_edac_correctable_errors_total": {("3",): 1}
    }


@pytest.mark.parametrize(("raw", "label"), [(None, "unknown"), (b"", "unknown"), (b"A1", "A1")])
def test_dimm_label(raw: bytes | None, label: str) -> None:
    """A module without a name is `unknown`; another name is kept."""
    assert dimm_label(raw) == label


def test_no_controllers(machine: Machine) -> None:
    """Without error-correcting memory there is nothing to read."""
    with pytest.raises(NotPresent, match="edac/mc"):
        collect(Edac(Edac.Config(**machine({f"{MC}/power/control": "auto\n"}))))
