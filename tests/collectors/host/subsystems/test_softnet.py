from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bts_collectors.host.subsystems.softnet import Softnet, parse
from bts_exporter import NotPresent, TargetError
from bts_exporter.testing import collect

Machine = Callable[[dict[str, str]], dict[str, Any]]

#: Columns 1, 2, 3, 9, 10 and 11 of Linux 4.19; since 5.10 backlog and CPU follow.
OLD = "0000000a 0000000b 0000000c 00000000 00000000 00000000 00000000 00000000 0000000d 0000000e 0000000f"
OLDEST = OLD[: 9 * 9].strip()


def test_new_kernel(machine: Machine) -> None:
    """The CPU is the one in the line, since CPUs that are offline have no line."""
    paths = machine(
        {"proc/net/softnet_stat": f"{OLD} 00000010 00000000\n{OLD} 00000011 00000003 00 00\n"}
    )

    def both(value: int) -> dict[tuple[str, ...], float]:
        return {("0",): value, ("3",): value}

    assert collect(Softnet(Softnet.Config(**paths))) == {
        "node_softnet_processed_total": both(10),
        "node_softnet_dropped_total": both(11),
        "node_softnet_times_squeezed_total": both(12),
        "node_softnet_cpu_collision_total": both(13),
        "node_softnet_received_rps_total": both(14),
        "node_softnet_flow_limit_count_total": both(15),
        "node_softnet_backlog_len": {("0",): 16, ("3",): 17},
    }


def test_old_kernel(machine: Machine) -> None:
    """In lines without a CPU it is the number of the line; the backlog is 0."""
    paths = machine({"proc/net/softnet_stat": f"{OLD}\n{OLD}\n"})

    found = collect(Softnet(Softnet.Config(**paths)))
    assert found["node_softnet_flow_limit_count_total"] == {("0",): 15, ("1",): 15}
    assert found["node_softnet_backlog_len"] == {("0",): 0, ("1",): 0}


def test_oldest_kernel(machine: Machine) -> None:
    """Columns that a kernel does not have are left out."""
    paths = machine({"proc/net/softnet_stat": f"{OLDEST}\n"})

    found = collect(Softnet(Softnet.Config(**paths)))
    assert "node_softnet_received_rps_total" not in found
    assert found["node_softnet_cpu_collision_total"] == {("0",): 13}


@pytest.mark.parametrize(
    "line", ["", "0000000a\n", OLD, f"{OLD} -1\n", f"{OLD} 1_0\n", f"{OLD} xyz\n", f"{OLD}\n\n"]
)
def test_unreadable(line: str) -> None:
    """A line with too few columns, a word that is not a number, or a truncated line raises ValueError."""
    with pytest.raises(ValueError, match=r"unexpected content|is empty|invalid literal"):
        list(parse(line.encode()))


def test_error_names_the_file(machine: Machine) -> None:
    """The error for unreadable content has the path."""
    with pytest.raises(TargetError, match="/proc/net/softnet_stat: unexpected content: 'garbage'"):
        collect(Softnet(Softnet.Config(**machine({"proc/net/softnet_stat": "garbage\n"}))))


def test_absent(machine: Machine) -> None:
    """Without the file there is nothing to read."""
    with pytest.raises(NotPresent, match="/proc/net/softnet_stat is absent"):
        collect(Softnet(Softnet.Config(**machine({}))))
