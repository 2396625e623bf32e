from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from servers import Process, free_port, wait_until
from stubs import SPOOLDIR, configure, drop_in, environment

COMMAND = [sys.executable, "-m", "bts_exporter"]

#: Starts the exporter with flags, and further variables of its environment.
Serve = Callable[..., "Serving"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a plug-in, and settings that use it."""
    drop_in(tmp_path / "plugins", "spool")
    configure(tmp_path, f"spool: {{path: {tmp_path}, pattern: '*.job'}}")
    return tmp_path


class Serving(Process):
    """The exporter as a process, on a port of its own."""

    def __init__(self, folder: Path, *flags: str, **env: str) -> None:
        self.port = free_port()
        address = f"--web.listen-address=127.0.0.1:{self.port}"
        super().__init__([*COMMAND, address, *flags], folder, environment(**env))

    def request(self, path: str, method: str = "GET") -> tuple[int, str]:
        """Return status and text; 0 where nothing answers yet."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        except ConnectionRefusedError:
            return 0, ""
        finally:
            connection.close()

    def begun(self) -> Serving:
        """Wait until it is ready, and return it."""
        self.ready(lambda: self.request("/-/ready")[0] == 200)
        return self

    def lines(self) -> list[str]:
        """Return its log lines."""
        return self.log.read_text().splitlines()

    def end(self, number: int = signal.SIGTERM) -> int:
        """Stop it by SIGTERM, and return its exit code."""
        self.popen.send_signal(number)
        return self.popen.wait(60)


@pytest.fixture
def serve(folder: Path) -> Iterator[Serve]:
    """Return a function that starts the exporter; all end with the test."""
    running: list[Serving] = []

    def start(*flags: str, **env: str) -> Serving:
        running.append(Serving(folder, *flags, **env))
        return running[-1]

    yield start
    for process in running:
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serving_until_told_to_stop(serve: Serve, number: int) -> None:
    """The process uses the settings of the working folder, and exits with 0 after a signal."""
    process = serve().begun()
    status, text = process.request("/metrics")

    assert status == 200
    assert "spool_files{" in text
    assert process.end(number) == 0
    messages = [line.partition("msg=")[2] for line in process.lines()]
    assert messages == [
        '"settings loaded" file=config.yaml collectors=1',
        f"listening address=http://127.0.0.1:{process.port}",
        "stopped",
    ]


def test_stop_waits_for_collectors_to_part(serve: Serve, folder: Path) -> None:
    """`stop` of every collector is called before the process ends."""
    source = SPOOLDIR + "    def stop(self):\n        Path('stopped').touch()\n"
    drop_in(folder / "plugins", "spool", source)
    process = serve().begun()

    assert process.end() == 0
    assert (folder / "stopped").exists()


def test_stop_while_a_collector_hangs(serve: Serve, folder: Path) -> None:
    """A collection that never ends does not keep the process from ending."""
    source = SPOOLDIR.replace(
        "scrape.emit(",
        "Path('hangs').touch(); __import__('threading').Event().wait()\n        scrape.emit(",
    )
    drop_in(folder / "plugins", "spool", source)
    process = serve().begun()
    wait_until((folder / "hangs").exists, "the collection began")

    assert process.end() == 0


def test_stop_while_a_reload_hangs(serve: Serve, folder: Path) -> None:
    """A plug-in whose import never ends during a reload does not keep the process."""
    process = serve().begun()
    drop_in(
        folder / "plugins",
        "stuck",
        "from pathlib import Path\nfrom threading import Event\n"
        f"Path({str(folder / 'imported')!r}).touch()\nEvent().wait()\n",
    )
    configure(folder, f"stuck: , spool: {{path: {folder}}}")
    process.popen.send_signal(signal.SIGHUP)
    wait_until((folder / "imported").exists, "the reload began")

    assert process.end() == 0
    wait_until(lambda: "the service is stopping" in process.log.read_text(), "the line in the log")
    assert "not loaded within" not in process.log.read_text()


def test_stop_during_a_scrape_that_hangs(serve: Serve, folder: Path) -> None:
    """A scrape under way is soon answered with what there is: before service managers kill us."""
    source = SPOOLDIR.replace(
        "scrape.emit(",
        "Path('hangs').touch(); __import__('threading').Event().wait()\n        scrape.emit(",
    )
    drop_in(folder / "plugins", "spool", source)
    configure(folder, f"spool: {{path: {folder}}}, host: ")
    process = serve().begun()
    with socket.create_connection(("127.0.0.1", process.port)) as client:
        client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        wait_until((folder / "hangs").exists, "the collection began")
        process.popen.send_signal(signal.SIGTERM)

        assert process.popen.wait(5) == 0
        answer = client.makefile("rb").read()
    assert b"node_load1 " in answer
    assert b'bts_exporter_collector_success{collector="spool",target=""} 0\n' in answer


def test_forked_process_keeps_neither_port_nor_connections(serve: Serve, folder: Path) -> None:
    """A process that a plug-in forked does not keep clients waiting, nor the port after our end."""
    source = SPOOLDIR.replace(
        "scrape.emit(",
        "import os, signal\n"
        "        if os.fork() == 0:\n"
        "            Path(f'child-{os.getpid()}').touch()\n"
        "            signal.pause()\n"
        "        scrape.emit(",
    )
    drop_in(folder / "plugins", "spool", source)
    process = serve()
    try:
        wait_until(lambda: list(folder.glob("child-*")), "the first collection forked")
        with socket.create_connection(("127.0.0.1", process.port), timeout=30) as client:
            client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            answer = client.makefile("rb").read()  # until the end of the connection
        assert answer.startswith(b"HTTP/1.1 200")

        assert process.end() == 0
        socket.create_server(("127.0.0.1", process.port)).close()
    finally:
        for child in folder.glob("child-*"):
            os.kill(int(child.name.removeprefix("child-")), signal.SIGKILL)


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_settings_that_are_no_regular_file(serve: Serve, folder: Path, kind: str) -> None:
    """A pipe or a device is refused at once at the start, and in a reload, without being opened."""
    process = serve().begun()
    config = folder / "config.yaml"
    config.unlink()
    if kind == "pipe":
        os.mkfifo(config)
    else:
        config.symlink_to("/dev/zero")
    process.popen.send_signal(signal.SIGHUP)
    wait_until(
        lambda: "config.yaml: not a regular file" in process.log.read_text(), "it is refused"
    )
    assert process.request("/-/healthy")[0] == 200

    second = serve("--config.file=config.yaml")
    assert second.popen.wait(30) == 1


def test_reload_by_signal(serve: Serve, folder: Path) -> None:
    """SIGHUP applies new settings; if they have an error, the previous ones stay."""
    process = serve().begun()
    configure(folder, "spool: {path: /new}")
    process.popen.send_signal(signal.SIGHUP)
    wait_until(
        lambda: 'spool_files{path="/new"} 0\n' in process.request("/metrics")[1],
        "the new settings apply",
    )
    configure(folder, "spool: {pth: /newer}")
    process.popen.send_signal(signal.SIGHUP)
    wait_until(
        lambda: "bts_exporter_config_last_reload_successful 0\n" in process.request("/metrics")[1],
        "the error is reported",
    )

    assert 'spool_files{path="/new"} 0\n' in process.request("/metrics")[1]
    assert process.end() == 0
    failures = [line for line in process.lines() if "level=error" in line]
    assert len(failures) == 2
    assert (
        "reload failed, the previous settings remain active: config.yaml:2: collectors.spool.pth"
        in failures[0]
    )


def test_broken_plugin_at_the_start(serve: Serve, folder: Path) -> None:
    """A broken plug-in is shown in the log, the metrics and the status page; the rest is served."""
    drop_in(folder / "plugins", "broken", "def (:\n")
    configure(folder, f"broken: {{any: thing}}, spool: {{path: {folder}}}")
    process = serve().begun()
    text = process.request("/metrics")[1]

    assert "spool_files{" in text
    assert 'bts_exporter_collector_success{collector="broken",target=""} 0\n' in text
    wait_until(lambda: "failing (unusable)" in process.request("/")[1], "the page shows it")
    assert "is broken: SyntaxError: invalid syntax" in process.request("/")[1]
    assert [
        line
        for line in process.lines()
        if "collector not loaded: config.yaml:2: collectors.broken" in line
    ]


def test_mistake_at_the_start(serve: Serve, folder: Path) -> None:
    """With invalid settings the process does not start, and prints the errors."""
    configure(folder, "spool: ")
    process = serve()

    assert process.popen.wait(60) == 1
    assert process.lines() == ["config.yaml:2: collectors.spool: path is missing"]


def test_several_addresses_and_another_path(serve: Serve) -> None:
    """Flags set the addresses and the path of the metrics."""
    other = free_port()
    process = serve(f"--web.listen-address=127.0.0.1:{other}", "--web.telemetry-path=/here").begun()
    asked = [process.request("/here")[0]]
    process.port = other
    asked += [process.request("/here")[0], process.request("/metrics")[0]]

    assert asked == [200, 200, 404]


def test_flags_of_the_web(serve: Serve) -> None:
    """The process's own metrics can be left out, and reload over HTTP allowed."""
    process = serve("--web.disable-exporter-metrics", "--web.enable-lifecycle").begun()

    assert "process_" not in process.request("/metrics")[1]
    assert process.request("/-/reload", "POST") == (200, "reloaded.\n")


def test_lifecycle_is_off(serve: Serve) -> None:
    """Without the flag a reload over HTTP is refused."""
    assert serve().begun().request("/-/reload", "POST")[0] == 403


# With systemd


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[socket.socket]:
    """Return the socket of a service manager, a file or in the abstract namespace."""
    name = f"\0bts-cli-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(name)
        sock.settimeout(60)
        yield sock


def address_of(manager: socket.socket) -> str:
    """Return NOTIFY_SOCKET."""
    name = manager.getsockname()
    return name if isinstance(name, str) else f"@{name[1:].decode()}"


def next_notification(manager: socket.socket) -> str:
    """Return the next notification of the manager, without those of the watchdog."""
    while (message := manager.recv(4096).decode()) == "WATCHDOG=1":
        pass
    return message


def test_readiness_and_reload(serve: Serve, manager: socket.socket) -> None:
    """The manager is notified of readiness, reload and stop."""
    process = serve(NOTIFY_SOCKET=address_of(manager))
    heard = [next_notification(manager)]
    assert process.request("/-/ready")[0] == 200
    process.popen.send_signal(signal.SIGHUP)
    heard += [next_notification(manager), next_notification(manager)]
    process.popen.send_signal(signal.SIGTERM)
    heard.append(next_notification(manager))

    assert heard[0] == "READY=1"
    assert heard[1].startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert heard[2:] == ["READY=1", "STOPPING=1"]
    assert process.popen.wait(60) == 0


def test_watchdog(serve: Serve, manager: socket.socket) -> None:
    """The watchdog of systemd is fed repeatedly."""
    serve(NOTIFY_SOCKET=address_of(manager), WATCHDOG_USEC="100000")

    heard = [manager.recv(4096).decode() for _ in range(5)]
    assert heard == ["READY=1", *["WATCHDOG=1"] * 4]


def test_socket_of_systemd(folder: Path) -> None:
    """A passed socket is used instead of an address."""
    with socket.create_server(("127.0.0.1", 0)) as passed:
        port = passed.getsockname()[1]
        # LISTEN_PID must be the id of the process: a shell sets it before it becomes the process.
        script = 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@" 3<&0 </dev/null'
        process = subprocess.Popen(
            ["/bin/sh", "-c", script, "sh", *COMMAND],
            cwd=folder,
            env=environment(),
            stdin=passed,
            stderr=subprocess.PIPE,
            text=True,
        )
    try:
        connection = HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        process.terminate()
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()

    assert "spool_files{" in text
    assert process.returncode == 0
    assert f"listening address=http://127.0.0.1:{port}\n" in err
