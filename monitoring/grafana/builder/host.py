"""One machine or several: which resource is short."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard, units

from grafana.builder.board import Section, assemble, instance
from grafana.builder.panels import (
    ANY_IS_BAD,
    FULLNESS,
    GREEN,
    GREY,
    ORANGE,
    RED,
    Limits,
    Panel,
    Query,
    graph,
    number,
    state,
)
from grafana.builder.promql import INSTANCE, Selection, by
from grafana.builder.tables import Column, rows

UID = "bts-host"
NAME = ("instance",)
PRESSURE: Limits = ((None, GREEN), (0.2, ORANGE), (0.5, RED))
MOUNT = ("instance", "mountpoint", "device", "fstype")

one = Selection((INSTANCE,))


def used(free: str, total: str) -> str:
    """Return the share of `total` that is not free."""
    return f"1 - {one(free)} / {one(total)}"


def waiting(resource: str) -> Query:
    """Return the share of time in which tasks waited for a resource."""
    return Query(
        one.rate(f"node_pressure_{resource}_waiting_seconds_total"), f"{{{{instance}}}} {resource}"
    )


def make() -> dashboard.Dashboard:
    """Return the dashboard."""
    return assemble(
        UID,
        "Which resource of the machine is short: CPU, memory, disk, network, or its clock.",
        [instance("node_uname_info")],
        [
            Section("At a glance", _summary()),
            Section("CPU and memory", [*_processor(), *_memory()]),
            Section("Disks", [_filesystems(), *_disks()]),
            Section("Network", _network()),
            Section("Kernel and clock", _kernel()),
        ],
    )


def _summary() -> list[Panel]:
    idle = by(NAME, one.rate("node_cpu_seconds_total", 'mode="idle"'), "avg")
    space = used("node_filesystem_avail_bytes", "node_filesystem_size_bytes")
    return [
        number(
            "CPU in use",
            "Share of all CPUs that was not idle. Above 90 % tasks wait: see CPU by mode.",
            units.PercentUnit,
            Query(f"1 - {idle}", "{{instance}}"),
            limits=FULLNESS,
        ),
        number(
            "Memory in use",
            "Memory that could not be given to a process without swapping. Above 90 %, find the process that grows.",
            units.PercentUnit,
            Query(
                used("node_memory_MemAvailable_bytes", "node_memory_MemTotal_bytes"), "{{instance}}"
            ),
            limits=FULLNESS,
        ),
        number(
            "Fullest file system",
            "Space in use of the fullest file system. Brokers stop to accept messages when their disk is full.",
            units.PercentUnit,
            Query(by(NAME, space, "max"), "{{instance}}"),
            limits=FULLNESS,
        ),
        number(
            "Killed for memory",
            "Processes that the kernel killed in the last hour because memory ran out. Look for the name in dmesg.",
            units.Short,
            Query(f"round({one.increase('node_vmstat_oom_kill', '1h')})", "{{instance}}"),
            limits=ANY_IS_BAD,
        ),
        state(
            "Clock",
            "Whether the clock is synchronized. If not, lags in seconds are wrong: check chrony or systemd-timesyncd.",
            Query(one("node_timex_sync_status"), "{{instance}}"),
            {"0": ("not synchronized", ORANGE), "1": ("synchronized", GREEN)},
        ),
        number(
            "Up since",
            "Time since the machine was started. If it is short, the machine was restarted.",
            units.DurationSeconds,
            Query(f"{one('node_time_seconds')} - {one('node_boot_time_seconds')}", "{{instance}}"),
        ),
    ]


def _processor() -> list[Panel]:
    mode = by(("instance", "mode"), one.rate("node_cpu_seconds_total", 'mode!="idle"'))
    idle = one("node_cpu_seconds_total", 'mode="idle"')
    cpus = by(NAME, idle, "count")
    return [
        graph(
            "CPU by mode",
            "CPUs in use by mode, of the machine's number of CPUs. iowait: the disk is slow; steal: the hypervisor takes CPU away.",
            units.Short,
            Query(mode, "{{instance}} {{mode}}"),
            stacked=True,
        ),
        graph(
            "Load per CPU",
            "Tasks that run or wait, per CPU. Above 1 for minutes, tasks wait for a CPU or for a disk.",
            units.Short,
            Query(f"{by(NAME, one('node_load1'))} / {cpus}", "{{instance}} 1 min"),
            Query(f"{by(NAME, one('node_load15'))} / {cpus}", "{{instance}} 15 min"),
            limits=((None, GREEN), (1, ORANGE), (2, RED)),
        ),
        graph(
            "Waiting for resources",
            "Share of time in which at least one task waited for CPU, I/O or memory (PSI). The highest one is the bottleneck.",
            units.PercentUnit,
            *(waiting(resource) for resource in ("cpu", "io", "memory")),
            limits=PRESSURE,
        ),
    ]


def _memory() -> list[Panel]:
    swap = f"{one('node_memory_SwapTotal_bytes')} - {one('node_memory_SwapFree_bytes')}"
    return [
        graph(
            "Memory",
            "Memory in total and available, and swap in use. Before the available memory reaches 0, processes are killed.",
            units.BytesIEC,
            Query(one("node_memory_MemTotal_bytes"), "{{instance}} total"),
            Query(one("node_memory_MemAvailable_bytes"), "{{instance}} available"),
            Query(swap, "{{instance}} swap in use"),
        ),
    ]


def _filesystems() -> Panel:
    size, avail = one("node_filesystem_size_bytes"), one("node_filesystem_avail_bytes")
    inodes = used("node_filesystem_files_free", "node_filesystem_files")
    return rows(
        "File systems",
        "The fullest file system first. If space or inodes are above 90 %, delete or move files; a read-only one has had an error,"
        " or is mounted so.",
        MOUNT,
        [
            Column("Used", by(MOUNT, f"1 - {avail} / {size}", "max"), units.PercentUnit, FULLNESS),
            Column("Available", by(MOUNT, avail, "max"), units.BytesIEC),
            Column("Size", by(MOUNT, size, "max"), units.BytesIEC),
            Column("Inodes used", by(MOUNT, inodes, "max"), units.PercentUnit, FULLNESS),
            Column(
                "Read only",
                by(MOUNT, one("node_filesystem_readonly"), "max"),
                units.Short,
                texts={"0": ("no", GREY), "1": ("yes", ORANGE)},
            ),
        ],
        order="Used",
        height=8,
    )


def _disks() -> list[Panel]:
    def latency(direction: str, operations: str) -> str:
        time = one.rate(f"node_disk_{direction}_time_seconds_total")
        return f"{time} / {one.rate(f'node_disk_{operations}_completed_total')}"

    return [
        graph(
            "Disk busy",
            "Share of time in which a disk had at least one request. Near 100 %, a hard disk is saturated; an SSD may not be.",
            units.PercentUnit,
            Query(one.rate("node_disk_io_time_seconds_total"), "{{instance}} {{device}}"),
            limits=FULLNESS,
            width=8,
        ),
        graph(
            "Disk throughput",
            "Bytes read and written per second.",
            units.BytesPerSecondIEC,
            Query(one.rate("node_disk_read_bytes_total"), "{{instance}} {{device}} read"),
            Query(one.rate("node_disk_written_bytes_total"), "{{instance}} {{device}} written"),
            width=8,
        ),
        graph(
            "Time per disk request",
            "Average time of a read and of a write. A gap means that there was none. If it rises, brokers that sync to disk slow down.",
            units.Seconds,
            Query(latency("read", "reads"), "{{instance}} {{device}} read"),
            Query(latency("write", "writes"), "{{instance}} {{device}} write"),
            limits=((None, GREEN), (0.02, ORANGE), (0.1, RED)),
            width=8,
        ),
    ]


def _network() -> list[Panel]:
    real = 'device!~"lo|veth.*|docker.*|br-.*"'
    sides = ("receive", "transmit")
    lost = " + ".join(
        one.rate(f"node_network_{side}_{what}_total", real)
        for side in sides
        for what in ("errs", "drop")
    )
    return [
        graph(
            "Network throughput",
            "Bytes received and sent per second, without loopback and containers. Compare with the speed of the interface.",
            units.BytesPerSecondIEC,
            *(
                Query(
                    one.rate(f"node_network_{side}_bytes_total", real),
                    f"{{{{instance}}}} {{{{device}}}} {side}",
                )
                for side in sides
            ),
        ),
        graph(
            "Packets lost",
            "Packets with errors, or dropped, per second. Above 0: check the cable, the driver, and the size of the buffers.",
            units.PacketsPerSecond,
            Query(lost, "{{instance}} {{device}}"),
            limits=((None, GREEN), (1, ORANGE), (100, RED)),
        ),
        graph(
            "TCP connections",
            "Established connections, and those that wait to be closed (TIME-WAIT). A constant rise is a client that does not close.",
            units.Short,
            Query(one("node_netstat_Tcp_CurrEstab"), "{{instance}} established"),
            Query(one("node_sockstat_TCP_tw"), "{{instance}} time-wait"),
        ),
        graph(
            "TCP trouble",
            "Retransmitted segments, and connections refused because a listen queue was full, per second."
            " Retransmissions: the network loses packets. Listen overflows: a server accepts too slowly.",
            units.CountsPerSecond,
            Query(one.rate("node_netstat_Tcp_RetransSegs"), "{{instance}} retransmitted"),
            Query(one.rate("node_netstat_TcpExt_ListenOverflows"), "{{instance}} listen overflows"),
        ),
    ]


def _kernel() -> list[Panel]:
    return [
        graph(
            "Open files",
            "Share of the kernel's limit of open files that is in use. At 100 % nothing can be opened.",
            units.PercentUnit,
            Query(f"{one('node_filefd_allocated')} / {one('node_filefd_maximum')}", "{{instance}}"),
            limits=FULLNESS,
            width=8,
        ),
        graph(
            "Processes",
            "Processes that run, and those that wait for I/O. Blocked ones for minutes: a disk or a network file system hangs.",
            units.Short,
            Query(one("node_procs_running"), "{{instance}} running"),
            Query(one("node_procs_blocked"), "{{instance}} blocked"),
            width=8,
        ),
        graph(
            "Clock offset",
            "Difference between the machine's clock and its time source. Lags in seconds are as wrong as the clocks.",
            units.Seconds,
            Query(f"abs({one('node_timex_offset_seconds')})", "{{instance}}"),
            limits=((None, GREEN), (0.05, ORANGE), (0.5, RED)),
            width=8,
        ),
    ]
