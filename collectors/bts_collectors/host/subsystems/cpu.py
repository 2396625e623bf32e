"""The subsystem `cpu`: CPU time by mode, online and isolated processors, throttling, model information."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from operator import lt

from bts_collectors.host.kernel.cpuinfo import Processor, parse_cpuinfo
from bts_collectors.host.kernel.files import (
    MAX_COUNT,
    SINGLE_RECORD,
    errors_in,
    lines,
    unexpected_content,
)
from bts_collectors.host.kernel.kernel_file import KernelFile
from bts_collectors.host.kernel.parts import Parts
from bts_collectors.host.kernel.throttles import Throttles
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import CollectorConfig, NotPresent, Scrape, TargetError, counter, gauge

#: Position of idle among the numbers of a line in /proc/stat.
_IDLE = 3

#: If idle decreased by more seconds than this, the processor was unplugged in the meantime.
_UNPLUGGED_SECONDS = 3.0

#: More processors than any kernel supports: a limit for ranges in a damaged file.
_MAX_PROCESSORS = 65536

_MODE = ("cpu", "mode")


class CpuSettings(CollectorConfig, frozen=True):
    """Settings of `cpu`; each of the two regular expressions implies `info`."""

    #: Whether to emit the CPU time of guests.
    guest: bool = True
    #: Whether to read /proc/cpuinfo: model information and current frequency.
    info: bool = False
    #: Flags of the first CPU to emit; implies `info`.
    flags_include: re.Pattern[str] | None = None
    #: Bugs of the first CPU to emit; implies `info`.
    bugs_include: re.Pattern[str] | None = None


class Cpu(Subsystem):
    """Processors from /proc/stat, /proc/cpuinfo and /sys/devices/system/cpu."""

    name = "cpu"
    Settings = CpuSettings

    seconds = counter(
        "node_cpu_seconds_total",
        "Seconds the CPU spent in each mode; user and nice include guests (/proc/stat, cpuN).",
        _MODE,
    )
    guest_seconds = counter(
        "node_cpu_guest_seconds_total",
        "Seconds the CPU spent in guests (VMs) by mode; part of user and nice, too"
        " (/proc/stat, cpuN, guest, guest_nice).",
        _MODE,
    )
    online = gauge(
        "node_cpu_online",
        "Whether the CPU is online (/sys/devices/system/cpu/present and online).",
        ("cpu",),
    )
    isolated = gauge(
        "node_cpu_isolated",
        "Whether the CPU is isolated from the scheduler (/sys/devices/system/cpu/isolated).",
        ("cpu",),
    )
    core_throttles = counter(
        "node_cpu_core_throttles_total",
        "Number of times the core was throttled because of its temperature"
        " (/sys/devices/system/cpu/cpuN/thermal_throttle/core_throttle_count).",
        ("package", "core"),
    )
    package_throttles = counter(
        "node_cpu_package_throttles_total",
        "Number of times the package was throttled because of its temperature"
        " (/sys/devices/system/cpu/cpuN/thermal_throttle/package_throttle_count).",
        ("package",),
    )
    info = gauge(
        "node_cpu_info",
        "A metric with a constant '1' value, labelled by fields of /proc/cpuinfo.",
        (
            "package",
            "core",
            "cpu",
            "vendor",
            "family",
            "model",
            "model_name",
            "microcode",
            "stepping",
            "cachesize",
        ),
    )
    flag_info = gauge(
        "node_cpu_flag_info", "Flags of the first CPU (/proc/cpuinfo, flags).", ("flag",)
    )
    bug_info = gauge("node_cpu_bug_info", "Bugs of the first CPU (/proc/cpuinfo, bugs).", ("bug",))
    frequency = gauge(
        "node_cpu_frequency_hertz",
        "Current frequency (/proc/cpuinfo, cpu MHz).",
        ("package", "core", "cpu"),
    )

    #: In the order of /proc/stat.
    columns = (
        (seconds, "user"),
        (seconds, "nice"),
        (seconds, "system"),
        (seconds, "idle"),
        (seconds, "iowait"),
        (seconds, "irq"),
        (seconds, "softirq"),
        (seconds, "steal"),
        (guest_seconds, "user"),
        (guest_seconds, "nice"),
    )

    settings: CpuSettings

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        settings = self.settings
        self._stat = KernelFile(f"{config.procfs}/stat", SINGLE_RECORD)
        self._cpuinfo = KernelFile(f"{config.procfs}/cpuinfo")
        self._folder = f"{config.sysfs}/devices/system/cpu"
        self._present = KernelFile(f"{self._folder}/present")
        self._online = KernelFile(f"{self._folder}/online")
        self._isolated = KernelFile(f"{self._folder}/isolated")
        self._throttles = Throttles(self._folder)
        self._columns = self.columns if settings.guest else self.columns[:8]
        self._with_info = settings.info or bool(settings.flags_include or settings.bugs_include)
        self._hertz = os.sysconf("SC_CLK_TCK")
        self._lock = threading.Lock()
        self._ticks: dict[str, list[int]] = {}

    def collect(self, scrape: Scrape) -> None:
        """Emit times, then states from /sys, then the fields of /proc/cpuinfo if enabled."""
        parts = Parts()
        with parts:
            self._emit_times(scrape)
        self._emit_states(scrape, parts)
        if self._with_info:
            with parts:
                self._emit_info(scrape)
        parts.check()

    def _emit_times(self, scrape: Scrape) -> None:
        hertz = self._hertz
        try:
            with self._stat as content, self._lock:
                for cpu, ticks in parse_times(content):
                    monotonic = self._without_decrease(cpu, ticks)
                    for (metric, mode), value in zip(self._columns, monotonic, strict=False):
                        scrape.emit(metric, value / hertz, cpu, mode)
        except NotPresent as error:
            # An error: otherwise a wrong `procfs` would go unnoticed.
            msg = f"{error}, but every Linux has it; is `host.procfs` the host's /proc?"
            raise TargetError(reason="os", message=msg) from error

    def _without_decrease(self, cpu: str, ticks: list[int]) -> list[int]:
        """Return the ticks, with the previous value for each that decreased, unless the CPU was unplugged."""
        before = self._ticks.get(cpu)
        if before is not None and any(map(lt, ticks, before)):
            decrease = before[_IDLE] - ticks[_IDLE]
            if decrease < _UNPLUGGED_SECONDS * self._hertz:
                ticks = list(map(max, ticks, before))
        self._ticks[cpu] = ticks
        return ticks

    def _emit_states(self, scrape: Scrape, parts: Parts) -> None:
        online = self._online.value()
        if online:  # else it is unknown which are offline
            with parts, errors_in(self._online.path):
                running = parse_list(online)
                self._emit_online(scrape, running)
        with parts, errors_in(self._isolated.path):
            for cpu in parse_list(self._isolated.value() or b""):
                scrape.emit(self.isolated, 1, cpu)
        cores, packages = self._throttles.read(online or b"")
        for (package, core), count in cores.items():
            scrape.emit(self.core_throttles, count, package, core)
        for package, count in packages.items():
            scrape.emit(self.package_throttles, count, package)

    def _emit_online(self, scrape: Scrape, running: dict[str, None]) -> None:
        present = self._present.value()
        with errors_in(self._present.path):
            for cpu in parse_list(present) if present else running:
                scrape.emit(self.online, int(cpu in running), cpu)

    def _emit_info(self, scrape: Scrape) -> None:
        with self._cpuinfo as content:
            processors = parse_cpuinfo(content)
        for processor in processors:
            scrape.emit(self.info, 1, *processor.labels)
            if processor.megahertz is not None:
                scrape.emit(self.frequency, processor.megahertz * 1e6, *processor.position)
        self._emit_features(scrape, processors[0])

    def _emit_features(self, scrape: Scrape, first: Processor) -> None:
        settings = self.settings
        for metric, words, include in (
            (self.flag_info, first.flags, settings.flags_include),
            (self.bug_info, first.bugs, settings.bugs_include),
        ):
            if include is not None:
                for word in dict.fromkeys(filter(include.search, words)):
                    scrape.emit(metric, 1, word)


def parse_times(content: bytes) -> Iterator[tuple[str, list[int]]]:
    """Yield `(number, ticks)` of each processor; the kernel has 4 to 10 modes.

    Raises ValueError at the end, for the first unreadable line, or if there is no line of a processor.
    """
    bad: bytes | None = None
    found = False
    for line in lines(content):
        if not line.startswith(b"cpu"):
            continue
        name, *fields = line.split()
        if name == b"cpu":
            continue
        try:
            cpu, ticks = str(int(name[3:])), list(map(int, fields))
        except ValueError:
            ticks = []
        if len(ticks) > _IDLE and min(ticks) >= 0 and max(ticks) < MAX_COUNT:
            found = True
            yield cpu, ticks
        else:
            bad = bad or line
    if bad is not None or not found:
        raise unexpected_content(content if bad is None else bad)


def parse_list(content: bytes) -> dict[str, None]:
    """Return the numbers in a list such as `0-2,5`, in its order; ValueError for anything else."""
    found: dict[str, None] = {}
    if content == b"(null)":  # how some kernels print an empty list
        return found
    for part in filter(None, content.split(b",")):
        first, dash, last = part.partition(b"-")
        begin = int(first)
        end = int(last) if dash else begin
        if not 0 <= begin <= end < _MAX_PROCESSORS:
            raise unexpected_content(content)
        found.update(dict.fromkeys(map(str, range(begin, end + 1))))
    return found


COLLECTOR = Cpu
