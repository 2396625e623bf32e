"""An unreadable line, zone, device or cgroup loses only itself: the real process serves all others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from servers.exporter import Exporter, StartExporter

pytestmark = pytest.mark.live

Machine = Callable[[dict[str, str]], dict[str, Any]]
Series = tuple[str, frozenset[tuple[str, str]]]

#: A file whose read returns EINVAL.
EINVAL = Path("/sys/class/net/lo/speed")


class Case(NamedTuple):
    """The files of a collector, the expected series, and whether it succeeds."""

    files: dict[str, str]
    expected: dict[str, float]
    success: int = 0


def netdev(device: str, first: str) -> str:
    """Return a line of /proc/net/dev."""
    return f"{device}: {first}" + " 1" * 15 + "\n"


NETDEV = "Inter-|   Receive                            |  Transmit\n face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed\n"
ARP = "IP address HW type Flags HW address Mask Device\n"
UDP = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt\n"
SOFTNET = " ".join(["0000000a"] * 13)
CASES = {
    "arp": Case(
        {"proc/net/arp": f"{ARP}1 0x1 0x2 a * eth0\nodd\n1 0x1 x a * eth0\n1 0x1 0x2 a * eth1\n1 0x0 0xc a * *\n"},
        {'node_arp_entries{device="eth0"}': 1, 'node_arp_entries{device="eth1"}': 1},
    ),
    "cgroups": Case(
        {"proc/cgroups": "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu 1 2 1\nodd\nmemory 1 3 1\n"},
        {'node_cgroups_cgroups{subsys_name="cpu"}': 2, 'node_cgroups_cgroups{subsys_name="memory"}': 3},
    ),
    "conntrack": Case(
        {
            "proc/sys/net/netfilter/nf_conntrack_count": "odd\n",
            "proc/sys/net/netfilter/nf_conntrack_max": "8\n",
            "proc/net/stat/nf_conntrack": "entries found drop\n01 02 03\n01 02 03\n",
        },
        {"node_nf_conntrack_entries_limit": 8, "node_nf_conntrack_stat_drop": 6},
    ),
    "cpu": Case(
        {
            "proc/stat": "cpu 1 1 1 1\nodd\ncpu0 100 1 1 1\ncpu1 x\ncpu2 -1 1 1 1\ncpu3 200 1 1 1\nbtime 5\n",
            "sys/devices/system/cpu/online": "0-3\n",
            "sys/devices/system/cpu/isolated": "odd\n",
            "proc/cpuinfo": "processor: 0\nmodel name: good\n",
        },
        {
            'node_cpu_seconds_total{cpu="0",mode="user"}': 1,
            'node_cpu_seconds_total{cpu="3",mode="user"}': 2,
            'node_cpu_online{cpu="3"}': 1,
        },
    ),
    "diskstats": Case(
        {"proc/diskstats": f" 8 0 sda {'1 ' * 8} 4294967295 1 1\n 8 16 sdb odd\n 8 32 sdc 1 1 1 1 1 1 -1 1 1 1 1\n"},
        {
            'node_disk_reads_completed_total{device="sda"}': 1,
            'node_disk_reads_completed_total{device="sdc"}': 1,
            'node_disk_writes_merged_total{device="sdc"}': 1,
        },
    ),
    "entropy": Case(
        {"proc/sys/kernel/random/entropy_avail": "odd\n", "proc/sys/kernel/random/poolsize": "256\n"},
        {"node_entropy_pool_size_bits": 256},
    ),
    "interrupts": Case(
        {"proc/interrupts": "  CPU0 CPU1\n1: 3 4 IO eth0\nodd\n2: x 1 IO eth1\nNMI: 5 6 Non\n"},
        {
            'node_interrupts_total{cpu="0",type="1",info="IO",devices="eth0"}': 3,
            'node_interrupts_total{cpu="1",type="NMI",info="Non",devices=""}': 6,
        },
    ),
    "mdadm": Case(
        {
            "proc/mdstat": (
                "Personalities : [raid1]\nmd0 : active raid1 a[0] b[1]\n 16 blocks [2/2] [UU]\n\n"
                "md1 : active raid1 a[0] b[1]\n many blocks\n\n"
                "md2 : active raid5 a[0](E) b[1]\n 32 blocks super 1.2 level 5 [2/1] [EU]\n"
                "md3 : active raid1 a[0]\n 64 blocks super 1.2\n"
                "unused devices: <none>\n"
            )
        },
        {
            'node_md_blocks{device="md0"}': 16,
            'node_md_blocks{device="md2"}': 32,
            'node_md_disks{device="md2",state="active"}': 1,
        },
    ),
    "meminfo": Case(
        {"proc/meminfo": "MemTotal: 4 kB\nodd\nSwapFree: 18446744073709551612 kB\nMemFree: -1 kB\nCached: 2 kB\n"},
        {"node_memory_MemTotal_bytes": 4096, "node_memory_Cached_bytes": 2048},
    ),
    "netdev": Case(
        {"proc/net/dev": NETDEV + netdev("eth0", "7") + "odd\n" + netdev("eth1", "-1") + netdev("eth2", "9")},
        {
            'node_network_receive_bytes_total{device="eth0"}': 7,
            'node_network_receive_bytes_total{device="eth2"}': 9,
        },
    ),
    "netstat": Case(
        {
            "proc/net/netstat": "odd\nIpExt: InOctets OutOctets\nIpExt: 5 x\nTcpExt: ListenDrops\nTcpExt: 4\n",
            "proc/net/snmp": "Tcp: CurrEstab\nTcp: 1 2\nUdp: NoPorts InErrors\nUdp: 3 -4\n",
            "proc/net/snmp6": "Ip6InOctets 7\nodd\nIp6InErrors 18446744073709551612\nIp6OutOctets 8\n",
        },
        {
            "node_netstat_IpExt_InOctets": 5,
            "node_netstat_TcpExt_ListenDrops": 4,
            "node_netstat_Udp_NoPorts": 3,
            "node_netstat_Ip6_InOctets": 7,
            "node_netstat_Ip6_OutOctets": 8,
        },
    ),
    "pressure": Case(
        {
            "proc/pressure/cpu": "odd\nsome avg10=0.00 total=1000000\n",
            "proc/pressure/io": "some total=x\nfull avg10=0.00 total=2000000\n",
            "proc/pressure/memory": "some avg10=0.00 total=3000000\n",
        },
        {
            "node_pressure_cpu_waiting_seconds_total": 1,
            "node_pressure_io_stalled_seconds_total": 2,
            "node_pressure_memory_waiting_seconds_total": 3,
        },
    ),
    "processes": Case(
        {
            "proc/1/stat": f"1 (init) S {'1 ' * 50}\n",
            "proc/2/stat": "odd\n",
            "proc/sys/kernel/pid_max": "odd\n",
            "proc/sys/kernel/threads-max": "70\n",
        },
        {"node_processes_pids": 2, "node_processes_max_threads": 70, 'node_processes_state{state="S"}': 1},
    ),
    "process_group": Case(
        {"proc/1/io": "read_bytes: 1\nwrite_bytes: 1\n", "proc/1/fd/0": "", "proc/1/cmdline": ""},
        {'bts_process_group_processes{group="all"}': 1},
    ),
    "schedstat": Case(
        {"proc/schedstat": f"cpu0 {'0 ' * 6}1000000000 2 3\ncpu1 odd\ncpu2 {'0 ' * 6}2000000000 2 3\n"},
        {
            'node_schedstat_running_seconds_total{cpu="0"}': 1,
            'node_schedstat_running_seconds_total{cpu="2"}': 2,
        },
    ),
    "sockstat": Case(
        {
            "proc/net/sockstat": "sockets: used 9\nodd\nTCP: inuse 1 orphan -1 tw x mem 2\nUDP: inuse 3\n",
            "proc/net/sockstat6": "TCP6: inuse 4\n",
        },
        {
            "node_sockstat_sockets_used": 9,
            "node_sockstat_TCP_mem": 2,
            "node_sockstat_UDP_inuse": 3,
            "node_sockstat_TCP6_inuse": 4,
        },
    ),
    "softnet": Case(
        {"proc/net/softnet_stat": f"{SOFTNET} 00000000 0\nodd\n{SOFTNET[:-2]}05 00000000 0\n"},
        {'node_softnet_processed_total{cpu="10"}': 10, 'node_softnet_processed_total{cpu="5"}': 10},
    ),
    "stat": Case({}, {"node_boot_time_seconds": 5}, 1),
    "udp_queues": Case(
        {
            "proc/net/udp": f"{UDP} 0: A B 07 00000001:00000002 0\nodd\n 1: A B 07 00000003:00000004 0\n",
            "proc/net/udp6": f"{UDP} 0: A B 07 00000005:00000006 0\n",
        },
        {
            'node_udp_queues{queue="tx",ip="v4"}': 4,
            'node_udp_queues{queue="rx",ip="v6"}': 6,
        },
    ),
    "vmstat": Case(
        {"proc/vmstat": "pgpgin 1\nodd\npgpgout -1\npswpin 18446744073709551615\noom_kill 2\n"},
        {"node_vmstat_pgpgin": 1, "node_vmstat_oom_kill": 2},
    ),
    "cgroup_group": Case(
        {
            "cgroup/cgroup.controllers": "cpu\n",
            "cgroup/a/cpu.stat": "user_usec 1000000\nodd\nsystem_usec 2000000\n",
            "cgroup/a/io.stat": "8:0 rbytes=x\n",
            "cgroup/a/memory.current": "x\n",
            "cgroup/a/pids.current": "3\n",
            "cgroup/b/memory.current": "5\n",
        },
        {
            'bts_cgroup_cpu_seconds_total{cgroup="a",mode="user"}': 1,
            'bts_cgroup_cpu_seconds_total{cgroup="a",mode="system"}': 2,
            'bts_cgroup_pids{cgroup="a"}': 3,
            'bts_cgroup_memory_bytes{cgroup="b"}': 5,
        },
    ),
    "rapl": Case(
        {
            f"sys/class/powercap/{zone}/{file}": content
            for zone, energy in (("z:0", "1000000"), ("z:2", "odd"), ("z:3", "4000000"))
            for file, content in (("name", f"zone{zone[-1]}\n"), ("energy_uj", f"{energy}\n"))
        },
        {
            'node_rapl_zone0_joules_total{index="0",path="{sysfs}/class/powercap/z:0"}': 1,
            'node_rapl_zone3_joules_total{index="0",path="{sysfs}/class/powercap/z:3"}': 4,
        },
    ),
    "bonding": Case(
        {
            "sys/class/net/bonding_masters": "bond0 gone bond1\n",
            "sys/class/net/bond0/bonding/slaves": "eth0\n",
            "sys/class/net/bond0/lower_eth0/bonding_slave/mii_status": "up\n",
            "sys/class/net/bond1/bonding/slaves": "eth1\n",
        },
        {
            'node_bonding_active{master="bond0"}': 1,
            'node_bonding_slaves{master="bond1"}': 1,
        },
        1,
    ),
}  # fmt: skip

#: Files of the cases that cannot be read (EINVAL).
BROKEN = (
    "sys/class/powercap/z:1/energy_uj",
    "sys/class/thermal/thermal_zone0/temp",
    "sys/class/hwmon/hwmon0/temp1_input",
)


def series(text: str) -> Series:
    """Return a series from its text on a page."""
    name, _, labels = text.partition("{")
    pairs = [pair.split("=", 1) for pair in labels.removesuffix("}").split(",") if pair]
    return name, frozenset((label, value.strip('"')) for label, value in pairs)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a host with the files of all cases."""
    folder = tmp_path_factory.mktemp("machine")
    for case in CASES.values():
        for name, content in case.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
    for name in BROKEN:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(EINVAL)
    (folder / "sys/class/powercap/z:1/name").write_text("zone1\n")
    (folder / "sys/class/thermal/thermal_zone1").mkdir()
    (folder / "sys/class/thermal/thermal_zone1/temp").write_text("45000\n")
    (folder / "sys/class/hwmon/hwmon0/temp2_input").write_text("46000\n")
    return folder


@pytest.fixture(scope="module")
def page_series(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Give the series that an exporter serves for that host."""
    server = Exporter(
        tmp_path_factory.mktemp("exporter"),
        "collectors:\n  host:\n"
        f"    procfs: {folder}/proc\n    sysfs: {folder}/sys\n    rootfs: {folder}\n"
        "    enable: [interrupts, cgroups]\n"
        "    process_group: {groups: [{name: all, comm: .}]}\n"
        f"    cgroup_group: {{names: ['*'], root: {folder}/cgroup}}\n",
    )
    try:
        return server.samples()
    finally:
        server.kill()


@pytest.mark.parametrize("name", CASES)
def test_others_are_served(name: str, folder: Path, page_series: dict[Series, float]) -> None:
    """Everything around an unreadable line or part is served, and the collector fails."""
    case = CASES[name]
    expected = {
        series(text.replace("{sysfs}", f"{folder}/sys")): value
        for text, value in case.expected.items()
    }

    assert {each: page_series.get(each) for each in expected} == expected
    outcome = ("node_scrape_collector_success", frozenset({("collector", name)}))
    assert page_series[outcome] == case.success


def test_all_failed_parts_are_reported(tmp_path: Path, exporter: StartExporter) -> None:
    """The error of a collector names every file that failed, not only the first."""
    for name, protocol in (("sockstat", "TCP"), ("sockstat6", "TCP6")):
        path = tmp_path / "proc/net" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{protocol}: inuse 1\nodd\n")
    server = exporter(f"collectors:\n  host:\n    procfs: {tmp_path}/proc\n")

    assert server.value("node_sockstat_TCP_inuse") == 1
    (error,) = [line for line in server.log.read_text().splitlines() if "net/sockstat:" in line]
    assert "/proc/net/sockstat: unexpected content: 'odd'; " in error
    assert "/proc/net/sockstat6: unexpected content: 'odd'" in error


def test_unknown_values(page_series: dict[Series, float]) -> None:
    """Numbers that mean "unknown" are not served, and neither are proxy entries of ARP."""
    served = {(name, dict(labels).get("device")) for name, labels in page_series}

    assert not served & {
        ("node_disk_io_now", "sda"),
        ("node_disk_written_bytes_total", "sdc"),
        ("node_memory_SwapFree_bytes", None),
        ("node_memory_MemFree_bytes", None),
        ("node_sockstat_TCP_orphan", None),
        ("node_vmstat_pgpgout", None),
        ("node_vmstat_pswpin", None),
        ("node_netstat_Udp_InErrors", None),
        ("node_netstat_Ip6_InErrors", None),
        ("node_arp_entries", "*"),
    }
    assert ("node_disk_io_now", "sdc") in served


def test_sensors_that_refuse(page_series: dict[Series, float]) -> None:
    """A zone, a sensor or a counter whose driver returns EINVAL loses only itself."""
    names = {name for name, _ in page_series}

    assert not EINVAL.exists() or "node_rapl_zone1_joules_total" not in names
    temperatures = {
        dict(labels).get("zone") or dict(labels)["sensor"]: value
        for (name, labels), value in page_series.items()
        if name in {"node_thermal_zone_temp", "node_hwmon_temp_celsius"}
    }
    assert temperatures == {"1": 45, "temp2": 46}
    for collector in ("thermal_zone", "hwmon"):
        assert (
            page_series["node_scrape_collector_success", frozenset({("collector", collector)})] == 1
        )
