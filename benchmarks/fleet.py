"""A fleet: a thousand exporters, scraped by one Prometheus that sends everything on by remote_write.

The exporters are one process that serves pages as ours has them, with values that change. Prometheus finds them through
the file that `bts-exporter targets` writes; the store is VictoriaMetrics. Both are Debian's.

    apt-get install prometheus victoria-metrics
    .venv/bin/python benchmarks/fleet.py [--machines 1000] [--interval 15] [--seconds 120]
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode
from urllib.request import urlopen

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from measuring import HOST_ONLY, cpu_of  # noqa: E402  # of this folder, which needs the one above
from servers import Process, free_port, need, wait_until  # noqa: E402  # as above
from servers.exporter import Exporter  # noqa: E402  # as above

#: Seconds between the two scrapes of a real exporter, from which the speed of counters follows.
_APART = 3.0
_CONFIG = """\
global: {{scrape_interval: {interval}s, scrape_timeout: {interval}s, evaluation_interval: 15s}}
rule_files: ["{rules}/*.yml"]
scrape_configs:
  - job_name: bts-exporter
    file_sd_configs: [{{files: ["{targets}"]}}]
{remote_write}
"""


class Usage(NamedTuple):
    """What a process needed."""

    cores: float
    resident: int  # bytes, the highest
    disk: int  # bytes


class Server:
    """A server, its data, and the address of its own metrics."""

    def __init__(self, argv: list[str], folder: Path, port: int) -> None:
        folder.mkdir()
        self._folder = folder
        self.url = f"http://127.0.0.1:{port}"
        self.process = Process(argv, folder)
        self.process.ready(lambda: self._get("/metrics"), 60)

    def _get(self, path: str) -> bytes:
        try:
            with urlopen(f"{self.url}{path}", timeout=30) as answer:
                body: bytes = answer.read()
                return body
        except OSError:
            return b""

    def own(self, name: str) -> list[float]:
        """Return the values of one of its own metrics."""
        return [
            float(line.rsplit(" ", 1)[1])
            for line in self._get("/metrics").decode().splitlines()
            if line.startswith((f"{name} ", f"{name}{{"))
        ]

    def slowest_group(self) -> tuple[float, str]:
        """Return the longest last evaluation of a group of rules, in seconds, and the group's name."""
        groups = json.loads(self._get("/api/v1/rules"))["data"]["groups"]
        return max((group["evaluationTime"], group["name"]) for group in groups)

    def query(self, promql: str) -> float:
        """Return the value of a query that has one series; 0 if it has none."""
        body = self._get(f"/api/v1/query?{urlencode({'query': promql})}")
        result = json.loads(body)["data"]["result"] if body else []  # nothing while it starts
        return float(result[0]["value"][1]) if result else 0.0

    @property
    def cpu(self) -> float:
        """Its CPU seconds until now."""
        return cpu_of(self.process.popen.pid)

    def usage(self, cpu_seconds: float, seconds: float) -> Usage:
        """Return what it needed, with the CPU time of a period."""
        status = Path(f"/proc/{self.process.popen.pid}/status").read_text()
        high = int(status.partition("VmHWM:")[2].split()[0]) * 1024
        disk = sum(path.stat().st_size for path in self._folder.rglob("*") if path.is_file())
        return Usage(cpu_seconds / seconds, high, disk)


def _inventory(folder: Path, machines: int, port: int) -> tuple[Path, list[str]]:
    """Write the targets of an inventory with `bts-exporter targets`, and return the file and addresses."""
    addresses = [f"127.1.{number // 250}.{1 + number % 250}" for number in range(machines)]
    hosts = "".join(f"      {address}:\n" for address in addresses)
    inventory, output = folder / "inventory.yaml", folder / "targets.json"
    inventory.write_text(
        f"port: {port}\ngroups:\n  all:\n    labels: {{site: simulation, role: edge}}\n    hosts:\n{hosts}"
    )
    argv = [sys.executable, "-m", "bts_exporter", "targets", inventory, "--output", output]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    return output, addresses


@contextmanager
def _exporters(folder: Path, addresses: list[str], port: int) -> Iterator[int]:
    """Serve a real exporter's page for every address; yield its number of samples."""
    folder.mkdir()
    real = Exporter(folder, HOST_ONLY)
    pages = [folder / "first.txt", folder / "second.txt"]
    try:
        for path in pages:
            real.get("/metrics")  # so that rates of the second are those of a running exporter
            path.write_text(real.get("/metrics")[1])
            time.sleep(_APART)
    finally:
        real.kill()
    argv = [sys.executable, str(HERE / "fleet_exporters.py"), *map(str, pages), str(_APART)]
    process = Process([*argv, str(port), *addresses], folder)
    try:
        process.ready(lambda: "ready" in process.log.read_text(), 60)
        yield sum(not line.startswith("#") for line in pages[0].read_text().splitlines())
    finally:
        process.kill()


def _prometheus(folder: Path, targets: Path, interval: int, store: Server | None) -> Server:
    rules = HERE.parent / "monitoring" / "prometheus" / "rules"
    remote = f"remote_write: [{{url: '{store.url}/api/v1/write'}}]" if store else ""
    config = folder / f"prometheus-{bool(store)}.yml"
    config.write_text(
        _CONFIG.format(interval=interval, rules=rules, targets=targets, remote_write=remote)
    )
    port = free_port()
    argv = [need("prometheus", "prometheus"), f"--config.file={config}", "--storage.tsdb.path=data"]
    argv.append(f"--web.listen-address=127.0.0.1:{port}")
    return Server(argv, folder / f"prometheus-{bool(store)}", port)


def _store(folder: Path) -> Server:
    port = free_port()
    argv = [need("victoria-metrics", "victoria-metrics"), "-storageDataPath=data"]
    argv.append(f"-httpListenAddr=127.0.0.1:{port}")
    return Server(argv, folder / "store", port)


def _measure(prometheus: Server, store: Server | None, arguments: argparse.Namespace) -> None:
    """Wait until every machine is scraped, measure for a while, and print the figures."""
    started = time.monotonic()
    up = "count(up == 1)"
    wait_until(lambda: prometheus.query(up) == arguments.machines, "all targets are up", 300)
    found = time.monotonic() - started
    names = [
        "prometheus_tsdb_head_samples_appended_total",
        "prometheus_remote_storage_samples_total",
        "prometheus_remote_storage_bytes_total",
    ]
    before = [sum(prometheus.own(name)) for name in names]
    cpu, store_cpu, begin = prometheus.cpu, store.cpu if store else 0.0, time.monotonic()
    time.sleep(arguments.seconds)
    seconds = time.monotonic() - begin
    cpu = prometheus.cpu - cpu
    appended, sent, sent_bytes = (
        (sum(prometheus.own(name)) - earlier) / seconds
        for name, earlier in zip(names, before, strict=True)
    )
    duration, group = prometheus.slowest_group()
    used = prometheus.usage(cpu, seconds)
    print(f"\n{'with' if store else 'without'} remote_write, for {seconds:.0f} s:")
    print(f"  all targets up after         {found:8.0f} s")
    print(
        f"  series in the head           {sum(prometheus.own('prometheus_tsdb_head_series')):8,.0f}"
    )
    print(f"  samples appended             {appended:8,.0f} /s")
    print(f"  scrape, slowest of 99 %      {prometheus.query(_SLOWEST) * 1000:8,.0f} ms")
    print(f"  missed scrapes               {arguments.machines - prometheus.query(up):8,.0f}")
    print(f"  slowest group of rules       {duration * 1000:8,.0f} ms ({group})")
    print(f"  Prometheus: CPU              {used.cores:8.2f} cores")
    print(f"  Prometheus: memory, highest  {used.resident / 2**20:8,.0f} MB")
    if store:
        used = store.usage(store.cpu - store_cpu, seconds)
        pending = sum(prometheus.own("prometheus_remote_storage_samples_pending"))
        failed = sum(prometheus.own("prometheus_remote_storage_samples_failed_total"))
        print(
            f"  remote_write: sent           {sent:8,.0f} samples/s, {sent_bytes / 1000:,.0f} kB/s"
        )
        print(f"  remote_write: pending        {pending:8,.0f} samples, {failed:.0f} failed")
        print(f"  store: CPU                   {used.cores:8.2f} cores")
        print(f"  store: memory, highest       {used.resident / 2**20:8,.0f} MB")
        print(f"  store: disk                  {used.disk / 2**20:8,.1f} MB")


_SLOWEST = "quantile(0.99, scrape_duration_seconds)"


def main() -> None:
    """Run the simulation without a store, then with one."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--machines", type=int, default=1000)
    parser.add_argument("--interval", type=int, default=15, help="scrape interval in seconds")
    parser.add_argument("--seconds", type=int, default=120, help="duration of each measurement")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the servers end with us
    with tempfile.TemporaryDirectory(prefix="fleet-") as name:
        folder, port = Path(name), free_port()
        targets, addresses = _inventory(folder, arguments.machines, port)
        with _exporters(folder / "exporters", addresses, port) as samples:
            print(
                f"{arguments.machines} machines of {samples} samples, every {arguments.interval} s"
            )
            for with_store in (False, True):
                store = _store(folder) if with_store else None
                prometheus = _prometheus(folder, targets, arguments.interval, store)
                try:
                    _measure(prometheus, store, arguments)
                finally:
                    prometheus.process.kill()
                    if store:
                        store.process.kill()


if __name__ == "__main__":
    main()
