"""The file of --web.config.file is read again when something changes, and a bad one is not used."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import ssl
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import bcrypt
import pytest

from bts_exporter.access import web_config as web_config_module
from bts_exporter.access.web_config import WebConfig
from bts_exporter.errors import ConfigError
from interruptions import interruptions, is_free
from servers import wait_until
from servers.certificate_authority import Authority, Signed
from servers.guarded import client_of, get_as, guarded_by
from servers.listener import GET, Listener


def users(**passwords: str) -> str:
    """Return the setting of some users."""
    lines = [
        f"  {name}: {bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()}"
        for name, password in passwords.items()
    ]
    return "\n".join(["basic_auth_users:", *lines, ""])


TLS = "tls_server_config: {cert_file: server.pem, key_file: server.key}\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return an authority."""
    return Authority(tmp_path_factory.mktemp("authority"), "ca")


@pytest.fixture(scope="module")
def servers(authority: Authority) -> list[Signed]:
    """Return certificates of a server."""
    return [authority.sign(f"server{n}", "subjectAltName=IP:127.0.0.1") for n in range(2)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a file with the user a and the password b."""
    file = tmp_path / "web.yml"
    file.write_text(users(a="b"))
    return file


def put(signed: Signed, folder: Path) -> None:
    """Put a certificate where the settings expect it."""
    shutil.copy(signed.cert, folder / "server.pem")
    shutil.copy(signed.key, folder / "server.key")


def status(listener: Listener, user: str, password: str) -> int:
    """Return the status of a request."""
    with listener.wire() as wire:
        return wire.ask(get_as(user, password)).status


def serial(listener: Listener, ca: Path) -> str:
    """Return the serial number of the server's certificate."""
    with listener.wire(client_of(ca)) as wire:
        assert isinstance(wire.sock, ssl.SSLSocket)
        return str((wire.sock.getpeercert() or {})["serialNumber"])


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was logged as an error."""
    return [record.message for record in caplog.records if record.levelno == logging.ERROR]


def test_changed_password(file: Path) -> None:
    """The next request after a change is checked with the new users, also on an open connection."""
    with guarded_by(file) as (listener, config), listener.wire() as wire:
        assert wire.ask(get_as("a", "b")).status == 200
        file.write_text(users(a="c", d="e"))
        assert wire.ask(get_as("a", "b")).status == 401
        assert [status(listener, *given) for given in (("a", "c"), ("d", "e"))] == [200, 200]
        file.write_text(
            f"{users(a='b')}http_server_config: {{headers: {{X-Frame-Options: deny}}}}\n"
        )
        answer = wire.ask(GET)
        assert (answer.status, answer.headers["X-Frame-Options"]) == (401, "deny")
        assert config.state.successful


def test_changed_file_of_a_value(tmp_path: Path) -> None:
    """A hash in a file of its own (`!file`) is used as soon as that file has changed, or is there."""
    file, hashed = tmp_path / "web.yml", tmp_path / "hash"
    file.write_text("basic_auth_users: {a: !file hash}\n")
    hashed.write_bytes(bcrypt.hashpw(b"b", bcrypt.gensalt(4)))
    with guarded_by(file) as (listener, config):
        assert status(listener, "a", "b") == 200
        hashed.unlink()
        assert status(listener, "a", "b") == 200
        assert not config.state.successful
        hashed.write_bytes(bcrypt.hashpw(b"c", bcrypt.gensalt(4)))
        assert [status(listener, "a", "b"), status(listener, "a", "c")] == [401, 200]


def written_long_ago(file: Path) -> None:
    """Let the file look as if nothing had written to it for an hour."""
    then = time.time() - 3600
    os.utime(file, (then, then))


@pytest.fixture
def slow_writers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a file count as complete only after a minute, however slow this machine is."""
    monkeypatch.setattr(web_config_module, "_WRITTEN_SECONDS", 60.0)


@pytest.mark.usefixtures("slow_writers")
def test_half_written_file_admits_no_client(file: Path) -> None:
    """A file without passwords is used when nothing writes to it any more: it may be half of a file."""
    with guarded_by(file) as (listener, config):
        file.write_text("http_server_config: {http2: true}\n")
        assert [status(listener, "a", "x") for _ in range(2)] == [401, 401]
        assert config.state.successful
        file.write_text(users(a="c"))
        assert [status(listener, "a", "b"), status(listener, "a", "c")] == [401, 200]
        file.write_text("http_server_config: {http2: true}\n")
        assert status(listener, "a", "x") == 401
        written_long_ago(file)
        assert status(listener, "a", "x") == 200


def test_file_that_drops_passwords(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Passwords are no longer required soon after they were removed, and at once after a reload."""
    monkeypatch.setattr(web_config_module, "_WRITTEN_SECONDS", 0.2)
    with guarded_by(file) as (listener, config):
        file.write_text("{}\n")
        wait_until(lambda: status(listener, "a", "x") == 200, "no password")
        file.write_text(users(a="b"))
        assert status(listener, "a", "x") == 401
        file.write_text("{}\n")
        assert config.reload() == []
        assert status(listener, "a", "x") == 200


VERIFIED = TLS.replace("}", ", client_auth_type: VerifyClientCertIfGiven}")


@pytest.mark.usefixtures("slow_writers")
@pytest.mark.parametrize(
    ("protection", "whole", "half"),
    [
        ("rate_limit", "rate_limit: {interval: 1s, burst: 1}\n", "{}\n"),
        ("client_auth_type", VERIFIED, TLS),
        ("client_ca", VERIFIED.replace("}", ", client_ca_file: ca.pem}"), VERIFIED),
        ("client_allowed_sans", VERIFIED.replace("}", ", client_allowed_sans: [a]}"), VERIFIED),
    ],
)
def test_protections_that_half_a_file_lacks(
    tmp_path: Path,
    authority: Authority,
    servers: list[Signed],
    *,
    protection: str,
    whole: str,
    half: str,
) -> None:
    """Every setting that keeps clients out remains active until the file is complete."""
    put(servers[0], tmp_path)
    shutil.copy(authority.cert, tmp_path / "ca.pem")
    file = tmp_path / "web.yml"
    file.write_text(whole)
    config = WebConfig(file)
    file.write_text(half)
    config.refresh()
    assert protection in config.active.protections
    written_long_ago(file)
    config.refresh()
    assert protection not in config.active.protections


@pytest.mark.parametrize(
    "content", ["basic_auth_users: {a: plain}\n", "x: 1\n", "\t", "", "# nothing\n", TLS]
)
def test_bad_file_keeps_the_old_one(
    file: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that cannot be used changes nothing, and is logged once, however many requests come."""
    good = file.read_text()
    with guarded_by(file) as (listener, config):
        file.write_text(content)
        assert [status(listener, "a", "b") for _ in range(3)] == [200] * 3
        assert status(listener, "a", "x") == 401
        assert not config.state.successful
        assert str(file) in config.state.problem
        [error] = errors(caplog)
        assert error.startswith("web configuration not loaded, the previous one remains active: ")
        file.write_text(good.replace("a:", "z:"))
        assert [status(listener, "a", "b"), status(listener, "z", "b")] == [401, 200]
        assert config.state.successful
        assert not config.state.problem
    assert errors(caplog) == [error]


def test_deleted_file(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file that is deleted or cannot be read keeps its last content active."""
    with guarded_by(file) as (listener, config):
        file.unlink()
        assert [status(listener, "a", "b"), status(listener, "a", "x")] == [200, 401]
        assert not config.state.successful
        file.mkdir()
        assert status(listener, "a", "x") == 401
        file.rmdir()
        os.mkfifo(file)
        assert status(listener, "a", "x") == 401
        file.unlink()
        file.write_text(users(a="x"))
        assert status(listener, "a", "x") == 200
    assert [error.rpartition(": ")[2] for error in errors(caplog)] == [
        "No such file or directory", "Is a directory", "not a regular file",
    ]  # fmt: skip


def test_another_mistake_is_logged(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The log shows each mistake that is made on the way, and a reload on demand shows it once more."""
    with guarded_by(file) as (listener, config):
        for content in ("x: 1\n", "y: 1\n"):
            file.write_text(content)
            assert [status(listener, "a", "b") for _ in range(2)] == [200, 200]
        assert len(errors(caplog)) == 2
        assert [problem.path for problem in config.reload()] == ["y"]
        assert len(errors(caplog)) == 3


@pytest.mark.parametrize("call", ["open", "memfd_create"])
def test_failure_that_passes(
    tmp_path: Path, servers: list[Signed], call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change that could not be read, for want of a file descriptor, is read later."""
    put(servers[0], tmp_path)
    file = tmp_path / "web.yml"
    file.write_text(TLS)
    config = WebConfig(file)
    file.write_text(TLS + users(a="b"))
    with monkeypatch.context() as patched:
        patched.setattr(os, call, fail)
        config.refresh()
    assert "Too many open files" in config.state.problem
    config.refresh()
    assert not config.active.users
    monkeypatch.setattr(web_config_module, "monotonic", lambda: monotonic() + 60)
    config.refresh()
    assert list(config.active.users) == [b"a"]
    assert config.state.successful


def fail(*_: object, **__: object) -> int:
    """Open nothing."""
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def test_file_behind_a_link(tmp_path: Path, authority: Authority, servers: list[Signed]) -> None:
    """Kubernetes replaces mounted files by changing the link of their folder."""
    for number, signed in enumerate(servers):
        folder = tmp_path / f"..{number}"
        folder.mkdir()
        put(signed, folder)
        (folder / "web.yml").write_text(TLS + users(a=f"{number}"))
    (tmp_path / "..data").symlink_to("..0")
    for name in ("web.yml", "server.pem", "server.key"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    with guarded_by(tmp_path / "web.yml") as (listener, config):
        before = serial(listener, authority.cert)
        (tmp_path / "..next").symlink_to("..1")
        (tmp_path / "..next").rename(tmp_path / "..data")
        assert serial(listener, authority.cert) != before
        with listener.wire(client_of(authority.cert)) as wire:
            assert wire.ask(get_as("a", "1")).status == 200
        assert config.state.successful


def test_renewed_certificate(
    tmp_path: Path, authority: Authority, servers: list[Signed], caplog: pytest.LogCaptureFixture
) -> None:
    """New connections get a renewed certificate; open ones, and half a renewal, change nothing."""
    file = tmp_path / "web.yml"
    file.write_text(TLS)
    put(servers[0], tmp_path)
    with guarded_by(file) as (listener, config):
        before = serial(listener, authority.cert)
        with listener.wire(client_of(authority.cert)) as wire:
            assert wire.ask().status == 200
            shutil.copy(servers[1].cert, tmp_path / "server.pem")
            assert serial(listener, authority.cert) == before
            assert "server.key: not the key of the certificate" in config.state.problem
            shutil.copy(servers[1].key, tmp_path / "server.key")
            assert serial(listener, authority.cert) != before
            assert wire.ask().status == 200
        assert config.state.successful
        (tmp_path / "server.key").unlink()
        assert serial(listener, authority.cert) != before
        put(servers[0], tmp_path)
        assert serial(listener, authority.cert) == before
    assert len(errors(caplog)) == 2


def test_certificate_that_is_renewed_while_the_file_has_an_error(
    tmp_path: Path, authority: Authority, servers: list[Signed], caplog: pytest.LogCaptureFixture
) -> None:
    """A mistake in the file does not keep the server at a certificate that expires."""
    file = tmp_path / "web.yml"
    file.write_text(TLS)
    put(servers[0], tmp_path)
    with guarded_by(file) as (listener, config):
        before = serial(listener, authority.cert)
        file.write_text(TLS + "x: 1\n")
        assert serial(listener, authority.cert) == before
        put(servers[1], tmp_path)
        assert serial(listener, authority.cert) != before
        assert not config.state.successful
    assert len(errors(caplog)) == 1


def test_renewed_authority(tmp_path: Path, authority: Authority, servers: list[Signed]) -> None:
    """A change of the authorities whose clients are admitted takes effect for the next connection."""
    put(servers[0], tmp_path)
    other = Authority(tmp_path, "new")
    client = other.sign("client", "basicConstraints=CA:FALSE")
    shutil.copy(authority.cert, tmp_path / "ca.pem")
    file = tmp_path / "web.yml"
    settings = "client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.pem}"
    file.write_text(TLS.replace("}", f", {settings}"))
    with guarded_by(file) as (listener, _):
        for expected in (False, True):
            try:
                with listener.wire(client_of(authority.cert, client)) as wire:
                    admitted = wire.ask().status == 200
            except (OSError, AssertionError):
                admitted = False
            assert admitted is expected
            shutil.copy(other.cert, tmp_path / "ca.pem")


def test_tls_is_not_turned_off_by_a_reload(
    tmp_path: Path, authority: Authority, servers: list[Signed]
) -> None:
    """Without its TLS block the file is not used: metrics must not be served unencrypted by mistake."""
    put(servers[0], tmp_path)
    file = tmp_path / "web.yml"
    file.write_text(TLS)
    with guarded_by(file) as (listener, config):
        file.write_text(users(a="b"))
        assert serial(listener, authority.cert)
        assert "restart to turn TLS on or off" in config.state.problem


@pytest.mark.parametrize(
    ("content", "warning"),
    [
        ("", "the file is empty"),
        ("tls_server_config: {min_version: TLS13}\n", "TLS is off"),
        (TLS.replace("}", ", client_auth_type: RequestClientCert}"), "none is requested"),
        (
            TLS.replace("}", ", client_auth_type: VerifyClientCertIfGiven}"),
            "every authority that this system trusts",
        ),
    ],
)
def test_warnings(
    tmp_path: Path,
    servers: list[Signed],
    content: str,
    warning: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Settings that protect less than they seem to are reported at the start."""
    put(servers[0], tmp_path)
    file = tmp_path / "web.yml"
    file.write_text(content)
    WebConfig(file)
    [record] = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert warning in record.message


def test_value_from_a_path_that_cannot_be(tmp_path: Path) -> None:
    """A path that the system does not accept is an error with its line."""
    file = tmp_path / "web.yml"
    file.write_text('basic_auth_users: {a: !file "a\\0b"}\n')
    with pytest.raises(ConfigError, match=r"web.yml:1: basic_auth_users.a: "):
        WebConfig(file)


@pytest.mark.parametrize("how", ["absent", "folder", "pipe", "device", "large", "latin1"])
def test_file_that_cannot_be_read(tmp_path: Path, how: str) -> None:
    """Whatever the path leads to, the error names it, and nothing hangs."""
    file = tmp_path / "web.yml"
    match how:
        case "folder":
            file.mkdir()
        case "pipe":
            os.mkfifo(file)
        case "device":
            file = Path("/dev/zero")
        case "large":
            file.write_bytes(b"#" * (1024 * 1024 + 1))
        case "latin1":
            file.write_bytes(b"# \xe4\n")
    with pytest.raises(ConfigError, match=f"^{file}: "):
        WebConfig(file)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_key_without_permission(tmp_path: Path, servers: list[Signed]) -> None:
    """A key that the exporter's user cannot read is named."""
    put(servers[0], tmp_path)
    (tmp_path / "server.key").chmod(0o600)
    file = tmp_path / "web.yml"
    file.write_text(TLS)
    for path in (tmp_path, *tmp_path.parents):
        if not path.stat().st_mode & stat.S_IXOTH:  # pytest's own, one more with several processes
            path.chmod(0o755)
    os.seteuid(65534)
    try:
        with pytest.raises(
            ConfigError, match=r"key_file: .*server.key: cannot be read: Permission"
        ):
            WebConfig(file)
    finally:
        os.seteuid(0)


def test_many_requests_during_changes(file: Path) -> None:
    """Requests during changes are checked with the old users or the new ones, never with none."""
    found: set[int] = set()
    stop = threading.Event()

    def ask(listener: Listener) -> None:
        with listener.wire() as wire:
            while not stop.is_set():
                found.add(wire.ask(GET).status)

    with guarded_by(file) as (listener, _):
        threads = [threading.Thread(target=ask, args=(listener,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in range(60):
            content = "" if number % 3 else users(a=f"{number}")
            file.write_text(content)
        stop.set()
        for thread in threads:
            thread.join(20)
    assert found == {401}


@pytest.fixture(autouse=True)
def _logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.INFO)
    yield
    text = " ".join(record.getMessage() for record in caplog.records)
    assert "$2b$" not in text
    assert "PRIVATE KEY" not in text


def test_interrupted_request(file: Path) -> None:
    """Wherever a request's thread is interrupted while it looks for changes, the next change is noticed."""
    config = WebConfig(file)

    for point in interruptions(config.refresh):
        assert is_free(config._lock), f"interrupted after {point} calls and returns"

    assert point > 5
