"""The command that injects faults, on a file as the demo makes it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bts import faults
from servers import wait_until

COMMAND = [sys.executable, "-m", "bts.fault"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_fault_is_reverted_when_the_command_is_stopped(
    tmp_path: Path, number: signal.Signals
) -> None:
    """Ctrl-C, a signal or a closed terminal reverts the fault, and no other."""
    file = tmp_path / "faults"
    faults.write(file, frozenset({"burst"}))
    command = subprocess.Popen([*COMMAND, "drift", f"--file={file}"], stdout=subprocess.DEVNULL)
    wait_until(lambda: faults.read(file) == {"burst", "drift"}, "fault")

    command.send_signal(number)

    assert command.wait(30) == 0
    assert faults.read(file) == {"burst"}


def test_fault_is_reverted_after_some_seconds(tmp_path: Path) -> None:
    """With --for the command ends by itself, and says what to expect."""
    file = tmp_path / "faults"
    faults.write(file, frozenset())

    done = run("drift", "--for=0.1", f"--file={file}")

    assert done.returncode == 0
    assert "expect BtsInputDrift" in done.stdout
    assert faults.read(file) == frozenset()


def test_fault_without_a_demo_is_refused(tmp_path: Path) -> None:
    """The message says how to start one; an unknown name is answered with those that exist."""
    without = run("drift", f"--file={tmp_path / 'faults'}")
    unknown = run("drfit")

    assert without.returncode == 1
    assert "make demo" in without.stderr
    assert unknown.returncode == 2
    assert "drift-partial" in unknown.stderr


def test_list_names_every_fault_with_its_alerts() -> None:
    """Each alert that is listed is one of the rules that we ship."""
    listed = run("--list").stdout
    rules = Path(__file__).parents[3] / "monitoring" / "prometheus" / "rules"
    shipped = "".join(path.read_text() for path in rules.glob("*.yml"))

    for fault in faults.FAULTS.values():
        assert fault.name in listed
        for alert in (*fault.alerts, *fault.may_follow):
            assert alert in listed
            assert f"- alert: {alert}\n" in shipped
