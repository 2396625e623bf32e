from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bts_collectors.host.subsystems.watchdog import Watchdog
from bts_exporter import NotPresent
from bts_exporter.testing import collect

Machine = Callable[[dict[str, str]], dict[str, Any]]

FOLDER = "sys/class/watchdog/watchdog0"


def test_watchdog(machine: Machine) -> None:
    """A watchdog has its numbers as samples, and its texts as labels."""
    paths = machine(
        {
            f"{FOLDER}/bootstatus": "1\n",
            f"{FOLDER}/nowayout": "0\n",
            f"{FOLDER}/timeleft": "300\n",
            f"{FOLDER}/timeout": "60\n",
            f"{FOLDER}/pretimeout": "damaged\n",
            f"{FOLDER}/identity": "Software Watchdog\n",
            f"{FOLDER}/options": "0x8380\n",
            f"{FOLDER}/state": "active\n",
        }
    )

    assert collect(Watchdog(Watchdog.Config(**paths))) == {
        "node_watchdog_info": {
            ("watchdog0", "0x8380", "Software Watchdog", "active", "", ""): 1,
        },
        "node_watchdog_bootstatus": {("watchdog0",): 1},
        "node_watchdog_nowayout": {("watchdog0",): 0},
        "node_watchdog_timeleft_seconds": {("watchdog0",): 300},
        "node_watchdog_timeout_seconds": {("watchdog0",): 60},
    }


def test_no_watchdogs(machine: Machine) -> None:
    """Without a watchdog there is nothing to read."""
    with pytest.raises(NotPresent, match="class/watchdog"):
        collect(Watchdog(Watchdog.Config(**machine({}))))
