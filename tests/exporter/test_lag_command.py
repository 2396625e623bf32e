"""The command `lag`: what it asks, what it prints, and its exit status."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import bcrypt
import pytest

from bts_exporter import Scrape, TargetError, backlog, lag_command
from bts_exporter.cli import main
from bts_exporter.lag_report import CollectorState, Destination, LagReport
from bts_exporter.page_service import Exporter
from bts_exporter.service import Options
from bts_exporter.web.routes import Routes
from bts_exporter.web.server import Response
from servers import free_port
from servers.certificate_authority import Authority
from servers.guarded import guarded_by
from servers.listener import listening
from stubs import Stub, collectors, drop_in

HOSTILE = "\x1b[2J\u202eevil"
#: A plug-in with a queue that is late by 60 s, and one whose lag is not known.
QUEUES = '''\
from bts_exporter import Collector, CollectorConfig, TargetError, backlog

class Queues(Collector):
    """Queues."""
    class Config(CollectorConfig):
        fails: bool = False
        unknown: bool = False
    metrics = backlog.VOCABULARY
    collections = 0
    def collect(self, scrape):
        self.collections += 1
        if self.config.fails:
            raise TargetError("refused", "nothing listens")
        scrape.emit(backlog.LAG_SECONDS, 60, "stub", "late", "")
        scrape.emit(backlog.PUBLISHED, 10 * self.collections, "stub", "late", "")
        if self.config.unknown:
            scrape.emit(backlog.BACKLOG, 1, "stub", "unknown", "")
'''


def emit(scrape: Scrape) -> None:
    """Emit two queues, and one with a hostile name."""
    for name, seconds in (("orders", 60), ("fine", 0), (HOSTILE, 3)):
        scrape.emit(backlog.LAG_SECONDS, seconds, "stub", name, "")


def emit_unknown(scrape: Scrape) -> None:
    """Emit a queue whose lag is not known, next to one that is late."""
    scrape.emit(backlog.BACKLOG, 5, "stub", "unknown", "")
    scrape.emit(backlog.LAG_SECONDS, 60, "stub", "orders", "")


def emit_bound(scrape: Scrape) -> None:
    """Emit a queue that is late by 60 s or more."""
    scrape.emit(backlog.LAG_SECONDS, 60, "stub", "orders", "")
    scrape.emit(backlog.LAG_METHOD, 1, "stub", "orders", "", "lower_bound")


def fail(scrape: Scrape) -> None:
    """Fail after one queue."""
    scrape.emit(backlog.LAG_SECONDS, 60, "stub", "orders", "")
    raise TargetError("refused", f"nothing {HOSTILE} listens")  # noqa: EM101  # a reason


@contextmanager
def running(behave: Callable[[Scrape], None] = emit) -> Iterator[str]:
    """Run an exporter of one collector; gives its address."""
    with collectors(("stub", Stub(behave), {"name": "a"})) as (together, _):
        exporter = Exporter()
        exporter.collectors = together
        with listening(Routes(exporter)) as listener:
            host, port = listener.places[0][:2]
            yield f"http://{host}:{port}"


@pytest.fixture(autouse=True)
def _keep_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the log of the tests' process as it is."""
    monkeypatch.setattr("bts_exporter.logs.set_up", lambda *_: None)


def lag(*arguments: str) -> int:
    """Run the command in this process; return its exit status."""
    with pytest.raises(SystemExit) as done:
        main(["lag", *arguments])
    assert isinstance(done.value.code, int)
    return done.value.code


# The exit status


@pytest.mark.parametrize(
    ("behave", "arguments", "status", "remark"),
    [
        (emit, [], 0, ""),
        (emit, ["--max=2m"], 0, ""),
        (emit, ["--max=60"], 0, ""),
        (emit, ["--max=59"], 1, "late: stub/a orders: 1m 00s, more than 59s"),
        (emit, ["--max=59", "--destination=fine"], 0, ""),
        (
            emit,
            ["--destination=other"],
            3,
            "unknown: no such destination: --destination=other; without",
        ),
        (emit, ["--max=2m", "--target=b"], 3, "unknown: no such destination: --target=b; without"),
        (emit_unknown, [], 0, ""),
        (emit_unknown, ["--max=2m"], 3, "unknown: stub/a unknown: ?, may be more than 2m 00s"),
        (emit_unknown, ["--max=5"], 1, "unknown: stub/a unknown"),
        (emit_bound, ["--max=2m"], 3, "unknown: stub/a orders: >1m 00s, may be more than 2m 00s"),
        (emit_bound, ["--max=5"], 1, "late: stub/a orders"),
        (fail, [], 3, r"failing: stub[a]: nothing \x1b[2J\u202eevil listens"),
        (fail, ["--max=2m"], 3, "failing: stub[a]"),
        (
            fail,
            ["--destination=other"],
            3,
            "no such destination at the targets that answered: --dest",
        ),
        (fail, ["--max=5"], 1, "failing: stub[a]"),
    ],
)
def test_status(
    behave: Callable[[Scrape], None],
    arguments: list[str],
    status: int,
    remark: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """1 if a destination is later; 3 if that is not known, or a target fails; the reason is printed."""
    with running(behave) as url:
        assert lag(f"--url={url}", *arguments) == status

    errors = capsys.readouterr().err
    assert remark in errors
    assert bool(errors) == bool(status)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--max=soon"],
        ["--url=redis://cache"],
        ["--max=5m", "--watch"],
        ["--password-file=x"],
        ["--url=http://a", "--tls.ca_file=ca.pem"],
        ["--tls.ca_file=ca.pem"],
        ["--url=https://a", "--tls.cert_file=a.pem"],
    ],
)
def test_wrong_command_lines(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A command line that is not valid has its own status, so that it is not taken for a lag."""
    assert lag(*arguments) == 2
    assert "lag: " in capsys.readouterr().err


def test_address_without_a_scheme(capsys: pytest.CaptureFixture[str]) -> None:
    """Host and port are the address of an exporter without TLS."""
    with running() as url:
        assert lag(f"--url={url.removeprefix('http://')}") == 0

    assert "orders" in capsys.readouterr().out


def test_exporter_that_does_not_run(capsys: pytest.CaptureFixture[str]) -> None:
    """If the exporter that was named cannot be asked, the lag is not known."""
    assert lag(f"--url=http://127.0.0.1:{free_port()}", "--max=5m") == 3
    assert "connection refused" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("status", "body", "advice"),
    [
        (200, b"hello", "is it a bts-exporter"),
        (200, b'{"version": 2, "time": 0, "destinations": [], "collectors": []}', "same version"),
        (404, b"not found; metrics are at /metrics", "older"),
        (503, b"{}", "too busy"),
    ],
)
def test_answer_that_is_no_report(
    status: int, body: bytes, advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """If something else answers, or another version, the lag is not known."""
    with listening(lambda _: Response(status, body)) as listener:
        assert lag(f"--url=http://127.0.0.1:{listener.places[0][1]}") == 3

    assert advice in capsys.readouterr().err


def test_settings_with_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With settings that cannot be used the lag is not known: status 1 means late only."""
    path = tmp_path / "config.yaml"
    path.write_text("collectors: {redis: {no: 1}}\n")

    assert lag(f"--config.file={path}", "--max=5m") == 3
    assert capsys.readouterr().err.startswith(f"bts-exporter: {path}:1")


def report(*, success: bool = True, absent: bool = False, age: float | None = None) -> LagReport:
    """Return a report of one collector, with a queue that is late by 60 s."""
    row = Destination(
        collector="c", target="", system="s", destination="d", group="", lag_seconds=60
    )
    state = CollectorState(
        collector="c",
        target="",
        success=success,
        absent=absent,
        reason=None,
        message="",
        age_seconds=age,
    )
    return LagReport(time=0, destinations=[] if absent else [row], collectors=[state])


@pytest.mark.parametrize(("age", "status"), [(None, 0), (5, 0), (90, 3)])
def test_old_samples(age: float | None, status: int) -> None:
    """A lag that was found some time ago has grown since: it is not known to be shorter."""
    assert lag_command.verdict(report(age=age), 120, {})[0] == status


def test_no_target_answered() -> None:
    """If every target is absent, that nothing is late is not known; the reason names them."""
    status, [remark] = lag_command.verdict(report(absent=True), 120, {})

    assert status == 3
    assert remark.startswith("unknown: no target answered; optional, and not there: c (")


def test_target_that_answered_in_part() -> None:
    """A target whose destinations are shown is failing, and it is not said that it did not answer."""
    status, remarks = lag_command.verdict(report(success=False), 120, {})

    assert (status, [remark.split(":")[0] for remark in remarks]) == (3, ["failing"])


def test_no_destinations() -> None:
    """If all targets answered and have no destination, nothing is late."""
    empty = report()
    empty.destinations.clear()

    assert lag_command.verdict(empty, 120, {})[0] == 0


# What it prints


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    """JSON is the answer of the API; what a terminal would interpret is an escape in it."""
    with running() as url:
        assert lag(f"--url={url}", "--json") == 0

    text = capsys.readouterr().out
    found = json.loads(text)
    assert found["version"] == 1
    assert [row["destination"] for row in found["destinations"]] == ["orders", HOSTILE, "fine"]
    assert all(it.isprintable() or it == "\n" for it in text)


def test_terminal(tmp_path: Path) -> None:
    """On a terminal no line is wider than it; names cannot send it control sequences."""
    with running() as url:
        ours, theirs = pty.openpty()
        os.set_blocking(ours, False)
        done = subprocess.run(
            [sys.executable, "-m", "bts_exporter", "lag", f"--url={url}"],
            stdout=theirs,
            env=os.environ | {"COLUMNS": "40"},
            cwd=tmp_path,
            timeout=60,
            check=False,
        )
        text = os.read(ours, 65536).decode()
        os.close(ours)
        os.close(theirs)

    lines = text.splitlines()
    assert (done.returncode, len(lines)) == (0, 4)
    assert max(map(len, lines)) <= 40
    assert "\x1b" not in text


@pytest.mark.parametrize(("longest", "status"), [("5", 1), ("5m", 0)])
def test_reader_that_ends_early(tmp_path: Path, longest: str, status: int) -> None:
    """The exit status is the same if what reads the table ends before."""
    with running() as url:
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run(
            [sys.executable, "-m", "bts_exporter", "lag", f"--url={url}", f"--max={longest}"],
            stdout=writing,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
            timeout=60,
            check=False,
        )
        os.close(writing)

    assert done.returncode == status
    assert b"Broken pipe" not in done.stderr


def test_full_disk(tmp_path: Path) -> None:
    """If the table cannot be written, the status is another one than that of a lag."""
    with running() as url, Path("/dev/full").open("wb", buffering=0) as full:
        done = subprocess.run(
            [sys.executable, "-m", "bts_exporter", "lag", f"--url={url}", "--max=5m"],
            stdout=full,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
            timeout=60,
            check=False,
        )

    assert done.returncode == 3
    assert b"No space left" in done.stderr


def test_watch(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`--watch` prints a table after another; while the exporter is gone the last one stays, marked."""
    monkeypatch.setattr(lag_command, "_WATCH_SECONDS", 0)
    printed: list[list[str]] = []

    def note(lines: list[str]) -> None:
        printed.append(lines)
        if len(printed) == 2:
            stack.__exit__(None, None, None)
        if len(printed) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(lag_command, "_print", note)
    stack = running()
    url = stack.__enter__()
    assert lag(f"--url={url}", "--watch") == 130

    assert [any("orders" in line for line in lines) for lines in printed] == [True] * 4
    assert [any(line.startswith("not current") for line in lines) for lines in printed] == [
        False,
        False,
        True,
        True,
    ]


def test_watch_as_json(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`--watch --json` prints a line of JSON each time."""
    count = iter([None, None, KeyboardInterrupt])

    def sleep(_: float) -> None:
        if error := next(count):
            raise error

    monkeypatch.setattr(lag_command, "time", SimpleNamespace(sleep=sleep))
    with running() as url:
        assert lag(f"--url={url}", "--watch", "--json") == 130

    documents = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [document["version"] for document in documents] == [1, 1, 1]


# What it asks


def test_password_and_tls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An exporter with TLS and passwords can be asked; without the password the error says how."""
    authority = Authority(tmp_path, "ca")
    authority.sign("server", "subjectAltName=DNS:exporter")
    hashed = bcrypt.hashpw(b"pass", bcrypt.gensalt(4)).decode()
    web = tmp_path / "web.yml"
    web.write_text(
        "tls_server_config: {cert_file: server.pem, key_file: server.key}\n"
        f"basic_auth_users: {{ops: {hashed}}}\n"
    )
    password = tmp_path / "password"
    password.write_text("pass\n")
    with collectors(("stub", Stub(emit))) as (together, _):
        exporter = Exporter()
        exporter.collectors = together
        with guarded_by(web, Routes(exporter)) as (listener, _config):
            port = listener.places[0][1]
            tls = [f"--tls.ca_file={authority.cert}", "--tls.server_name=exporter"]
            url = f"--url=https://ops@127.0.0.1:{port}"
            assert lag(url, *tls, f"--password-file={password}") == 0
            assert "orders" in capsys.readouterr().out
            assert lag(url, *tls) == 3
            assert "--password-file" in capsys.readouterr().err
            assert lag(f"--url=http://127.0.0.1:{port}") == 3
            missing = f"--password-file={tmp_path / 'none'}"
            capsys.readouterr()
            assert lag(url, *tls, missing) == 3
            assert f"{missing.replace('=', ' ')} cannot be read: No such" in capsys.readouterr().err


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return settings of a plug-in with queues."""
    drop_in(tmp_path / "plugins", "queues", QUEUES)
    path = tmp_path / "config.yaml"
    path.write_text("plugins: plugins\ncollectors: {queues: {unknown: true}}\n")
    return path


@pytest.mark.parametrize(
    ("config_file", "addresses", "asks"),
    [
        (None, [":19100"], True),
        ("/etc/bts-exporter/config.yaml", [":19100"], True),
        ("/home/me/config.yaml", [":19100"], False),
        ("/home/me/config.yaml", ["127.0.0.1:9200"], True),
    ],
)
def test_what_is_asked_by_default(
    config_file: str | None, addresses: list[str], asks: bool
) -> None:
    """With settings that the service does not have, the brokers are read; with an address, it is asked."""
    options = Options(config_file=config_file, addresses=tuple(addresses))

    assert lag_command._asks_by_default(options) == asks


@pytest.mark.parametrize(
    ("address", "url"),
    [
        (":19100", "http://127.0.0.1:19100"),
        ("0.0.0.0:1", "http://127.0.0.1:1"),
        ("[::]:1", "http://[::1]:1"),
        ("[2001:db8::1]:1", "http://[2001:db8::1]:1"),
        ("db1:1", "http://db1:1"),
    ],
)
def test_address_of_the_exporter(address: str, url: str) -> None:
    """An exporter that listens on all addresses is asked at the loopback address."""
    assert str(lag_command._local(Options(addresses=(address,)))) == url


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--max=5m"], 3),
        (["--max=5m", "--destination=late"], 0),
        (["--max=5", "--destination=late"], 1),
        (["--max=5", "--target=other"], 3),
    ],
)
def test_without_a_running_exporter(
    config: Path, arguments: list[str], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """With settings the brokers are read by this process, with a note that it has no history."""
    assert lag(f"--config.file={config}", *arguments) == status
    assert "note: reading the brokers directly" in capsys.readouterr().err


def test_rates_without_a_running_exporter(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --max the brokers are read twice, so that there are rates."""
    monkeypatch.setattr(lag_command, "_BETWEEN_READINGS", 0.01)
    monkeypatch.setattr("bts_exporter.lag_report.SHORTEST_RATE_SECONDS", 0.0)

    assert lag(f"--config.file={config}", "--json") == 0
    late = json.loads(capsys.readouterr().out)["destinations"][0]
    assert (late["published_messages_total"], late["published_per_second"] > 0) == (20, True)


def test_default_asks_the_exporter_on_this_machine(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By default the exporter on the address of the command line is asked, else the brokers with a note."""
    with running() as url:
        address = url.removeprefix("http://")
        with pytest.raises(SystemExit) as done:
            main([f"--web.listen-address={address}", "lag", f"--config.file={config}"])
        assert done.value.code == 0
        captured = capsys.readouterr()
        assert "orders" in captured.out
        assert captured.err == f"note: answered by the exporter at {url}\n"

    with pytest.raises(SystemExit) as done:
        main([f"--web.listen-address={address}", "lag", "--max=1h", f"--config.file={config}"])
    captured = capsys.readouterr()
    assert (done.value.code, "late" in captured.out) == (3, True)
    assert "connection refused" in captured.err
