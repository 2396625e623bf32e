"""A running demo: `python -m bts.demo` as a process, with the addresses that it prints."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from bts import faults, scene
from servers import Process, need, wait_until

START_SECONDS = 180.0


class RunningDemo:
    """The demo in a folder of its own, on its own ports where another one has the usual ports."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        """Start it; `wait_until_ready` returns when it runs. The test is skipped where a program is missing."""
        for program, package in scene.PACKAGES.items():
            need(program, package)
        self.folder = folder / "demo"
        logs = folder / "output"
        logs.mkdir()
        argv = [sys.executable, "-m", "bts.demo", f"--folder={self.folder}", *arguments]
        self.process = Process(argv, logs)

    @property
    def output(self) -> str:
        """Return everything that it has printed."""
        return self.process.log.read_text()

    def wait_until_ready(self) -> None:
        """Return when all programs have started and the first status line is there."""
        self.process.ready(lambda: "readings in" in self.output, START_SECONDS)

    def address(self, name: str) -> str:
        """Return the base URL of what the demo calls `name`."""
        found = re.search(rf"^{name}.*?: +(\w+://[^/\s]+)", self.output, re.MULTILINE)
        assert found, self.output
        return found[1]

    def get(self, name: str, path: str) -> Any:
        """Return the decoded JSON that a server of the demo answers."""
        with urllib.request.urlopen(self.address(name) + path, timeout=10) as response:
            return json.load(response)

    def query(self, promql: str) -> list[Any]:
        """Return the samples that the demo's Prometheus answers."""
        answer = self.get("Prometheus", f"/api/v1/query?{urlencode({'query': promql})}")
        samples: list[Any] = answer["data"]["result"]
        return samples

    def inject(self, name: str) -> subprocess.Popen[bytes]:
        """Inject a fault as a user does; Ctrl-C to the process reverts it."""
        argv = [sys.executable, "-m", "bts.fault", name, f"--file={self.folder / 'faults'}"]
        process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
        wait_until(lambda: name in faults.read(self.folder / "faults"), f"fault {name}")
        return process

    def revert(self, injected: subprocess.Popen[bytes]) -> None:
        """Revert a fault."""
        injected.send_signal(signal.SIGINT)
        assert injected.wait(10) == 0

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """End the demo with a signal and return its exit status."""
        self.process.popen.send_signal(number)
        return self.process.popen.wait(60)


class AlertWatch:
    """Remembers each alert that Alertmanager shows as active: it fires, and no other alert silences it.

    Alerts about the machine are left out: its load is not the demo's to control.
    """

    def __init__(self, demo: RunningDemo) -> None:
        """Watch in the background until `stop`."""
        self._demo = demo
        self._end = threading.Event()
        #: When each alert was seen first and last, time.monotonic().
        self.seen: dict[str, float] = {}
        self.last: dict[str, float] = {}
        #: What each alert said last.
        self.summaries: dict[str, str] = {}
        #: The alerts of the last look.
        self.active: frozenset[str] = frozenset()
        self.looks = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def forget(self) -> None:
        """Start with nothing seen."""
        self.seen = {}

    def wait_until_clear(self, seconds: float) -> None:
        """Return when no alert has been active at several looks in a row."""
        clear_since = self.looks

        def is_clear() -> bool:
            nonlocal clear_since
            if self.active:
                clear_since = self.looks
            return self.looks >= clear_since + 4

        try:
            wait_until(is_clear, "no alerts", seconds)
        except AssertionError as error:
            error.add_note(f"still active: {sorted(self.active)}")
            raise

    def stop(self) -> None:
        """End the watch."""
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        path = "/api/v2/alerts?active=true&silenced=false&inhibited=false"
        while not self._end.wait(0.5):
            try:
                found = self._demo.get("Alertmanager", path)
            except OSError:  # a busy machine
                continue
            summaries = {
                alert["labels"]["alertname"]: alert["annotations"]["summary"] for alert in found
            }
            self.active = frozenset(name for name in summaries if not name.startswith("Host"))
            for name in self.active:
                self.last[name] = time.monotonic()
                self.seen.setdefault(name, self.last[name])
                self.summaries[name] = summaries[name]
            self.looks += 1
