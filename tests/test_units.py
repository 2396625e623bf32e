"""The unit files: what the unit must not switch on, and what systemd thinks of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from servers import need
from servers.sources import ROOT

UNIT = ROOT / "systemd" / "bts-exporter.service"
PUSH = ROOT / "systemd" / "bts-exporter-push.service"
SOCKET = ROOT / "systemd" / "bts-exporter.socket"
#: Highest exposure, in tenths, that `systemd-analyze security` may find.
EXPOSURE = 20


def setting(name: str, unit: Path = UNIT) -> list[str]:
    """Return the values that a unit file gives to a setting, in their order."""
    return [
        line.partition("=")[2]
        for line in unit.read_text().splitlines()
        if line.startswith(f"{name}=")
    ]


@pytest.mark.parametrize(
    ("name", "harmless"),
    [
        pytest.param("ProtectProc", "default", id="hides /proc/1/mountinfo"),
        pytest.param("ProcSubset", "all", id="hides /proc/stat, /proc/meminfo and the rest"),
        pytest.param("ProtectClock", "no", id="forbids adjtimex"),
        pytest.param("ProtectHostname", "no", id="keeps the name of a renamed machine"),
        pytest.param("PrivateNetwork", "no", id="hides the machine's interfaces"),
        pytest.param("ProtectHome", "read-only", id="hides file systems below /home"),
    ],
)
def test_hardening_takes_no_metrics_away(name: str, harmless: str) -> None:
    """Settings that remove host metrics, as measured, are not set."""
    assert set(setting(name)) <= {harmless}


def test_tmp_is_the_machines_own() -> None:
    """DynamicUser implies a /tmp of the unit's own, which has another size and hides mounts."""
    assert setting("PrivateTmp") == ["yes"]
    assert setting("BindReadOnlyPaths") == ["/tmp /var/tmp"]


def test_limits_leave_headroom() -> None:
    """The unit bounds memory, threads and files, at least at twice what was measured at most."""
    assert setting("MemoryMax") == ["1G"]
    assert int(setting("TasksMax")[0]) >= 2 * (128 + 64)
    assert int(setting("LimitNOFILE")[0]) >= 2 * 1500


def test_systemd_finds_no_fault(units: list[Path]) -> None:
    """`systemd-analyze verify` has nothing to say about the units."""
    done = analyze("verify", *map(str, units))

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", [UNIT.name, PUSH.name])
def test_unit_is_hardened(units: list[Path], name: str) -> None:
    """`systemd-analyze security` finds no more exposure than is promised."""
    (unit,) = [path for path in units if path.name == name]
    done = analyze("security", "--offline=yes", f"--threshold={EXPOSURE}", str(unit))

    assert done.returncode == 0, done.stdout + done.stderr


def test_both_services_see_the_same_machine() -> None:
    """What the unit that pushes may do and see is what the one that serves may."""
    serving, pushing = (
        path.read_text().partition("DynamicUser=")[2].splitlines() for path in (UNIT, PUSH)
    )
    assert [line for line in pushing if "=" in line] == [
        line for line in serving if "=" in line and not line.startswith("#")
    ]


@pytest.fixture
def units(tmp_path: Path) -> list[Path]:
    """Return the unit files as on a machine where the program is installed."""
    found = []
    for unit in (UNIT, PUSH, SOCKET):
        text = unit.read_text().replace("/opt/bts-exporter/bin/bts-exporter", sys.executable)
        found.append(tmp_path / unit.name)
        found[-1].write_text(text)
    return found


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze, and return how it ended."""
    program = need("systemd-analyze", "systemd")
    return subprocess.run(
        [program, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_stop_is_bounded() -> None:
    """Systemd ends a stop after 5 s."""
    assert setting("TimeoutStopSec") == ["5s"]
