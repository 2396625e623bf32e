from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bts_collectors.host.subsystems.infiniband import Infiniband
from bts_exporter import NotPresent
from bts_exporter.testing import collect
from storage_and_fabric import IB, MACHINE

Machine = Callable[[dict[str, str]], dict[str, Any]]

PORT = ("mlx4_0", "1")


def test_port(machine: Machine) -> None:
    """A port has its states, its rate in bytes, and data counters in bytes, from words of 4 bytes."""
    samples = collect(Infiniband(Infiniband.Config(**machine(MACHINE))))

    assert samples["node_infiniband_info"] == {
        ("mlx4_0", "SM_1141000001000", "2.31.5050", "MT4099"): 1
    }
    assert samples["node_infiniband_state_id"] == {PORT: 4}
    assert samples["node_infiniband_physical_state_id"] == {PORT: 5}
    assert samples["node_infiniband_rate_bytes_per_second"] == {PORT: 5e9}
    assert samples["node_infiniband_port_data_received_bytes_total"] == {PORT: 4 * 4631917}
    assert samples["node_infiniband_link_downed_total"] == {PORT: 3}
    assert samples["node_infiniband_legacy_data_received_bytes_total"] == {PORT: 4 * 17}


def test_counter_that_the_port_does_not_have(machine: Machine) -> None:
    """A counter that is `N/A (no PMA)`, or negative, has no series."""
    files = {
        f"{IB}/ports/1/counters/symbol_error": "N/A (no PMA)\n",
        f"{IB}/ports/1/counters/link_downed": "-1\n",
        f"{IB}/ports/1/state": "nonsense\n",
        f"{IB}/ports/1/rate": "unknown\n",
    }

    samples = collect(Infiniband(Infiniband.Config(**machine(files))))

    assert samples == {"node_infiniband_info": {("mlx4_0", "", "", ""): 1}}


def test_adapter_without_ports_costs_no_other(machine: Machine) -> None:
    """An adapter without ports is served, and so are the adapters after it."""
    files = {"sys/class/infiniband/hfi1_0/hca_type": "HFI1\n", f"{IB}/ports/2/state": "1: DOWN\n"}

    samples = collect(Infiniband(Infiniband.Config(**machine(files))))

    assert len(samples["node_infiniband_info"]) == 2
    assert samples["node_infiniband_state_id"] == {("mlx4_0", "2"): 1}


def test_no_adapter(machine: Machine) -> None:
    """Without an adapter there is nothing to read."""
    with pytest.raises(NotPresent):
        collect(Infiniband(Infiniband.Config(**machine({}))))
