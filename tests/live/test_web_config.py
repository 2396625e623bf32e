"""TLS and passwords of the exporter, as a process, with Debian's Prometheus as the client."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import NamedTuple

import bcrypt
import pytest

from servers import free_port, listens, need, wait_until
from servers.certificate_authority import Authority, Signed
from servers.exporter import Exporter, StartExporter
from servers.guarded import client_of, get_as
from servers.prometheus import StartPrometheus

pytestmark = pytest.mark.live

SETTINGS = "collectors: {host: }\n"
PASSWORD = "p:ä secret"
HASH = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(10)).decode()
LAST_RELOAD = "bts_exporter_web_config_last_reload_successful"


class Secured(NamedTuple):
    """A folder with the file for --web.config.file and what it names, and clients for it."""

    folder: Path
    authority: Authority
    server: Signed
    client: Signed

    @property
    def file(self) -> Path:
        """The file for --web.config.file."""
        return self.folder / "web.yml"

    @property
    def flag(self) -> str:
        """The flag that names it."""
        return f"--web.config.file={self.file}"

    def write(self, settings: str = "") -> None:
        """Write the file, with further settings."""
        self.file.write_text(
            "tls_server_config:\n  cert_file: tls/server.pem\n  key_file: tls/server.key\n"
            "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: tls/ca.pem\n"
            f"basic_auth_users:\n  prometheus: {HASH}\n{settings}"
        )

    def get(
        self, port: int, path: str = "/metrics", method: str = "GET", password: str = PASSWORD
    ) -> tuple[HTTPResponse, str]:
        """Send a request as Prometheus does; return the response and its text."""
        context = client_of(self.authority.cert, self.client)
        token = b64encode(f"prometheus:{password}".encode()).decode()
        with closing(HTTPSConnection("127.0.0.1", port, timeout=30, context=context)) as connection:
            connection.request(method, path, headers={"Authorization": f"Basic {token}"})
            response = connection.getresponse()
            return response, response.read().decode()

    def value(self, port: int, name: str) -> str | None:
        """Return the value of a metric without labels."""
        _, page = self.get(port)
        return next((x.split()[1] for x in page.splitlines() if x.startswith(f"{name} ")), None)

    def serial(self, port: int) -> str:
        """Return the serial number of the certificate that new connections get."""
        context = client_of(self.authority.cert, self.client)
        with (
            socket.create_connection(("127.0.0.1", port), timeout=30) as plain,
            context.wrap_socket(plain) as sock,
        ):
            return str((sock.getpeercert() or {})["serialNumber"])


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return the authority that signs all certificates."""
    return Authority(tmp_path_factory.mktemp("authority"), "ca")


@pytest.fixture(scope="module")
def signed(authority: Authority) -> list[Signed]:
    """Return two certificates of the server, and one of the client."""
    server = "subjectAltName=IP:127.0.0.1,DNS:server.test"
    return [
        authority.sign("server", server),
        authority.sign("renewed", server),
        authority.sign("client", "subjectAltName=DNS:client.test"),
    ]


@pytest.fixture
def secured(tmp_path: Path, authority: Authority, signed: list[Signed]) -> Secured:
    """Return the settings of an exporter that admits a client with a certificate and a password."""
    put(tmp_path / "tls", authority, signed[0])
    made = Secured(tmp_path, authority, signed[0], signed[2])
    made.write()
    return made


def put(folder: Path, authority: Authority, server: Signed) -> None:
    """Put a server's certificate, and the authority for clients, into a new folder."""
    folder.mkdir()
    shutil.copy(server.cert, folder / "server.pem")
    shutil.copy(server.key, folder / "server.key")
    shutil.copy(authority.cert, folder / "ca.pem")


def as_prometheus(secured: Secured) -> dict[str, object]:
    """Return the keys of the scrape configuration."""
    files = {"cert_file": str(secured.client.cert), "key_file": str(secured.client.key)}
    return {
        "scheme": "https",
        "tls_config": {"ca_file": str(secured.authority.cert), **files},
        "basic_auth": {"username": "prometheus", "password": PASSWORD},
    }


def test_prometheus(
    exporter: StartExporter, prometheus: StartPrometheus, secured: Secured, signed: list[Signed]
) -> None:
    """Prometheus scrapes with a client certificate and a password, while both are renewed."""
    server = exporter(SETTINGS, secured.flag)
    scraper = prometheus([server.address], **as_prometheus(secured))
    scraper.wait_for_target_up()
    assert [labels["job"] for labels, _ in scraper.query("bts_exporter_build_info")] == ["test"]

    before = secured.serial(server.port)
    put(secured.folder / "next", secured.authority, signed[1])
    (secured.folder / "tls").rename(secured.folder / "old")
    (secured.folder / "next").rename(secured.folder / "tls")
    scraped = scraper.query("bts_exporter_scrapes_total")[0][1]
    wait_until(
        lambda: scraper.query("bts_exporter_scrapes_total")[0][1] > scraped + 1, "two more scrapes"
    )
    assert secured.serial(server.port) != before
    assert secured.value(server.port, LAST_RELOAD) == "1"

    secured.file.write_text(secured.file.read_text().replace(HASH, HASH[:-1] + "."))
    wait_until(lambda: "401" in scraper.targets()[0]["lastError"], "the password is refused")
    secured.write()
    scraper.wait_for_target_up()


def test_prometheus_without_certificate(
    exporter: StartExporter, prometheus: StartPrometheus, secured: Secured
) -> None:
    """Without its certificate Prometheus is refused, and shows that one is required."""
    server = exporter(SETTINGS, secured.flag)
    settings = as_prometheus(secured)
    settings["tls_config"] = {"ca_file": str(secured.authority.cert)}
    scraper = prometheus([server.address], **settings)
    errors: list[str] = []
    wait_until(
        lambda: errors.extend(x for t in scraper.targets() if (x := t["lastError"])) or errors,
        "a scrape fails",
    )
    assert "certificate required" in errors[0]


def test_reload_with_a_bad_file(exporter: StartExporter, secured: Secured) -> None:
    """A bad file changes nothing; the metric, the log, the page and the reload show it."""
    server = exporter(SETTINGS, secured.flag, "--web.enable-lifecycle")
    assert secured.value(server.port, LAST_RELOAD) == "1"
    secured.write("rate_limits: {}\n")
    assert secured.value(server.port, LAST_RELOAD) == "0"
    assert secured.value(server.port, "bts_exporter_config_last_reload_successful") == "1"
    _, page = secured.get(server.port, "/")
    assert "web.yml:8: rate_limits: unknown key" in page
    response, text = secured.get(server.port, "/-/reload", "POST")
    assert response.status == 500
    assert "web.yml:8: rate_limits: unknown key 'rate_limits'; did you mean rate_limit?" in text
    server.popen.send_signal(signal.SIGHUP)
    line = "web configuration not loaded"
    wait_until(lambda: server.log.read_text().count(line) == 3, "one line for each cause")
    secured.write("rate_limit: {interval: 1h, burst: 3}\n")
    server.popen.send_signal(signal.SIGHUP)
    wait_until(lambda: server.log.read_text().count("web configuration loaded") == 2, "loaded")
    found = [secured.get(server.port, "/-/healthy")[0].status for _ in range(5)]
    assert found == [200, 200, 200, 429, 429]


def test_every_path_is_protected(exporter: StartExporter, secured: Secured) -> None:
    """Also the paths for health checks, as with the toolkit; the headers are on every answer."""
    secured.write("http_server_config: {headers: {Strict-Transport-Security: max-age=60}}\n")
    server = exporter(SETTINGS, secured.flag, "--web.enable-lifecycle")
    for path in ("/", "/metrics", "/probe", "/-/healthy", "/-/ready", "/-/reload", "/absent"):
        response, _ = secured.get(server.port, path, password="wrong")
        assert (path, response.status) == (path, 401)
        assert response.headers["WWW-Authenticate"].startswith("Basic ")
        assert response.headers["Strict-Transport-Security"] == "max-age=60"
    response, _ = secured.get(server.port, "/absent")
    assert (response.status, response.headers["Strict-Transport-Security"]) == (404, "max-age=60")


def test_scrapers_at_once(exporter: StartExporter, secured: Secured) -> None:
    """Fifty scrapers that begin at the same moment are all answered, with one comparison."""
    server = exporter(SETTINGS, secured.flag)
    with ThreadPoolExecutor(50) as pool:
        found = list(pool.map(lambda _: secured.get(server.port)[0].status, range(50)))
    assert found == [200] * 50


def test_stop(exporter: StartExporter, secured: Secured) -> None:
    """A service that is stopped exits with code 0."""
    server = exporter(SETTINGS, secured.flag)
    assert secured.get(server.port)[0].status == 200
    server.popen.send_signal(signal.SIGTERM)
    assert server.popen.wait(20) == 0


def test_sockets_of_systemd(tmp_path: Path, secured: Secured) -> None:
    """TLS is served on sockets that systemd passes, a unix socket and several of TCP."""
    place = tmp_path / "socket"
    script = (
        "import os, socket, sys\n"
        "unix = socket.socket(socket.AF_UNIX); unix.bind(sys.argv[1]); unix.listen()\n"
        "tcp = [socket.create_server(('127.0.0.1', int(p))) for p in sys.argv[2:4]]\n"
        "for fd, s in enumerate([unix, *tcp], 3):\n"
        "    os.dup2(s.fileno(), fd + 20)\n"
        "for fd in (3, 4, 5):\n"
        "    os.dup2(fd + 20, fd)\n"
        "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='3')\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'bts_exporter', *sys.argv[4:]])\n"
    )
    ports = free_port(), free_port()
    config = tmp_path / "config.yaml"
    config.write_text(SETTINGS)
    argv = [sys.executable, "-c", script, str(place), *map(str, ports)]
    argv += [f"--config.file={config}", secured.flag]
    with subprocess.Popen(argv) as process:
        try:
            wait_until(lambda: listens(ports[1]), "the last socket is there")
            assert [secured.get(port)[0].status for port in ports] == [200, 200]
            context = client_of(secured.authority.cert, secured.client)
            with socket.socket(socket.AF_UNIX) as plain:
                plain.connect(str(place))
                with context.wrap_socket(plain) as sock:
                    sock.sendall(get_as("prometheus", PASSWORD, path="/-/healthy"))
                    assert sock.recv(1000).startswith(b"HTTP/1.1 200 OK")
        finally:
            process.terminate()
            assert process.wait(20) == 0


# The command line


def run(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command of the exporter."""
    return subprocess.run(
        [sys.executable, "-m", "bts_exporter", *arguments],
        input=given, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_bad_file_at_the_start(secured: Secured, tmp_path: Path) -> None:
    """A bad file ends the start with all problems, before anything listens."""
    config = tmp_path / "config.yaml"
    config.write_text(SETTINGS)
    secured.write("basic_auth: {}\nhttp_server_config: {headers: {Server: x}}\n")
    done = run(
        f"--config.file={config}", secured.flag, f"--web.listen-address=127.0.0.1:{free_port()}"
    )
    assert done.returncode == 1
    assert [line.partition("web.yml")[2][:22] for line in done.stderr.splitlines()] == [
        ":8: basic_auth: unknow", ":9: http_server_config",
    ]  # fmt: skip
    assert "listening" not in done.stderr


def test_check(secured: Secured, tmp_path: Path) -> None:
    """The command `check` checks the file, too, with the flag before it or behind it."""
    config = tmp_path / "config.yaml"
    config.write_text(SETTINGS)
    flags = f"--config.file={config}", secured.flag
    for arguments in ((*flags, "check"), ("check", *flags)):
        done = run(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
        assert f"{secured.file}: the web configuration is fine" in done.stdout
    secured.write("x: 1\n")
    done = run("check", *flags)
    assert (done.returncode, done.stdout) == (1, "")
    assert "web.yml:8: x: unknown key 'x'" in done.stderr
    assert "web.yml" not in run("once", *flags[:1]).stderr


@pytest.mark.parametrize("flags", [(), ("--cost", "4")])
def test_hash_password(flags: tuple[str, ...], tmp_path: Path) -> None:
    """A hash that the command prints is right for the password, and for promtool."""
    done = run("hash-password", *flags, given=f"{PASSWORD}\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert bcrypt.checkpw(PASSWORD.encode(), done.stdout.strip().encode())
    file = tmp_path / "web.yml"
    file.write_text(f"basic_auth_users: {{a: {done.stdout.strip()}}}\n")
    promtool = [need("promtool", "prometheus"), "check", "web-config", str(file)]
    assert subprocess.run(promtool, capture_output=True, check=False, timeout=60).returncode == 0


@pytest.mark.parametrize("given", ["", "\n", "x" * 73 + "\n"])
def test_password_that_has_no_hash(given: str) -> None:
    """An empty password is a mistake, and of one that is too long a part would not count."""
    done = run("hash-password", given=given)
    assert (done.returncode, done.stdout) == (1, "")
    assert "must have from 1 to 72 bytes" in done.stderr


@pytest.mark.parametrize(
    ("settings", "absent"),
    [
        (None, ("libssl", "libcrypto", "_bcrypt")),
        ("http_server_config: {headers: {X-Frame-Options: deny}}\n", ("libssl", "_bcrypt")),
    ],
)
def test_what_is_not_configured_is_not_loaded(
    exporter: StartExporter, tmp_path: Path, settings: str | None, absent: tuple[str, ...]
) -> None:
    """OpenSSL and bcrypt take memory only if TLS and passwords are configured."""
    file = tmp_path / "web.yml"
    file.write_text(settings or "")
    server = exporter(SETTINGS, *([f"--web.config.file={file}"] if settings else []))
    assert server.get("/metrics")[0] == 200
    maps = Path(f"/proc/{server.popen.pid}/maps").read_text()
    assert [name for name in absent if name in maps] == []


def test_exporter_without_web_config(exporter: StartExporter) -> None:
    """Without the flag there is no metric of its state."""
    server: Exporter = exporter(SETTINGS)
    assert LAST_RELOAD not in server.get("/metrics")[1]
