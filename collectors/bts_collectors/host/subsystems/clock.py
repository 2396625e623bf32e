"""The subsystem `time`: system time, time zone, clock sources (`time` is a standard module)."""

from __future__ import annotations

import time
from itertools import count

from bts_collectors.host.kernel.files import text
from bts_collectors.host.kernel.kernel_file import KernelFile
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import Scrape, gauge

_CLOCKSOURCE = ("device", "clocksource")


class Time(Subsystem):
    """System time, time zone and clock sources."""

    name = "time"

    now = gauge("node_time_seconds", "System time in Unix time (clock_gettime, CLOCK_REALTIME).")
    offset = gauge(
        "node_time_zone_offset_seconds",
        "Offset of the local time zone east of UTC (localtime, tm_gmtoff).",
        ("time_zone",),
    )
    available = gauge(
        "node_time_clocksource_available_info",
        "Clock sources that the kernel can use"
        " (/sys/devices/system/clocksource/clocksourceN/available_clocksource).",
        _CLOCKSOURCE,
    )
    current = gauge(
        "node_time_clocksource_current_info",
        "Clock source that the kernel uses"
        " (/sys/devices/system/clocksource/clocksourceN/current_clocksource).",
        _CLOCKSOURCE,
    )

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self._folder = f"{config.sysfs}/devices/system/clocksource"
        #: The files of each clock source device: available sources, current source.
        self._sources: list[tuple[KernelFile, KernelFile]] = []

    def collect(self, scrape: Scrape) -> None:
        """Emit the time, and the clock sources if the kernel lists them."""
        now = time.time()
        zone = time.localtime(now)
        scrape.emit(self.now, now)
        scrape.emit(self.offset, zone.tm_gmtoff, zone.tm_zone)
        for number in count():
            if number == len(self._sources):
                self._sources.append(self._source(number))
            available, current = (file.value() for file in self._sources[number])
            if available is None:
                break
            for source in dict.fromkeys(available.split()):
                scrape.emit(self.available, 1, str(number), text(source))
            if current:
                scrape.emit(self.current, 1, str(number), text(current))

    def _source(self, number: int) -> tuple[KernelFile, KernelFile]:
        folder = f"{self._folder}/clocksource{number}"
        return (
            KernelFile(f"{folder}/available_clocksource"),
            KernelFile(f"{folder}/current_clocksource"),
        )


COLLECTOR = Time
