"""Measure how soon each fault of the BTS demo is detected, with the rules as shipped: make bench-bts.

Faults are injected one after the other; each takes up to half an hour. Names joined by `+` are injected
together: that is possible where each of them causes other alerts.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from running_demo import AlertWatch, RunningDemo

import bts_report
from bts import faults
from servers import wait_until

HEADING = "Time to detection"
#: No alert needs longer.
DETECTION_SECONDS = 1500.0
CLEAR_SECONDS = 1800.0
#: Rules compare with the last five minutes, and with what was usual before that.
WARM_UP_SECONDS = 420.0


def main() -> int:
    """Inject the faults that the command line names; 1 if an alert is missing or a wrong one fires."""
    arguments = _parser().parse_args()
    groups = [group.split("+") for group in arguments.faults or faults.FAULTS]
    failures = 0
    with tempfile.TemporaryDirectory(prefix="bts-detection-") as folder:
        demo = RunningDemo(Path(folder), f"--rate={arguments.rate}", "--interval=15")
        try:
            demo.wait_until_ready()
            watch = AlertWatch(demo)
            time.sleep(WARM_UP_SECONDS)
            for group in groups:
                failures += not measure(demo, watch, group)
            watch.stop()
        finally:
            demo.stop()
    return int(failures > 0)


def measure(demo: RunningDemo, watch: AlertWatch, names: list[str]) -> bool:
    """Inject faults together, print and write what fired, and return whether it is as listed."""
    listed = [faults.FAULTS[name] for name in names]
    watch.wait_until_clear(CLEAR_SECONDS)
    watch.forget()
    started = time.monotonic()
    injected = [demo.inject(name) for name in names]
    wanted = {alert for fault in listed for alert in fault.alerts}
    detected = is_reached(lambda: wanted <= set(watch.seen), "alerts", DETECTION_SECONDS)
    for process in injected:
        demo.revert(process)
    reverted = time.monotonic()
    cleared = is_reached(lambda: not watch.active, "no alerts", CLEAR_SECONDS)
    watch.wait_until_clear(CLEAR_SECONDS)

    possible = wanted.union(*(fault.may_follow for fault in listed))
    wrong = set(watch.seen) - possible
    missing = wanted - set(watch.seen)
    print(f"{'+'.join(names)}: wrong {sorted(wrong)}, missing {sorted(missing)}", flush=True)
    rows = []
    for fault in listed:
        for alert in (*fault.alerts, *(set(fault.may_follow) & set(watch.seen))):
            after = watch.seen.get(alert)
            end = watch.last.get(alert)
            rows.append(
                [
                    f"`{fault.name}`",
                    f"[{alert}](runbooks/{alert}.md)",
                    duration(None if after is None else after - started),
                    duration(None if end is None else end - reverted),
                ]
            )
            print(*rows[-1], flush=True)
    if detected and cleared and not wrong:
        bts_report.write_rows(HEADING, rows)
    return detected and cleared and not wrong


def is_reached(condition: Callable[[], object], what: str, seconds: float) -> bool:
    """Return whether a condition holds in time."""
    try:
        wait_until(condition, what, seconds)
    except AssertionError:
        return False
    return True


def duration(seconds: float | None) -> str:
    """Return minutes and seconds for the table."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "faults", nargs="*", type=_known, metavar="FAULT[+FAULT...]", help="default: each of them"
    )
    parser.add_argument("--rate", type=float, default=200, help="readings a second (%(default)s)")
    return parser


def _known(group: str) -> str:
    for name in group.split("+"):
        if name not in faults.FAULTS:
            msg = f"there are {', '.join(faults.FAULTS)}; got {name!r}"
            raise argparse.ArgumentTypeError(msg)
    return group


if __name__ == "__main__":
    sys.exit(main())
