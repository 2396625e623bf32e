from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bts_collectors.host.subsystems.mdadm import Array, Mdadm, parse
from bts_exporter import NotPresent, TargetError
from bts_exporter.testing import collect

Machine = Callable[[dict[str, str]], dict[str, Any]]

HEAD = "Personalities : [raid1] [raid0] \n"
END = "unused devices: <none>\n"
RECOVERING = """\
md6 : active raid1 sdb2[2](F) sdc[1](S) sda2[0]
      195310144 blocks super 1.2 [2/1] [U_]
      [=>...................]  recovery =  8.5% (16775552/195310144) finish=17.0min speed=259783K/sec
      bitmap: 0/30 pages [0KB], 65536KB chunk

"""
WHOLE = "md0 : active raid1 sda1[0] sdb1[1]\n      248896 blocks [2/2] [UU]\n      \n"
MDSTAT = f"{HEAD}{RECOVERING}{WHOLE}{END}"


def arrays(sections: str) -> list[Array]:
    """Return the arrays of a /proc/mdstat with these sections."""
    return list(parse(f"{HEAD}{sections}{END}".encode()))


def test_array(machine: Machine) -> None:
    """An array has one of five states, its disks and blocks, and the values from /sys."""
    paths = machine(
        {
            "proc/mdstat": f"{HEAD}{RECOVERING}{END}",
            "sys/block/md6/md/raid_disks": "2\n",
            "sys/block/md6/md/degraded": "1\n",
        }
    )
    states = {"active": 0, "inactive": 0, "recovering": 1, "resync": 0, "check": 0}

    assert collect(Mdadm(Mdadm.Config(**paths))) == {
        "node_md_state": {("md6", state): value for state, value in states.items()},
        "node_md_disks": {("md6", "active"): 1, ("md6", "failed"): 1, ("md6", "spare"): 1},
        "node_md_disks_required": {("md6",): 2},
        "node_md_blocks": {("md6",): 195310144},
        "node_md_blocks_synced": {("md6",): 16775552},
        "node_md_raid_disks": {("md6",): 2},
        "node_md_degraded": {("md6",): 1},
    }


def test_whole() -> None:
    """An array without a running action is active and in sync."""
    assert arrays(WHOLE) == [Array("md0", "active", 2, 2, 0, 0, 248896, 248896)]


@pytest.mark.parametrize(
    ("action", "state", "synced"),
    [
        ("[>....]  resync =  8.5% (16/195) finish=17.0min speed=25K/sec", "resync", 16),
        ("[>....]  check =  8.5% (16/195) finish=17.0min speed=25K/sec", "check", 16),
        ("[>....]  reshape =  8.5% (16/195) finish=17.0min speed=25K/sec", "active", 16),
        ("\tresync=DELAYED", "resync", 0),
        ("\tresync=PENDING", "resync", 0),
    ],
)
def test_actions(action: str, state: str, synced: int) -> None:
    """A running action determines the state and the blocks in sync, 0 while it is pending."""
    (array,) = arrays(f"md0 : active raid1 a[0] b[1]\n   195 blocks [2/2] [UU]\n  {action}\n\n")

    assert (array.state, array.synced, array.blocks) == (state, synced, 195)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("active raid0 sda1[0] sdb1[1]", "314159265 blocks 64k chunks"),
        ("active (read-only) raid0 sdb[1] sdd[0]", "322560 blocks super 1.2 512k chunks"),
        ("active linear sda1[1] sdb1[0]", "2095104 blocks super 1.2 0k rounding"),
        ("active raid0 sdb[1] sdc[0]", "1855870976 blocks super external:/md127/0 128k chunks"),
    ],
)
def test_without_redundancy(head: str, status: str) -> None:
    """Without redundancy no disk can be missing, so the disks are counted."""
    (array,) = arrays(f"md1 : {head}\n      {status}\n\n")

    assert (array.state, array.active, array.required) == ("active", 2, 2)


def test_inactive() -> None:
    """An array that is not assembled has no active disks, and may have no disks."""
    found = arrays(
        "md2 : inactive sdb[2](S) sdc[1](S)\n        7932 blocks super external:imsm\n\n"
        "md3 : inactive\n\n"
    )

    assert found == [
        Array("md2", "inactive", 0, 0, 0, 2, 7932, 7932),
        Array("md3", "inactive", 0, 0, 0, 0, 0, 0),
    ]


@pytest.mark.parametrize("files", [{}, {"proc/mdstat": HEAD + END}])
def test_no_arrays(machine: Machine, files: dict[str, str]) -> None:
    """Without the module, or without an array, there is nothing to read."""
    with pytest.raises(NotPresent, match="/proc/mdstat"):
        collect(Mdadm(Mdadm.Config(**machine(files))))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "garbage\n\n",
        "md0 : active raid1 a[0]\n   many blocks [2/2] [UU]\n\n",
        "md0 : active raid1 a[0]\n   1 blocks [2/2] [UU]\n   recovery = 8.5% (1/\n\n",
        "md0 : active raid1 a[0]\n",
    ],
)
def test_garbage(machine: Machine, content: str) -> None:
    """Unreadable or truncated content is an error with the path."""
    with pytest.raises(TargetError, match="/proc/mdstat: "):
        collect(Mdadm(Mdadm.Config(**machine({"proc/mdstat": content}))))


def test_cut_off() -> None:
    """A truncated file gives no array that the whole file does not have."""
    whole = list(parse(MDSTAT.encode()))
    assert len(whole) == 2

    for end in range(len(MDSTAT)):
        found = []
        try:
            for array in parse(MDSTAT.encode()[:end]):
                found.append(array)  # noqa: PERF402  # those before an error count
        except ValueError:
            pass
        assert [array for array in found if array not in whole] == []


@settings(max_examples=300)
@given(data=st.data())
def test_damage(data: st.DataObject) -> None:
    """A damaged file gives arrays or a ValueError."""
    content = MDSTAT.encode()
    begin = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(begin, len(content)))
    patch = data.draw(st.binary(max_size=40) | st.sampled_from([b"\n", b" ", b"\0", b"-", b"[9/"]))

    try:
        found = list(parse(content[:begin] + patch + content[end:]))
    except ValueError:
        return
    assert all(isinstance(array, Array) for array in found)
