from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from bts_exporter.collection.runner import Runner
from bts_exporter.errors import ConfigError, ServeError
from bts_exporter.exposition.formats import Format
from bts_exporter.service import Options, Service
from servers import free_port, wait_until
from stubs import DIARY, QUIET, drop_in


class Place:
    """A folder with settings and plug-ins."""

    def __init__(self, folder: Path) -> None:
        self.config = folder / "config.yaml"
        self.diary = folder / "diary.txt"
        self.plugins = folder / "plugins"
        drop_in(self.plugins, "diary", DIARY)
        drop_in(self.plugins, "quiet", QUIET)
        self.write("diary: {path: %s}, quiet: " % self.diary)  # noqa: UP031  # braces

    def write(self, collectors: str, more: str = "") -> None:
        """Write the settings: what stands in `collectors`, and other keys."""
        self.config.write_text(f"plugins: plugins\n{more}\ncollectors: {{{collectors}}}\n")

    def entries(self) -> list[str]:
        """Return the entries of the plug-in."""
        return self.diary.read_text().split() if self.diary.exists() else []

    def options(self, **more: object) -> Options:
        """Return the options of the command line."""
        return Options(config_file=str(self.config), **more)  # type: ignore[arg-type]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Return a folder with settings and plug-ins."""
    return Place(tmp_path)


@pytest.fixture
def service(place: Place) -> Iterator[Service]:
    """Return a service with started collectors."""
    service = Service(place.options())
    service.start_collectors()
    yield service
    service.stop_collectors()


def page(service: Service) -> str:
    """Return the page."""
    return service.exporter.page(service.exporter.collectors.runners, Format.TEXT).decode()


def runners(service: Service) -> dict[str, Runner]:
    """Return the active collectors by name."""
    return {runner.identity: runner for runner in service.exporter.collectors.runners}


# Starting


def test_start(service: Service, place: Place) -> None:
    """The collectors of the settings are started and serve."""
    text = page(service)

    assert "diary_version 1\n" in text
    assert "quiet 1\n" in text
    assert "bts_exporter_config_last_reload_successful 1\n" in text
    assert place.entries() == ["start1"]


def test_start_with_settings_that_are_wrong(place: Place) -> None:
    """With invalid settings nothing starts."""
    place.write("diary: {pth: x}")

    with pytest.raises(ConfigError, match="unknown key 'pth'; did you mean path"):
        Service(place.options()).start_collectors()


def test_start_with_a_plugin_that_is_broken(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """A broken plug-in is shown as failing with its reason, and the rest is served."""
    broken = drop_in(place.plugins, "broken", "import not_installed_anywhere\n")
    place.write("broken: {any: thing}, quiet: ")
    service = Service(place.options())
    service.start_collectors()
    text = page(service)
    service.stop_collectors()

    assert "quiet 1\n" in text
    assert 'bts_exporter_collector_success{collector="broken",target=""} 0\n' in text
    why = f"type broken ({broken}) is broken: ModuleNotFoundError: No module named 'not_installed_anywhere' ({broken}:1)"
    messages = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert messages == [f"collector not loaded: {place.config}:3: collectors.broken: {why}"]


def test_scrape_timeout_of_the_settings(place: Place) -> None:
    """`scrape_timeout` limits every scrape."""
    place.write("quiet: ", "scrape_timeout: 3s")
    service = Service(place.options())
    service.start_collectors()
    service.stop_collectors()

    assert service.exporter.scrape_timeout == 3


# Reloading


def test_reload_keeps_what_did_not_change(service: Service, place: Place) -> None:
    """Collectors with unchanged settings stay the same objects, with their counters."""
    page(service)
    before = runners(service)
    service.reload()
    after = runners(service)
    page(service)

    assert after == before
    assert [a.collector is before[name].collector for name, a in after.items()] == [True, True]
    assert place.entries() == ["start1"]


def test_reload_replaces_what_changed(service: Service, place: Place) -> None:
    """A collector with changed settings is replaced by a new one that is started; the old one is stopped."""
    before = runners(service)
    place.write(f"diary: {{path: {place.diary}, version: 2}}, quiet: ")
    service.reload()
    text = page(service)
    wait_until(lambda: "stop1" in place.entries(), "the one before is stopped")

    after = runners(service)
    assert after["quiet"] is before["quiet"]
    assert after["diary"] is not before["diary"]
    assert "diary_version 2\n" in text
    assert set(place.entries()) == {"start1", "start2", "stop1"}


def test_reload_drops_what_is_gone(service: Service, place: Place) -> None:
    """A collector that is no longer configured is stopped and forgotten."""
    page(service)
    place.write("quiet: ")
    service.reload()
    text = page(service)
    wait_until(lambda: "stop1" in place.entries(), "it is stopped")

    assert "diary" not in text
    assert list(service.exporter.last) == service.exporter.collectors.runners


def test_reload_that_drops_all_collectors_warns(
    service: Service, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    """An empty map of collectors is applied, and a warning names its line."""
    place.config.write_text("collectors: {}\n")
    service.reload()

    assert runners(service) == {}
    assert (
        f"settings: {place.config}:1: collectors: no collector is configured:"
        " only the exporter's own metrics are served"
    ) in caplog.messages


def test_reload_takes_a_plugin_that_changed(service: Service, place: Place) -> None:
    """A drop-in file that was edited applies after a reload, without a restart."""
    drop_in(place.plugins, "quiet", QUIET.replace("self.value, 1", "self.value, 2"))
    service.reload()

    assert "quiet 2\n" in page(service)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda p: p.write("quiet: {x: 1}"), "config.yaml:3: collectors.quiet.x: unknown key 'x'; known: interval, labels, max_series, metrics, name, optional, timeout"),
        (lambda p: p.config.write_text("collectors: ["), "config.yaml:1: not YAML: the [ that opens in this line is not closed by ], or a comma is missing; text that begins with [ needs quotes"),
        (lambda p: p.config.unlink(), "config.yaml: cannot be read: No such file or directory"),
        (lambda p: drop_in(p.plugins, "quiet", "1/0"), "is broken: ZeroDivisionError: division by zero (PLUGINS/quiet.py:1)"),
        (lambda p: drop_in(p.plugins, "quiet", f"{QUIET}\n    def __init__(self, config):\n        raise SystemExit(1)\n"), "config.yaml:3: collectors.quiet: SystemExit: 1 (PLUGINS/quiet.py:9)"),
    ],
    ids=["unknown key", "no yaml", "file vanished", "broken plug-in", "broken constructor"],
)  # fmt: skip
def test_reload_that_fails(
    break_it: Callable[[Place], None],
    message: str,
    service: Service,
    place: Place,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The previous settings stay active, a metric shows the failure, and the next valid reload resets it."""
    message = message.replace("PLUGINS", str(place.plugins))
    before = runners(service)
    diary = f"diary: {{path: {place.diary}}}"
    break_it(place)
    with pytest.raises(ConfigError) as caught:
        service.reload()
    failed = page(service)

    assert str(caught.value).endswith(message)
    assert runners(service) == before
    assert place.entries() == ["start1"]
    assert "diary_version 1\n" in failed
    assert "bts_exporter_config_last_reload_successful 0\n" in failed
    assert [r.getMessage() for r in caplog.records] == [
        f"reload failed, the previous settings remain active: {caught.value}"
    ]

    drop_in(place.plugins, "quiet", QUIET)
    place.write(f"{diary}, quiet: ")
    service.reload()
    assert runners(service)["diary"] is before["diary"]
    assert "bts_exporter_config_last_reload_successful 1\n" in page(service)


def test_reload_with_a_thousand_mistakes(
    service: Service, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    """The first twenty are logged, with the number of the others, and nothing more if they repeat."""
    place.write(", ".join(f"wrong{number}: " for number in range(1000)))
    for _ in range(3):
        with pytest.raises(ConfigError) as caught:
            service.reload()

    lines = [record.getMessage().partition(": ")[2] for record in caplog.records]
    assert len(caught.value.problems) == 1000
    assert len(lines) == 20 + 1 + 2
    assert lines[20] == "and 980 more problems"
    assert lines[21:] == ["again, with the same problems: 1000"] * 2


def test_reload_is_all_or_nothing(service: Service, place: Place) -> None:
    """Settings with one error are not applied, not even in part."""
    place.write(f"diary: {{path: {place.diary}, version: 2}}, quiet: {{x: 1}}", "scrape_timeout: 3")
    with pytest.raises(ConfigError):
        service.reload()

    wait_until(place.entries, "the collector of before is started")
    assert place.entries() == ["start1"]
    assert service.exporter.scrape_timeout == 9.5


def test_file_that_appears_is_not_taken_by_a_reload(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reload reads the same file as the start."""
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    place.config.rename(second)
    monkeypatch.setattr("bts_exporter.settings.loader.SEARCH", (first, second))
    service = Service(Options())
    service.start_collectors()
    before = runners(service)
    first.write_text("collectors: {}\n")
    service.reload()
    kept = runners(service)
    second.unlink()
    with pytest.raises(ConfigError, match=r"second\.yaml: cannot be read"):
        service.reload()
    service.stop_collectors()

    assert kept == before


# Stopping


def test_stop_tells_every_collector(place: Place) -> None:
    """Stopping the service calls `stop` of every collector."""
    service = Service(place.options())
    service.start_collectors()
    page(service)
    service.stop_collectors()

    assert place.entries() == ["start1", "stop1"]


def test_stop_does_not_wait_for_one_that_hangs(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A collector whose `stop` hangs does not keep the service from ending."""
    monkeypatch.setattr("bts_exporter.service._STOP_TIMEOUT", 0.05)
    service = Service(place.options())
    service.start_collectors()
    release = threading.Event()
    begun = threading.Event()

    def hang() -> None:
        begun.set()
        release.wait(60)

    monkeypatch.setattr(runners(service)["diary"].collector, "stop", hang)
    service.stop_collectors()

    assert begun.wait(60)
    assert not release.is_set()
    release.set()


# Running


@pytest.fixture
def _signals() -> Iterator[None]:
    """Restore the signal handlers of the test process."""
    kept = {
        number: signal.getsignal(number)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    }
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


class Client(threading.Thread):
    """A client of a service in the main thread, which then sends it a signal."""

    def __init__(
        self, port: int, steps: Callable[[Client], None], number: int = signal.SIGTERM
    ) -> None:
        super().__init__()
        self.port = port
        self.error: BaseException | None = None
        self._steps = steps
        self._number = number

    def run(self) -> None:
        """Wait for the service, execute the steps, and end the service even if they failed."""
        try:
            wait_until(lambda: self.request("/-/ready")[0] == 200, "it is ready")
            self._steps(self)
        except BaseException as error:  # noqa: BLE001  # raised again in the test
            self.error = error
        os.kill(os.getpid(), self._number)

    def request(self, path: str, method: str = "GET") -> tuple[int, str]:
        """Return status and text; 0 where nothing listens yet."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        except ConnectionRefusedError:
            return 0, ""
        finally:
            connection.close()


def run(
    place: Place, steps: Callable[[Client], None], number: int = signal.SIGTERM, **options: object
) -> None:
    """Run a service until the steps are done."""
    port = free_port()
    client = Client(port, steps, number)
    client.start()
    Service(place.options(addresses=(f"127.0.0.1:{port}",), **options)).run()
    client.join(60)
    if client.error:
        raise client.error


@pytest.mark.usefixtures("_signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_until_a_signal(place: Place, number: int, caplog: pytest.LogCaptureFixture) -> None:
    """The service serves until a signal stops it, and then stops everything."""
    caplog.set_level(logging.INFO, "bts_exporter")
    answers: list[tuple[int, str]] = []

    run(place, lambda client: answers.append(client.request("/metrics")), number)

    assert answers[0][0] == 200
    assert "diary_version 1\n" in answers[0][1]
    assert place.entries() == ["start1", "stop1"]
    messages = [
        record.getMessage() for record in caplog.records if record.name == "bts_exporter.service"
    ]
    assert messages == ["settings loaded", "listening", "stopped"]


@pytest.mark.usefixtures("_signals")
def test_collectors_are_asked_once_before_anybody_scrapes(place: Place) -> None:
    """Status page and log show the collectors' state before the first scrape."""

    def steps(client: Client) -> None:
        wait_until(
            lambda: "waiting for the first scrape" not in client.request("/")[1], "it was collected"
        )
        assert "bts_exporter_scrapes_total 1\n" in client.request("/metrics")[1]

    run(place, steps)


@pytest.mark.usefixtures("_signals")
def test_reload_by_signal(place: Place) -> None:
    """SIGHUP reloads the settings."""

    def steps(client: Client) -> None:
        place.write(f"diary: {{path: {place.diary}, version: 2}}")
        os.kill(os.getpid(), signal.SIGHUP)
        wait_until(lambda: "diary_version 2\n" in client.request("/metrics")[1], "they apply")

    run(place, steps)

    assert set(place.entries()) == {"start1", "stop1", "start2", "stop2"}


@pytest.mark.usefixtures("_signals")
def test_reload_over_http(place: Place) -> None:
    """With `--web.enable-lifecycle` a POST reloads, and is answered when the settings apply."""

    def steps(client: Client) -> None:
        place.write(f"diary: {{path: {place.diary}, version: 2}}")
        assert client.request("/-/reload", "POST") == (200, "reloaded.\n")
        assert "diary_version 2\n" in client.request("/metrics")[1]
        place.write("diary: {pth: x}")
        status, text = client.request("/-/reload", "POST")
        assert status == 500
        assert (
            "config.yaml:3: collectors.diary.pth: unknown key 'pth'; did you mean path?\n" in text
        )
        assert "diary_version 2\n" in client.request("/metrics")[1]
        assert client.request("/-/reload")[0] == 405

    run(place, steps, lifecycle=True)


@pytest.mark.usefixtures("_signals")
def test_reload_over_http_without_the_flag(place: Place) -> None:
    """Without the flag, a POST reloads nothing."""
    run(place, _expect_403)


def _expect_403(client: Client) -> None:
    assert client.request("/-/reload", "POST")[0] == 403


@pytest.mark.usefixtures("_signals")
def test_port_that_is_in_use(place: Place) -> None:
    """The error names the port and how to find its owner; no collector was started."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            ServeError, match=f"cannot listen on 127.0.0.1:{port}: port {port} is in use"
        ):
            Service(place.options(addresses=(f"127.0.0.1:{port}",))).run()

    assert place.entries() == []


@pytest.mark.usefixtures("_signals")
def test_unix_socket(place: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A passed unix socket is served, and named in the log."""
    caplog.set_level(logging.INFO, "bts_exporter.service")
    path = tmp_path / "socket"
    answers: list[bytes] = []

    def request() -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(30)
            client.connect(str(path))
            client.sendall(b"GET /-/healthy HTTP/1.0\r\n\r\n")
            answers.append(client.makefile("rb").read())
        os.kill(os.getpid(), signal.SIGTERM)

    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    thread = threading.Thread(target=request)
    thread.start()
    Service(place.options()).run([listener])
    thread.join(60)

    assert answers[0].endswith(b"bts-exporter is healthy.\n")
    assert [r for r in caplog.records if "has no effect" in r.getMessage()] == []
    [address] = [vars(r)["address"] for r in caplog.records if r.getMessage() == "listening"]
    assert address == f"unix:{path}"


@pytest.mark.usefixtures("_signals")
def test_address_beside_a_socket_of_systemd(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """An address on the command line is ignored, with a warning, if systemd handed over a socket."""
    listener = socket.create_server(("127.0.0.1", 0))
    client = Client(listener.getsockname()[1], lambda _: None)
    client.start()
    Service(place.options(addresses=("127.0.0.1:1",))).run([listener])
    client.join(60)

    assert client.error is None
    assert "--web.listen-address has no effect: systemd listens" in caplog.text
