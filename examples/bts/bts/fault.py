"""Inject a fault into a running demo: `python -m bts.fault NAME`, until Ctrl-C or for some seconds."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path

from bts import faults


def main() -> None:
    """List the faults, or inject one and revert it."""
    parser = argparse.ArgumentParser(prog="python -m bts.fault", description="Inject a fault.")
    parser.add_argument("name", nargs="?", choices=faults.FAULTS, metavar="NAME", help="see --list")
    parser.add_argument("--list", action="store_true", help="list the faults and their alerts")
    parser.add_argument(
        "--for", type=float, dest="seconds", metavar="SECONDS", help="revert it then, not at Ctrl-C"
    )
    parser.add_argument(
        "--file",
        type=Path,
        default=faults.demo_folder() / "faults",
        help="the demo's file of faults (%(default)s)",
    )
    options = parser.parse_args()
    if options.list or options.name is None:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `--list | head` ends quietly
        print_list()
        return
    if not options.file.exists():
        sys.exit("fault: no demo is running; start it with: make demo")
    inject(options.file, faults.FAULTS[options.name], options.seconds)


def print_list() -> None:
    """Print each fault with what to expect."""
    for fault in faults.FAULTS.values():
        print(f"{fault.name:18}{fault.description}\n{'':18}alerts: {', '.join(fault.alerts)}")
        if fault.may_follow:
            print(f"{'':18}may follow: {', '.join(fault.may_follow)}")


def inject(file: Path, fault: faults.Fault, seconds: float | None) -> None:
    """Inject `fault` until Ctrl-C (SIGTERM, SIGHUP) or for some seconds, and revert it."""
    reverted = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: reverted.set())
    faults.write(file, faults.read(file) | {fault.name})
    print(f"injected: {fault.description}; expect {', '.join(fault.alerts)}", flush=True)
    reverted.wait(seconds)
    if file.exists():
        faults.write(file, faults.read(file) - {fault.name})
        print("reverted", flush=True)


if __name__ == "__main__":
    main()
