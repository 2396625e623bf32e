"""The subsystem `cgroup_group`: resource usage and pressure of cgroups (services, slices, containers)."""

from __future__ import annotations

import errno
import glob
import os
from collections.abc import Callable
from typing import NamedTuple

from bts_collectors.host.kernel.cgroup import (
    Numbers,
    parse_blkio,
    parse_io,
    parse_limit,
    parse_limit_v1,
    parse_pairs,
)
from bts_collectors.host.kernel.files import errors_in, read
from bts_collectors.host.kernel.open_files import with_room
from bts_collectors.host.kernel.parts import Parts
from bts_collectors.host.kernel.pressure import parse_pressure
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import CollectorConfig, Metric, NotPresent, Scrape, counter, gauge

_CGROUP = ("cgroup",)

#: Clock ticks per second, the unit of CPU time in version 1.
_TICKS = os.sysconf("SC_CLK_TCK")

#: Errors for a cgroup that was just removed, and for a file whose accounting is switched off.
_GONE = (errno.ENODEV, errno.ENOTSUP)


class CgroupGroupSettings(CollectorConfig, frozen=True):
    """Settings of `cgroup_group`."""

    #: Globs of cgroups below the root, such as `system.slice/*.service`; `**` matches any depth.
    names: tuple[str, ...] = ()
    #: Where cgroups are mounted; `fs/cgroup` below sysfs if not set.
    root: str | None = None
    #: Maximum number of cgroups, the first ones by name.
    max_cgroups: int = 200

    def __post_init__(self) -> None:
        """Raise ValueError for names outside of the root."""
        for name in self.names:
            if not name or name.startswith("/") or ".." in name.split("/"):
                msg = f"names: {name!r} is not a path below the root, such as system.slice"
                raise ValueError(msg)


class _Field(NamedTuple):
    """A number in a file, its metric and labels, and the divisor to the metric's unit."""

    key: bytes
    metric: Metric
    labels: tuple[str, ...] = ()
    unit: float = 1


class _File(NamedTuple):
    """A file of every cgroup: its hierarchy, name, parser and fields."""

    hierarchy: str
    name: str
    parse: Callable[[bytes], Numbers]
    fields: tuple[_Field, ...]


def _pressure(hierarchy: str, resource: str, waiting: Metric, stalled: Metric) -> _File:
    fields = (_Field(b"some", waiting, (resource,)), _Field(b"full", stalled, (resource,)))
    return _File(hierarchy, f"{resource}.pressure", parse_pressure, fields)


class CgroupGroup(Subsystem):
    """Cgroups below /sys/fs/cgroup, version 2 or, if that has no controllers, version 1."""

    name = "cgroup_group"
    Settings = CgroupGroupSettings

    dropped = gauge(
        "bts_cgroup_dropped",
        "Cgroups that match names but are not collected because of max_cgroups.",
    )
    cpu = counter(
        "bts_cgroup_cpu_seconds_total",
        "CPU time by mode (cpu.stat, user_usec, system_usec; v1: cpuacct.stat).",
        (*_CGROUP, "mode"),
    )
    periods = counter(
        "bts_cgroup_cpu_periods_total",
        "Enforcement periods of the CPU limit (cpu.stat, nr_periods).",
        _CGROUP,
    )
    throttled_periods = counter(
        "bts_cgroup_cpu_throttled_periods_total",
        "Enforcement periods in which the CPU limit was reached (cpu.stat, nr_throttled).",
        _CGROUP,
    )
    throttled = counter(
        "bts_cgroup_cpu_throttled_seconds_total",
        "Time that tasks were throttled by the CPU limit"
        " (cpu.stat, throttled_usec; v1: throttled_time).",
        _CGROUP,
    )
    memory = gauge(
        "bts_cgroup_memory_bytes",
        "Memory in use, including page cache (memory.current; v1: memory.usage_in_bytes).",
        _CGROUP,
    )
    memory_max = gauge(
        "bts_cgroup_memory_max_bytes",
        "Memory limit, +Inf if unlimited (memory.max; v1: memory.limit_in_bytes).",
        _CGROUP,
    )
    swap = gauge(
        "bts_cgroup_memory_swap_bytes",
        "Swap space in use (memory.swap.current; v1: memory.stat, total_swap).",
        _CGROUP,
    )
    oom_kills = counter(
        "bts_cgroup_memory_oom_kills_total",
        "Processes killed by the OOM killer (memory.events, oom_kill; v1: memory.oom_control).",
        _CGROUP,
    )
    read_bytes = counter(
        "bts_cgroup_io_read_bytes_total",
        "Bytes read from devices (io.stat, rbytes; v1: blkio.throttle.io_service_bytes_recursive).",
        _CGROUP,
    )
    written_bytes = counter(
        "bts_cgroup_io_written_bytes_total",
        "Bytes written to devices (io.stat, wbytes; v1: blkio.throttle.io_service_bytes_recursive).",
        _CGROUP,
    )
    reads = counter(
        "bts_cgroup_io_reads_total",
        "Reads from devices (io.stat, rios; v1: blkio.throttle.io_serviced_recursive).",
        _CGROUP,
    )
    writes = counter(
        "bts_cgroup_io_writes_total",
        "Writes to devices (io.stat, wios; v1: blkio.throttle.io_serviced_recursive).",
        _CGROUP,
    )
    pids = gauge("bts_cgroup_pids", "Number of processes and threads (pids.current).", _CGROUP)
    pids_max = gauge(
        "bts_cgroup_pids_max",
        "Limit on processes and threads, +Inf if unlimited (pids.max).",
        _CGROUP,
    )
    waiting = counter(
        "bts_cgroup_pressure_waiting_seconds_total",
        "Time in which at least one task waited for the resource (RESOURCE.pressure, some, total).",
        (*_CGROUP, "resource"),
    )
    stalled = counter(
        "bts_cgroup_pressure_stalled_seconds_total",
        "Time in which all tasks waited for the resource (RESOURCE.pressure, full, total).",
        (*_CGROUP, "resource"),
    )

    _cpu_time = (
        _Field(b"user_usec", cpu, ("user",), 1e6),
        _Field(b"system_usec", cpu, ("system",), 1e6),
    )
    #: Version 2 has one hierarchy: the root itself.
    files = (
        _File(
            "",
            "cpu.stat",
            parse_pairs,
            (
                *_cpu_time,
                _Field(b"nr_periods", periods),
                _Field(b"nr_throttled", throttled_periods),
                _Field(b"throttled_usec", throttled, (), 1e6),
            ),
        ),
        _File("", "memory.current", parse_limit, (_Field(b"", memory),)),
        _File("", "memory.max", parse_limit, (_Field(b"", memory_max),)),
        _File("", "memory.swap.current", parse_limit, (_Field(b"", swap),)),
        _File("", "memory.events", parse_pairs, (_Field(b"oom_kill", oom_kills),)),
        _File(
            "",
            "io.stat",
            parse_io,
            (
                _Field(b"rbytes", read_bytes),
                _Field(b"wbytes", written_bytes),
                _Field(b"rios", reads),
                _Field(b"wios", writes),
            ),
        ),
        _File("", "pids.current", parse_limit, (_Field(b"", pids),)),
        _File("", "pids.max", parse_limit, (_Field(b"", pids_max),)),
        _pressure("", "cpu", waiting, stalled),
        _pressure("", "memory", waiting, stalled),
        _pressure("", "io", waiting, stalled),
    )
    files_v1 = (
        _File(
            "cpuacct",
            "cpuacct.stat",
            parse_pairs,
            (
                _Field(b"user", cpu, ("user",), _TICKS),
                _Field(b"system", cpu, ("system",), _TICKS),
            ),
        ),
        _File(
            "cpu",
            "cpu.stat",
            parse_pairs,
            (
                _Field(b"nr_periods", periods),
                _Field(b"nr_throttled", throttled_periods),
                _Field(b"throttled_time", throttled, (), 1e9),
            ),
        ),
        _File("memory", "memory.usage_in_bytes", parse_limit, (_Field(b"", memory),)),
        _File("memory", "memory.limit_in_bytes", parse_limit_v1, (_Field(b"", memory_max),)),
        _File("memory", "memory.stat", parse_pairs, (_Field(b"total_swap", swap),)),
        _File("memory", "memory.oom_control", parse_pairs, (_Field(b"oom_kill", oom_kills),)),
        _File(
            "blkio",
            "blkio.throttle.io_service_bytes_recursive",
            parse_blkio,
            (_Field(b"Read", read_bytes), _Field(b"Write", written_bytes)),
        ),
        _File(
            "blkio",
            "blkio.throttle.io_serviced_recursive",
            parse_blkio,
            (_Field(b"Read", reads), _Field(b"Write", writes)),
        ),
        _File("pids", "pids.current", parse_limit, (_Field(b"", pids),)),
        _File("pids", "pids.max", parse_limit, (_Field(b"", pids_max),)),
        # In systemd's hybrid mode version 2 is mounted there, without the controllers of version 1.
        _File("unified", "cpu.stat", parse_pairs, _cpu_time),
        _pressure("unified", "cpu", waiting, stalled),
        _pressure("unified", "memory", waiting, stalled),
        _pressure("unified", "io", waiting, stalled),
    )

    settings: CgroupGroupSettings

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self._root = self.settings.root or f"{config.sysfs}/fs/cgroup"

    def collect(self, scrape: Scrape) -> None:
        """Emit the metrics of each cgroup that matches `names`."""
        if not self.settings.names:
            msg = "cgroup_group.names is not set"
            raise NotPresent(msg)
        files = self._files()
        found = self._find({file.hierarchy for file in files})
        limit = self.settings.max_cgroups
        scrape.emit(self.dropped, max(len(found) - limit, 0))
        parts = Parts()
        for cgroup in found[:limit]:
            self._emit(scrape, cgroup, files, parts)
        parts.check()

    def _files(self) -> list[_File]:
        """Return the files of the version that is mounted; NotPresent if neither is."""
        if os.path.exists(f"{self._root}/cgroup.controllers"):  # noqa: PTH110
            return list(self.files)
        mounted = {
            hierarchy
            for hierarchy in {file.hierarchy for file in self.files_v1}
            if os.path.isdir(f"{self._root}/{hierarchy}")  # noqa: PTH112  # as above
        }
        if not mounted:
            msg = f"{self._root} has no cgroups"
            raise NotPresent(msg)
        return [file for file in self.files_v1 if file.hierarchy in mounted]

    def _find(self, hierarchies: set[str]) -> list[str]:
        """Return the cgroups that match `names` in any of the hierarchies, sorted."""
        with_room(os.listdir, self._root)  # glob hides errors, such as too many open files
        cgroups = {
            path.rstrip("/")
            for hierarchy in hierarchies
            for name in self.settings.names
            for path in glob.glob(  # noqa: PTH207  # relative paths
                name.rstrip("/") + "/", root_dir=f"{self._root}/{hierarchy}", recursive=True
            )
        }
        return sorted(cgroups)

    def _emit(self, scrape: Scrape, cgroup: str, files: list[_File], parts: Parts) -> None:
        seen: set[tuple[Metric, tuple[str, ...]]] = set()
        for file in files:
            fields = {field.key: field for field in file.fields}
            with parts:
                for key, number in self._read(cgroup, file):
                    field = fields.get(key)
                    # The first file wins: in hybrid mode both versions have CPU time.
                    if field is not None and (field.metric, field.labels) not in seen:
                        seen.add((field.metric, field.labels))
                        scrape.emit(field.metric, number / field.unit, cgroup, *field.labels)

    def _read(self, cgroup: str, file: _File) -> Numbers:
        path = os.path.join(self._root, file.hierarchy, cgroup, file.name)  # noqa: PTH118
        try:
            content = read(path)
        except NotPresent:  # the controller is off, or the cgroup was removed
            return
        except OSError as error:
            if error.errno in _GONE:
                return
            raise
        with errors_in(path):
            yield from file.parse(content)


COLLECTOR = CgroupGroup
