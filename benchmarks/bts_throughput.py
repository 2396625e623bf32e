"""Measure the throughput of the BTS demo: 200 readings a second, and a burst of 2,000 a second for 10 s.

Each reading of a grid load must lead to a prediction: ids are counted on both ends of the pipeline.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from running_demo import RunningDemo

import bts_report
from bts import faults, results
from bts.readings import GRID_LOAD
from servers import wait_until

HEADING = "Throughput"
STEADY_SECONDS, BURST_SECONDS, AFTER_SECONDS = 30.0, 10.0, 60.0
MAX_LAG_SECONDS = 1.0


class Result(NamedTuple):
    """A prediction that has appeared in the stream: its reading, and when it was measured and appeared."""

    id: str
    measured: float
    appeared: float

    @property
    def lag(self) -> float:
        """Return the seconds in between."""
        return self.appeared - self.measured


class Published:
    """The ids of grid loads that the sensors publish, and when they were measured."""

    def __init__(self, host: str, port: int) -> None:
        self.measured: dict[str, float] = {}
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="bench-listener")
        self._client.on_message = lambda _c, _d, message: self._take(message.payload)
        self._client.on_connect = lambda client, *_: client.subscribe(f"bts/+/{GRID_LOAD}", qos=1)
        self._client.connect(host, port)
        self._client.loop_start()

    def stop(self) -> None:
        """Count no more."""
        self._client.disconnect()
        self._client.loop_stop()

    def _take(self, payload: bytes) -> None:
        reading = json.loads(payload)
        self.measured[reading["id"]] = reading["reading_time"]


class Appeared:
    """The predictions in the stream, in the order in which they appear."""

    def __init__(self, url: str) -> None:
        self.results: list[Result] = []
        self._redis = results.connect(url)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        """Read no more."""
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        position = "$"
        while not self._end.is_set():
            reply: Any = self._redis.xread({results.STREAM: position}, count=1000, block=1000)
            now = time.time()
            for _, entries in reply:
                for position, fields in entries:  # noqa: B007  # the last one is where it goes on
                    self.results.append(Result(fields["id"], float(fields["reading_time"]), now))


def main() -> int:
    """Measure, print and write the table; 1 if a reading is lost or the lag stays above a second."""
    with tempfile.TemporaryDirectory(prefix="bts-throughput-") as folder:
        demo = RunningDemo(Path(folder), "--rate=200")
        try:
            demo.wait_until_ready()
            return measure(demo)
        finally:
            demo.stop()


def measure(demo: RunningDemo) -> int:
    """Measure a running demo."""
    appeared = Appeared(demo.address("Redis"))
    # What is published from now on appears later than this.
    wait_until(lambda: appeared.results, "results")
    host, _, port = demo.address("MQTT").removeprefix("mqtt://").partition(":")
    published = Published(host, int(port))
    begin = time.time()
    time.sleep(STEADY_SECONDS)
    burst = time.time()
    injected = demo.inject("burst")
    time.sleep(BURST_SECONDS)
    demo.revert(injected)
    # The sensors look at the faults each half second.
    end = time.time() + faults.POLL_SECONDS
    time.sleep(AFTER_SECONDS)
    published.stop()
    ids = set(published.measured)
    wait_for_all(ids, appeared)
    appeared.stop()

    arrived = {result.id for result in appeared.results}
    late = [r.appeared for r in appeared.results if r.lag > MAX_LAG_SECONDS and r.appeared > end]
    recovery = max(late, default=end) - end
    phases = {"before": (begin, burst), "burst": (burst, end), "after": (end, end + AFTER_SECONDS)}
    rows = [row(name, start, stop, published, appeared) for name, (start, stop) in phases.items()]
    for cells in rows:
        print(*cells, sep="\t")
    lost = len(ids - arrived)
    for reading in ids - arrived:
        print(f"lost: measured {published.measured[reading] - begin:.3f} s after the beginning")
    print(
        f"grid loads published {len(ids)}, lost {lost}; lag below 1 s {recovery:.1f} s after the burst"
    )
    holds = ids and lost == 0 and recovery < AFTER_SECONDS
    if holds:
        bts_report.write_rows(HEADING, rows, keys=1)
    return int(not holds)


def wait_for_all(ids: set[str], appeared: Appeared) -> None:
    """Return when all have appeared, or no more do."""
    try:
        wait_until(lambda: ids <= {result.id for result in appeared.results}, "all results", 20)
    except AssertionError as error:
        print(error)


def row(
    name: str, start: float, stop: float, published: Published, appeared: Appeared
) -> list[str]:
    """Return the cells of one phase: rates in and out, and the lag of what appeared in it."""
    measured = [moment for moment in published.measured.values() if start <= moment < stop]
    lags = [result.lag for result in appeared.results if start <= result.appeared < stop]
    hundredths = statistics.quantiles(lags, n=100)
    seconds = stop - start
    return [
        name,
        f"{len(measured) / seconds:.0f}/s",
        f"{len(lags) / seconds:.0f}/s",
        *(f"{1000 * lag:.0f} ms" for lag in (hundredths[49], hundredths[98], max(lags))),
    ]


if __name__ == "__main__":
    sys.exit(main())
