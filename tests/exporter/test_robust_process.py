"""What happens around the process: a full disk, closed outputs, steps of the clock, storms of reloads, flapping targets."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from servers import free_port, need, wait_until
from servers.exporter import StartExporter
from servers.footprint import Scraper, returns_to, settled
from servers.namespaces import MakeNamespace, namespace
from stubs import environment

__all__ = ["namespace"]

SETTINGS = "collectors: {host: }\n"
#: Growth of resident memory that does not count as a leak, in MB.
MARGIN = 8
RELOADS = 1000


def with_stderr(place: str, *before: str) -> tuple[str, ...]:
    """Return the beginning of a command line whose standard error is the file `place`."""
    return (*before, "sh", "-c", f'exec "$@" 2>{place}', "sh")


# The log


def test_log_on_a_full_disk(exporter: StartExporter) -> None:
    """If no log line can be written, scrapes and the end of the process are not affected."""
    process = exporter(SETTINGS, "--log.level=debug", enter=with_stderr("/dev/full"))
    with Scraper(process) as scraper:
        for _ in range(20):
            process.popen.send_signal(signal.SIGHUP)
            scraper.served(1)
    process.popen.terminate()

    assert scraper.failures == []
    assert process.popen.wait(30) == 0


@pytest.mark.live
def test_log_continues_when_the_disk_has_room_again(
    exporter: StartExporter, namespace: MakeNamespace, tmp_path: Path
) -> None:
    """Lines that a full disk does not take are counted, and logged as a number later."""
    disk = tmp_path / "disk"
    disk.mkdir()
    inside = namespace(f"mount -t tmpfs -o size=16k tmpfs {disk}")
    outside = Path(f"/proc/{inside.popen.pid}/root{disk}")
    log = outside / "log"
    process = exporter(SETTINGS, enter=with_stderr(f"{disk}/log", *inside.enter))
    wait_until(lambda: "listening" in log.read_text(), "the log has begun")
    fill(outside / "filler")
    with Scraper(process) as scraper:
        for _ in range(60):
            process.popen.send_signal(signal.SIGHUP)
            scraper.served(1)
    (outside / "filler").unlink()
    process.popen.send_signal(signal.SIGHUP)

    wait_until(lambda: "log lines were dropped" in log.read_text(), "the number of lines")
    assert scraper.failures == []
    assert re.search(r"dropped=[1-9]", log.read_text())
    assert "settings reloaded" in log.read_text().splitlines()[-1]


def fill(path: Path) -> None:
    """Write to a file until its disk is full."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 512)
        except OSError:
            return


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_files(closed: str, exporter: StartExporter) -> None:
    """A process that is started without some of its standard files serves, and stops with exit code 0."""
    process = exporter(SETTINGS, enter=("sh", "-c", f'exec "$@" {closed}', "sh"))
    statuses = [process.get("/metrics")[0] for _ in range(3)]
    process.popen.send_signal(signal.SIGHUP)
    statuses.append(process.get("/-/healthy")[0])
    first = [str(Path(f"/proc/{process.popen.pid}/fd/{number}").readlink()) for number in range(3)]
    process.popen.terminate()

    assert statuses == [200] * 4
    assert process.popen.wait(30) == 0
    assert [place for place in first if place.startswith("socket:")] == []


@pytest.mark.parametrize(
    ("command", "target", "code"),
    [
        ("once", ">&-", 1),
        ("once", ">/dev/full", 1),
        ("config", ">/dev/full", 1),
        ("check", ">&-", 0),
        ("metrics", ">/dev/full", 1),
    ],
)
def test_output_of_commands_that_cannot_be_written(
    command: str, target: str, code: int, tmp_path: Path
) -> None:
    """A full disk is an error with a message; metrics need an output. Neither is a traceback."""
    (tmp_path / "config.yaml").write_text("collectors: {host: {enable: [arp]}}\n")
    script = f'exec "{sys.executable}" -m bts_exporter --config.file={tmp_path}/config.yaml {command} {target}'
    done = subprocess.run(
        ["sh", "-c", script], env=environment(), capture_output=True, text=True, check=False
    )

    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert ("No space left" in done.stderr) == (target == ">/dev/full")


# The clock


@pytest.mark.live
def test_steps_of_the_clock(exporter: StartExporter, tmp_path: Path) -> None:
    """When the clock jumps by a year, forwards or backwards, scrapes have their time and collectors stay up."""
    need("faketime", "faketime")
    [library] = list(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))[:1]
    clock = tmp_path / "clock"
    clock.write_text("+0\n")
    process = exporter(
        SETTINGS,
        enter=(
            "env",
            f"LD_PRELOAD={library}",
            f"FAKETIME_TIMESTAMP_FILE={clock}",
            "FAKETIME_NO_CACHE=1",
            "FAKETIME_DONT_FAKE_MONOTONIC=1",
            "DONT_FAKE_MONOTONIC=1",
        ),
    )
    seen = []
    with Scraper(process) as scraper:
        for step in ("+0", "+365d", "-365d", "+1h", "-1h", "+0"):
            clock.write_text(f"{step}\n")
            scraper.served(3)
            seen.append(round(((process.value("node_time_seconds") or 0) - time.time()) / 3600))
    failed = [
        name
        for (name, labels), value in process.samples().items()
        if name == "bts_exporter_collector_success" and not value
    ]

    assert seen == [0, 8760, -8760, 1, -1, 0]
    assert scraper.failures == []
    assert failed == []


# Reloads


def test_storm_of_signals_during_scrapes(exporter: StartExporter) -> None:
    """A SIGHUP each millisecond while ten clients scrape costs no scrape, and the last one is heard."""
    process = exporter(SETTINGS)
    before = settled(process)
    stop = threading.Event()

    def storm() -> None:
        while not stop.wait(0.001):
            process.popen.send_signal(signal.SIGHUP)

    sender = threading.Thread(target=storm)
    with ExitStack() as stack:
        crowd = [stack.enter_context(Scraper(process)) for _ in range(10)]
        sender.start()
        crowd[0].served(20)
        stop.set()
        sender.join()
    process.config.write_text("collectors: {nothing: }\n")
    process.popen.send_signal(signal.SIGHUP)

    assert [scraper.failures for scraper in crowd] == [[]] * 10
    wait_until(
        lambda: process.value("bts_exporter_config_last_reload_successful") == 0,
        "the last reload fails because of its settings",
    )
    returns_to(process, before, MARGIN)


@pytest.mark.parametrize("exchanged", [False, True])
def test_a_thousand_reloads(exchanged: bool, exporter: StartExporter) -> None:
    """Neither the same settings nor collectors that are exchanged each time leave anything behind."""
    targets = ", ".join(
        f"{kind}: {{url: '{scheme}://127.0.0.1:{free_port()}', timeout: %ds}}"
        for kind, scheme in (("redis", "redis"), ("rabbitmq", "http"), ("mqtt", "mqtt"))
    )
    texts = [f"collectors: {{{targets % ((seconds,) * 3)}}}\n" for seconds in (2, 3)]
    process = exporter(texts[0], "--web.enable-lifecycle")

    def reload(count: int) -> list[int]:
        statuses = []
        for number in range(count):
            if exchanged:
                process.config.write_text(texts[number % 2])
            statuses.append(process.get("/-/reload", method="POST")[0])
        return statuses

    first = reload(100)
    before = settled(process, 5)
    with Scraper(process) as scraper:
        statuses = reload(RELOADS if not exchanged else RELOADS // 4)

    assert {*first, *statuses} == {200}
    assert scraper.failures == []
    returns_to(process, before, MARGIN)


# Targets


def test_targets_that_flap(exporter: StartExporter) -> None:
    """Targets that accept connections at one scrape and refuse them at the next cost nothing but their metrics."""
    ports = [free_port() for _ in range(3)]
    redis, rabbitmq, mqtt = ports
    process = exporter(
        f"collectors: {{redis: {{url: 'redis://127.0.0.1:{redis}'}},"
        f" rabbitmq: {{url: 'http://127.0.0.1:{rabbitmq}'}}, mqtt: {{url: 'mqtt://127.0.0.1:{mqtt}'}}}}\n"
    )
    before = settled(process, 5)
    statuses = []
    for _ in range(40):
        with ExitStack() as stack:
            for port in ports:
                closing(stack, port)
            statuses.append(process.get("/metrics")[0])
        statuses.append(process.get("/metrics")[0])

    assert statuses == [200] * 80
    assert process.log.read_text().count("collection fails") <= 30
    returns_to(process, before, MARGIN)


def closing(stack: ExitStack, port: int) -> None:
    """Accept connections on `port` and close each at once, until the block ends."""
    server = stack.enter_context(socket.create_server(("127.0.0.1", port)))

    def serve() -> None:
        while True:
            try:
                server.accept()[0].close()
            except OSError:
                return

    thread = threading.Thread(target=serve)
    thread.start()
    stack.callback(thread.join)
    stack.callback(server.shutdown, socket.SHUT_RDWR)
