"""The demo: `python -m bts.demo` runs brokers, the service, the exporter, Prometheus and Alertmanager.

All of it listens on 127.0.0.1 and lives in one folder, which is deleted at the end.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import signal
import sys
import threading
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

from bts import faults, scene
from bts.programs import DemoError, StoppedError, listens

STATUS_SECONDS = 1.0
#: The metrics of the status line: process and series.
READINGS = ("sensors", "bts_sensors_published_total")
PREDICTIONS = ("worker", "bts_prediction_value_count")
LAG = ("exporter", "messaging_lag_seconds")
#: A file that only a demo's folder has.
MARK = ".bts-demo"
MONITORING = Path(__file__).parents[3] / "monitoring" / "prometheus"


class Demo:
    """Runs the programs until it is stopped, and carries out the faults that stop one of them."""

    def __init__(self, options: scene.Options, stopped: threading.Event) -> None:
        """Prepare the programs; the demo ends soon after `stopped` is set."""
        self._faults = options.folder / "faults"
        self._scene = scene.build(options)
        self._stopped = stopped
        #: Names of programs that a fault has ended.
        self._ended: set[str] = set()
        self._last: dict[str, tuple[float, float]] = {}

    def start(self) -> None:
        """Start everything, each program when the one before is ready."""
        faults.write(self._faults, frozenset())
        for program in self._scene.programs.values():
            say(f"starting {program.name}")
            if listens(program.port):
                msg = f"port {program.port} has just been taken by another program; start again"
                raise DemoError(msg)
            program.start()
            program.wait_until_ready(self._stopped)
        for name, address in self._scene.addresses.items():
            say(f"{name + ':':24}{address}")
        say(f"inject a fault:         {sys.executable} -m bts.fault --list")

    def run(self) -> None:
        """Print one line each second, until the demo is stopped."""
        due = time.monotonic()
        while not self._stopped.is_set():
            self._apply_faults()
            self._restart_ended()
            say(self._status())
            due = max(due + STATUS_SECONDS, time.monotonic())
            self._stopped.wait(due - time.monotonic())

    def stop(self) -> None:
        """Stop everything, in the opposite order of the start."""
        for program in reversed(self._scene.programs.values()):
            program.stop()

    def _apply_faults(self) -> None:
        active = [
            faults.FAULTS[name] for name in faults.read(self._faults) if name in faults.FAULTS
        ]
        ended = {fault.stops for fault in active if fault.stops and not fault.freezes}
        frozen = {fault.stops for fault in active if fault.freezes}
        for name, program in self._scene.programs.items():
            if name in ended:
                program.ask_to_end()
            elif name in self._ended:
                program.stop()
                program.start()
            program.freeze() if name in frozen - ended else program.thaw()
        self._ended = ended

    def _restart_ended(self) -> None:
        for name, program in self._scene.programs.items():
            if name not in self._ended and not program.running:
                say(f"{name} has ended, and is started again: {program.end_of_log(1)}")
                program.start()

    def _status(self) -> str:
        rates = [self._rate(*READINGS), self._rate(*PREDICTIONS)]
        lags = self._values(*LAG)
        active = ", ".join(sorted(faults.read(self._faults)))
        parts = [
            f"readings in {number(rates[0])}/s",
            f"predictions out {number(rates[1])}/s",
            f"lag {number(max(lags) if lags else None, 1)} s",
            *([f"fault: {active}"] if active else []),
        ]
        return ", ".join(parts)

    def _rate(self, role: str, series: str) -> float | None:
        values = self._values(role, series)
        now = time.monotonic()
        before = self._last.get(role)
        if not values:
            self._last.pop(role, None)
            return None
        total = sum(values)
        self._last[role] = (now, total)
        if before is None or total < before[1]:
            return None
        return (total - before[1]) / (now - before[0])

    def _values(self, role: str, series: str) -> list[float]:
        """Return the values of a metric; none where the process does not answer at once."""
        if self._scene.programs[role].frozen:
            return []
        with (
            suppress(OSError, ValueError),
            urllib.request.urlopen(self._scene.metrics[role], timeout=1) as response,
        ):
            lines = response.read().decode().splitlines()
            return [
                float(line.rpartition(" ")[2])
                for line in lines
                if line.startswith((f"{series} ", f"{series}{{"))
            ]
        return []


def number(value: float | None, digits: int = 0) -> str:
    """Return a number for the status line; a dash where it is not known."""
    return "-" if value is None else f"{value:.{digits}f}"


def say(text: str) -> None:
    """Print a line at once, also into a pipe; StoppedError where the reader has gone."""
    try:
        print(text, flush=True)
    except OSError as error:
        raise StoppedError from error


def claim(folder: Path) -> int:
    """Make the demo's folder, for this user only, and return a descriptor that locks it.

    What an earlier demo left there is deleted. DemoError where a demo is running there, and where the folder
    holds other files.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        msg = f"a demo is running already in {folder}; stop it with Ctrl-C"
        raise DemoError(msg) from None
    left = list(folder.iterdir())
    if left and folder / MARK not in left:
        msg = f"{folder} holds files that are not a demo's; choose another folder with --folder"
        raise DemoError(msg)
    for path in left:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (folder / MARK).touch()
    return lock


def options_of(arguments: argparse.Namespace) -> scene.Options:
    """Return the options of a parsed command line; DemoError where there are no rules."""
    rules = sorted((arguments.monitoring / "rules").glob("*.yml"))
    if not rules:
        msg = f"{arguments.monitoring}/rules has no rules; name its folder with --monitoring"
        raise DemoError(msg)
    return scene.Options(
        folder=arguments.folder,
        rate=arguments.rate,
        stations=arguments.stations,
        rules=rules,
        alertmanager=arguments.monitoring / "alertmanager.yml",
        interval=arguments.interval,
        stale_seconds=arguments.stale_seconds,
        mqtt_queue=arguments.mqtt_queue,
        relay=arguments.relay,
    )


def command_line() -> argparse.ArgumentParser:
    """Return the demo's command line."""
    result = argparse.ArgumentParser(prog="python -m bts.demo", description="Run the whole scene.")
    add = result.add_argument
    add("--rate", type=float, default=200, help="readings a second (%(default)s)")
    add("--stations", type=int, default=100, help="(%(default)s)")
    add("--interval", type=float, default=5, help="seconds between scrapes (%(default)s)")
    add("--stale-seconds", type=float, default=120, help="a station is silent after (%(default)s)")
    add(
        "--mqtt-queue",
        type=int,
        default=20_000,
        help="messages that the MQTT broker keeps for the bridge (%(default)s)",
    )
    add(
        "--monitoring",
        type=Path,
        default=MONITORING,
        help="folder with rules/ and alertmanager.yml (%(default)s)",
    )
    add(
        "--relay", action="store_true", help="one target: the exporter relays the service's metrics"
    )
    add("--folder", type=Path, default=faults.demo_folder(), help="for everything (%(default)s)")
    return result


def main() -> None:
    """Run the demo until Ctrl-C."""
    stopped = threading.Event()
    # No exception in the middle of a start: each process that is started will be stopped.
    for number_ in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number_, lambda *_: stopped.set())
    try:
        options = options_of(command_line().parse_args())
        claim(options.folder)
    except (DemoError, OSError) as error:
        sys.exit(f"demo: {error}")
    try:
        run(options, stopped)
    except DemoError as error:
        sys.exit(f"demo: {error}")
    finally:
        shutil.rmtree(options.folder, ignore_errors=True)


def run(options: scene.Options, stopped: threading.Event) -> None:
    """Run the demo in its folder until `stopped` is set; DemoError where a program does not start."""
    demo = Demo(options, stopped)
    try:
        demo.start()
        demo.run()
    except StoppedError:
        pass
    finally:
        with suppress(StoppedError):
            say("stopping")
        demo.stop()


if __name__ == "__main__":
    main()
