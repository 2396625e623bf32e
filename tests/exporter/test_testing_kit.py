"""What authors have for their tests, used as they use it."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from bts_exporter import (
    Collector,
    CollectorConfig,
    Duration,
    HttpClient,
    Kind,
    NotPresent,
    Product,
    Scrape,
    TargetError,
    Template,
    Url,
    counter,
    gauge,
    histogram,
    summary,
)
from bts_exporter.errors import ConfigError
from bts_exporter.testing import (
    ExporterProcess,
    Golden,
    HttpServer,
    Page,
    Running,
    collect,
    configured,
    drop,
    hang,
    in_turn,
    naming_problems,
    not_emitted,
    raw,
    reply,
    run,
)
from stubs import SPOOLDIR, Hang, Stub, drop_in


class Spool(Collector):
    """A collector with one of each kind."""

    class Config(CollectorConfig):
        """Its settings."""

        path: Path
        every: Duration = Duration(30)

    files = gauge("spool_files", "Files.", ("path", "state"))
    read = counter("spool_read_bytes_total", "Bytes.")
    sizes = histogram("spool_size_bytes", "Sizes.", ("path",))
    delay = summary("spool_delay_seconds", "Delays.")
    field = Template("spool_{field}_seconds", "Field {field}.", Kind.GAUGE)

    def collect(self, scrape: Scrape) -> None:
        """Emit all but the template's."""
        scrape.emit(self.files, 2, "/b", "new")
        scrape.emit(self.files, 3, "/a", "new")
        scrape.emit(self.files, 4, "/a", "old")
        scrape.emit(self.read, 5)
        scrape.emit_histogram(self.sizes, [(10, 1), (100, 2)], 50, "/a")
        scrape.emit_summary(self.delay, [(0.5, 0.1)], 1, 2)


# Samples


def test_value_by_name_and_labels() -> None:
    """A sample is found by its name and as many labels as make it the only one."""
    samples = collect(configured(Spool, path="/x"))

    assert samples.value("spool_files", path="/b") == 2
    assert samples.value("spool_files", path="/a", state="old") == 4
    assert samples.value("spool_read_bytes_total") == 5
    assert samples.value("spool_size_bytes_bucket", path="/a", le="100") == 2
    assert samples.value("spool_size_bytes_count") == 2
    assert samples.value("spool_delay_seconds", quantile="0.5") == 0.1
    assert [sample.labels["path"] for sample in samples.find("spool_files", state="new")] == [
        "/b",
        "/a",
    ]
    assert samples.find("spool_files", path="/c") == []


def test_value_that_is_not_the_only_one() -> None:
    """The error lists what there is of this name, or the names."""
    samples = collect(configured(Spool, path="/x"))

    with pytest.raises(AssertionError) as several:
        samples.value("spool_files", path="/a")
    with pytest.raises(AssertionError) as none:
        samples.value("spool_fils")

    assert str(several.value).splitlines() == [
        '2 samples of spool_files{path="/a"}; there are:',
        '  spool_files{path="/b",state="new"} 2',
        '  spool_files{path="/a",state="new"} 3',
        '  spool_files{path="/a",state="old"} 4',
    ]
    assert str(none.value).startswith("no samples of spool_fils; there are:\n  spool_delay_seconds")


def test_page_is_in_order() -> None:
    """The page of samples does not depend on the order in which they were emitted."""
    page = collect(configured(Spool, path="/x")).page()

    files = [line for line in page.splitlines() if line.startswith("spool_files{")]
    assert files == [
        'spool_files{path="/a",state="new"} 3',
        'spool_files{path="/a",state="old"} 4',
        'spool_files{path="/b",state="new"} 2',
    ]
    assert Page(page).value("spool_size_bytes_bucket", le="+Inf") == 2


# Settings


def test_settings_as_in_the_file(tmp_path: Path) -> None:
    """Settings are converted as those of config.yaml, and paths may be given as such."""
    collector = configured(Spool, path=tmp_path, every="1m30s")

    assert isinstance(collector, Spool)
    assert collector.config == Spool.Config(path=tmp_path, every=Duration(90))


def test_settings_with_mistakes() -> None:
    """All mistakes are in the error, as in that about a file."""
    with pytest.raises(ConfigError) as caught:
        configured(Spool, evry="1s", every="soon")

    message = str(caught.value)
    assert "evry: unknown key 'evry'; did you mean every?" in message
    assert "every: expected seconds or a duration" in message
    assert "path is missing" in message


def test_plugin_of_a_file(tmp_path: Path) -> None:
    """A plug-in is loaded from its file, also if others could write to it."""
    path = drop_in(tmp_path / "plugins", "spool", SPOOLDIR)
    path.chmod(0o666)

    samples = collect(configured(path, path=tmp_path))

    assert samples.value("spool_files", path=str(tmp_path)) == 1


def test_type_that_builds_several() -> None:
    """One that builds another number of collectors is an error that says so."""

    class Twins(Spool):
        @classmethod
        def build(cls, config: object) -> list[Collector]:
            return [cls(config), cls(config)]

    with pytest.raises(AssertionError, match="builds 2 collectors"):
        configured(Twins, path="/x")


# Outcomes


def test_outcome_of_a_success() -> None:
    """A collection has its samples and how it ended."""
    collected = run(Stub())

    assert collected == ({"stub_value": {(): 1}}, True, True, None, "")


def test_outcome_of_a_failure() -> None:
    """What was emitted before a failure is there, with its reason and message."""

    def behave(scrape: Scrape) -> None:
        scrape.emit(Stub.value, 1)
        raise TargetError("auth", "wrong password")  # noqa: EM101

    collected = run(Stub(behave))

    assert collected.samples.value("stub_value") == 1
    assert (collected.success, collected.reason, collected.message) == (
        False,
        "auth",
        "wrong password",
    )


def test_outcome_of_what_is_not_there() -> None:
    """A source that does not exist is a success without support."""

    def behave(_: Scrape) -> None:
        raise NotPresent("no such file")  # noqa: EM101, TRY003

    collected = run(Stub(behave))

    assert (collected.success, collected.supported) == (True, False)


def test_collector_that_hangs() -> None:
    """The test goes on at the deadline, with what was emitted; the next collection is refused until it ended."""
    hanging = Hang(before=Stub.emit_value.__get__(Stub()))

    with Running(Stub(hanging)) as running:
        first, second = running.scrape(0.5), running.scrape(0.5)
        hanging.end()

    assert (first.reason, first.samples.value("stub_value")) == ("timeout", 1)
    assert second.reason == "busy"


def test_collector_is_started_and_stopped() -> None:
    """`start` is called before the first collection, and `stop` after the last."""
    calls: list[str] = []

    class Diary(Stub):
        def start(self) -> None:
            calls.append("start")

        def stop(self) -> None:
            calls.append("stop")

    run(Diary(lambda _: calls.append("collect")))

    assert calls == ["start", "collect", "stop"]


def test_limit_of_series() -> None:
    """Settings that all collectors have can be given."""
    collected = run(configured(Spool, path="/x"), max_series=3)

    assert collected.reason == "limited"


# Declarations


def test_metrics_that_are_never_emitted() -> None:
    """Declared metrics that no collection emitted are listed; one of a template counts for all."""

    class Other(Spool):
        def collect(self, scrape: Scrape) -> None:
            scrape.emit(self.field.of("idle"), 1)

    collector = configured(Spool, path="/x")
    samples = collect(collector)

    assert not_emitted(collector, samples) == ["spool_{field}_seconds"]
    assert not_emitted(Spool, samples, collect(configured(Other, path="/x"))) == []


@pytest.mark.parametrize(
    ("metric", "problem"),
    [
        (gauge("spoolFiles", "H."), "spoolFiles: expected lower-case words with one underscore between them"),
        (gauge("spool__files", "H."), "spool__files: expected lower-case words with one underscore between them"),
        (gauge("spool:files", "H."), "spool:files: expected lower-case words with one underscore between them"),
        (counter("spool_files", "H."), "spool_files: the name of a counter ends in _total"),
        (gauge("spool_files_total", "H."), "spool_files_total: only the name of a counter ends in _total"),
        (gauge("spool_files_count", "H."), "spool_files_count: _count is the end of a part of a histogram or summary"),
        (gauge("spool_age_ms", "H."), "spool_age_ms: ms is not a base unit: use seconds"),
        (gauge("spool_age_minutes", "H."), "spool_age_minutes: minutes is not a base unit: use seconds"),
        (counter("spool_read_kb_total", "H."), "spool_read_kb_total: kb is not a base unit: use bytes"),
        (gauge("spool_full_percent", "H."), "spool_full_percent: percent is not a base unit: use ratio"),
        (gauge("spool_files_gauge", "H."), "spool_files_gauge: the type of a metric is not part of its name"),
        (gauge("bts_exporter_files", "H."), "bts_exporter_files: the exporter's own metrics begin with bts_exporter_"),
        (gauge("spool_files", " "), "spool_files: the help is empty"),
        (gauge("spool_files", "H.", ("job",)), "spool_files: label job is set by Prometheus"),
        (gauge("spool_files", "H.", ("target",)), "spool_files: label target is set by the exporter"),
        (gauge("spool_files", "H.", ("le",)), "spool_files: label le belongs to histograms and summaries"),
        (gauge("spool_files", "H.", ("Path",)), "spool_files: label Path: expected lower-case words with one underscore between them"),
        (Template("spool_{field}_ms", "H.", Kind.GAUGE), "spool_field_ms: ms is not a base unit: use seconds"),
    ],
)  # fmt: skip
def test_names_that_break_conventions(metric: object, problem: str) -> None:
    """Each violation of the conventions is named, with the fix."""
    assert naming_problems(type("Author", (Stub,), {"metric": metric})) == [problem]


def test_names_that_keep_conventions() -> None:
    """Good names have no problems, and one that is declared twice has."""
    assert naming_problems(Spool) == []

    class Twice(Spool):
        again = gauge("spool_files", "Files.")

    assert naming_problems(Twice) == ["spool_files is declared twice"]


# Golden pages


def test_golden_page(tmp_path: Path) -> None:
    """A page is compared with its file, which is only written on request."""
    samples = collect(configured(Spool, path="/x"))
    golden, updating = Golden(tmp_path / "golden"), Golden(tmp_path / "golden", update=True)

    with pytest.raises(AssertionError, match="pytest --bts-update-golden") as missing:
        golden.check(samples, "spool.txt")
    assert not (tmp_path / "golden").exists()
    assert '+spool_files{path="/b",state="new"} 2' in str(missing.value)

    updating.check(samples, "spool.txt")
    golden.check(samples, "spool.txt")
    golden.check(samples.page(), "spool.txt")
    with pytest.raises(
        AssertionError, match=r"\n-spool_read_bytes_total 5\n\+spool_read_bytes_total 6"
    ):
        golden.check(samples.page().replace("_total 5", "_total 6"), "spool.txt")


# The HTTP server


@pytest.fixture
def client(bts_http_server: HttpServer) -> Iterator[HttpClient]:
    """Return a client of the fake server."""
    client = HttpClient(Product("the fake"), Url.from_setting(bts_http_server.url))
    yield client
    client.close()


def test_replies(bts_http_server: HttpServer, client: HttpClient) -> None:
    """Text, JSON, compressed bodies, statuses, and replies that differ by turn; requests are kept."""
    bts_http_server.routes = {
        "/text": reply("text", headers={"X-Version": "5"}),
        "/json": reply({"a": 1}, packed=True),
        "/turn": in_turn(reply("", 500), reply("", 200)),
    }

    assert client.get("/text", 30).body == b"text"
    assert client.get("/json?x=1", 30).body == b'{"a": 1}'
    assert [client.get("/turn", 30).status for _ in range(2)] == [500, 200]
    assert client.get("/other", 30).status == 404
    assert [request.path for request in bts_http_server.received[:2]] == ["/text", "/json?x=1"]


def test_reply_to_head(bts_http_server: HttpServer) -> None:
    """It has no body, so that the next reply on the connection is read as such."""
    bts_http_server.routes["/text"] = reply("text")
    connection = HTTPConnection("127.0.0.1", bts_http_server.port, timeout=30)
    bodies = []

    for method in ("HEAD", "GET"):
        connection.request(method, "/text")
        bodies.append(connection.getresponse().read())
    connection.close()

    assert bodies == [b"", b"text"]


@pytest.mark.parametrize(
    ("bad", "reason"), [(drop, "unreachable"), (raw(b"no HTTP\r\n\r\n"), "protocol")]
)
def test_replies_that_are_bad(
    bts_http_server: HttpServer,
    client: HttpClient,
    bad: Callable[[object], None],
    reason: str,
) -> None:
    """Connections without a reply and replies that are not HTTP can be tested."""
    bts_http_server.routes["/"] = bad

    with pytest.raises(TargetError) as caught:
        client.get("/", 30)
    assert caught.value.reason == reason


def test_reply_that_hangs(bts_http_server: HttpServer, client: HttpClient) -> None:
    """A request without a reply ends by its timeout, and does not keep the server from ending."""
    bts_http_server.routes["/"] = hang

    with pytest.raises(TargetError, match="no reply in time"):
        client.get("/", 0.2)
    before = threading.active_count()
    bts_http_server.close()
    assert threading.active_count() <= before


# The exporter


def test_complete_exporter(
    bts_exporter_process: Callable[..., ExporterProcess], tmp_path: Path
) -> None:
    """A plug-in is served by a process, and reloaded; the process ends with the test."""
    plugins = tmp_path / "plugins"
    drop_in(plugins, "spool", SPOOLDIR)
    process = bts_exporter_process(
        f"plugins: {plugins}\ncollectors: {{spool: {{path: {plugins}}}}}\n"
    )

    assert process.page().value("spool_files", path=str(plugins)) == 1
    drop_in(plugins, "spool", SPOOLDIR.replace("glob(self.config.pattern)", "glob('x')"))
    process.reload()
    process.wait_for(lambda: process.page().value("spool_files") == 0, "the new version")


def test_exporter_that_does_not_start(bts_exporter_process: Callable[..., ExporterProcess]) -> None:
    """The error has the exporter's output."""
    with pytest.raises(AssertionError, match=r"ended with code 1\n.*unknown collector type 'spol'"):
        bts_exporter_process({"spol": {}})


# The pytest plug-in

AUTHORS_TEST = """\
from bts_exporter.testing import configured, collect


def test_golden(bts_golden, tmp_path):
    \"\"\"The page is as expected.\"\"\"
    bts_golden.check(collect(configured("spool.py", path="/nowhere")), "spool.txt")
"""


def pytest_in(folder: Path, *flags: str) -> tuple[int, str]:
    """Run pytest as an author does; return its exit code and output."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:hypothesispytest",
            *flags,
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_golden_page_of_an_author(tmp_path: Path) -> None:
    """The flag writes the file next to the test, and without it the test compares."""
    (tmp_path / "spool.py").write_text(SPOOLDIR)
    (tmp_path / "test_spool.py").write_text(AUTHORS_TEST)

    code, output = pytest_in(tmp_path)
    assert (code, "pytest --bts-update-golden" in output) == (1, True)
    assert pytest_in(tmp_path, "--bts-update-golden")[0] == 0
    assert "spool_files" in (tmp_path / "golden" / "spool.txt").read_text()
    assert pytest_in(tmp_path, "-W", "error")[0] == 0


def test_other_runs_of_pytest_do_not_import_the_exporter(tmp_path: Path) -> None:
    """A run that uses no fixture of ours imports the plug-in's module only, and shows no warning."""
    (tmp_path / "test_else.py").write_text(
        "import sys\n\ndef test_else():\n"
        "    loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "    assert 'bts_exporter_pytest' in loaded\n"
        "    assert not loaded & {'bts_exporter', 'bts_collectors', 'msgspec', 'yaml'}\n"
    )

    code, output = pytest_in(tmp_path, "-W", "error")

    assert code == 0, output
