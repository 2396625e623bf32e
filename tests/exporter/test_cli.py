from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import bts_exporter
from bts_exporter import cli
from bts_exporter.service import Options
from stubs import SPOOLDIR, configure, drop_in, environment

COMMAND = [sys.executable, "-m", "bts_exporter"]


def run(*arguments: str, folder: Path, **env: str) -> tuple[int, str, str]:
    """Return exit code, standard output and standard error of one command."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        env=environment(**env),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a plug-in, and settings that use it."""
    drop_in(tmp_path / "plugins", "spool")
    configure(tmp_path, f"spool: {{path: {tmp_path}, pattern: '*.job'}}")
    return tmp_path


# The command line


def test_version(folder: Path) -> None:
    """The version of program and Python goes to standard output."""
    expected = f"bts-exporter {bts_exporter.__version__} (Python {platform.python_version()})\n"

    assert run("--version", folder=folder) == (0, expected, "")


def test_help(folder: Path) -> None:
    """The help names every flag and command."""
    code, out, _ = run("--help", folder=folder)

    flags = [
        "--version",
        "--config.file",
        "--config.auto-reload",
        "--log.level",
        "--log.format",
        "--web.listen-address",
        "--web.telemetry-path",
        "--web.max-requests",
        "--web.disable-exporter-metrics",
        "--web.enable-lifecycle",
    ]
    assert code == 0
    assert [
        word
        for word in (*flags, "check", "once", "push", "config", "collectors", "metrics", "lag")
        if word not in out
    ] == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--nonsense"], "unrecognized arguments: --nonsense"),
        (["--web.max"], "unrecognized arguments: --web.max"),
        (["nonsense"], "invalid choice: 'nonsense'"),
        (["--log.level=loud"], "argument --log.level: invalid choice: 'loud'"),
        (["--web.telemetry-path=metrics"], "'metrics' is not a valid path"),
        (["--web.telemetry-path=/"], "'/' is not a valid path"),
        (["--web.max-requests=-1"], "'-1' is not a valid number of scrapes"),
        (["--web.max-requests=many"], "'many' is not a valid number of scrapes"),
        (["metrics", "--format=xml"], "argument --format: invalid choice: 'xml'"),
        (["push", "--url=x", "--job=a\udcff"], "argument --job: 'a\\udcff' is not UTF-8"),
        (["push", "--url=x", "--job=a", "--instance=\udcff"], "--instance: '\\udcff' is not UTF-8"),
        (["check", "--collect=x"], "unrecognized arguments: --collect=x"),
    ],
)
def test_wrong_command_line(folder: Path, arguments: list[str], words: str) -> None:
    """An unknown or abbreviated flag is exit code 2 with the usage."""
    code, out, err = run(*arguments, folder=folder)

    assert (code, out) == (2, "")
    assert "usage: bts-exporter" in err
    assert words in err


@pytest.mark.parametrize(
    ("command", "closed", "code", "said"),
    [
        ("lag --config.file=config.yaml --max=5m", ">&-", 0, ""),
        ("run-collector plugins/spool.py --set path=.", ">&-", 0, "spool: ok; 1 series\n"),
        (
            "hash-password",
            "<&-",
            1,
            "bts-exporter: a password must have from 1 to 72 bytes, got 0\n",
        ),
    ],
)
def test_standard_file_that_is_closed(
    folder: Path, command: str, closed: str, code: int, said: str
) -> None:
    """Where a service manager closed it, the exit code is the answer."""
    argv = ["sh", "-c", f'exec "$0" -m bts_exporter {command} {closed}', sys.executable]
    done = subprocess.run(
        argv, cwd=folder, env=environment(), stderr=subprocess.PIPE, text=True, check=False
    )

    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert done.stderr.endswith(said)


@pytest.mark.parametrize(("command", "code"), [("check", 0), ("once", 0), ("once --collect=no", 1)])
def test_thread_of_a_plugin_that_never_ends(folder: Path, command: str, code: int) -> None:
    """A command ends with its own exit code, whatever threads a plug-in started when it was imported."""
    thread = "import threading\nthreading.Thread(target=threading.Event().wait).start()\n"
    drop_in(folder / "plugins", "spool", thread + SPOOLDIR)

    assert run(*command.split(), folder=folder)[0] == code


# Commands


def test_check(folder: Path) -> None:
    """Valid settings are exit code 0."""
    assert run("check", folder=folder) == (
        0,
        "config.yaml: settings are fine; targets: spool\n",
        "",
    )


@pytest.mark.parametrize("place", ["before", "after"])
def test_flag_before_and_after_the_command(folder: Path, place: str) -> None:
    """Common flags may be before or after the command."""
    (folder / "config.yaml").rename(folder / "other.yaml")
    flag = "--config.file=other.yaml"
    arguments = (flag, "check") if place == "before" else ("check", flag)

    assert run(*arguments, folder=folder)[:2] == (
        0,
        "other.yaml: settings are fine; targets: spool\n",
    )


def test_config(folder: Path) -> None:
    """An example of the settings of a type is printed; for a type that does not exist the exit code is 1."""
    code, out, err = run("config", "spool", folder=folder)
    unknown = run("config", "spol", folder=folder)

    assert (code, err) == (0, "")
    assert "\n  spool:\n    path: TEXT  # text; required\n" in out
    assert unknown[:2] == (1, "")
    assert "no such collector type: spol; there are: " in unknown[2]


def test_check_of_mistakes(folder: Path) -> None:
    """Each error is a line on standard error, and the exit code is 1."""
    configure(folder, "spool: {pth: x}, pulsar: ")
    code, out, err = run("check", folder=folder)

    assert (code, out) == (1, "")
    lines = err.splitlines()
    assert lines[:2] == [
        "config.yaml:2: collectors.spool.pth: unknown key 'pth'; did you mean path?",
        "config.yaml:2: collectors.spool: path is missing",
    ]
    assert lines[2].startswith(
        "config.yaml:2: collectors.pulsar: unknown collector type 'pulsar'; known: "
    )
    assert len(lines) == 3


def test_check_of_a_file_that_is_missing(folder: Path) -> None:
    """A named file that is missing is an error."""
    assert run("check", "--config.file=none.yaml", folder=folder) == (
        1,
        "",
        "none.yaml: cannot be read: No such file or directory\n",
    )


def test_once(folder: Path) -> None:
    """`once` prints one scrape, and logs nothing if nothing failed."""
    (folder / "a.job").touch()
    code, out, err = run("once", folder=folder)

    assert code == 0
    assert f'spool_files{{path="{folder}"}} 1\n' in out
    assert err == ""


def test_once_with_a_collector_that_fails(folder: Path) -> None:
    """With a failing collector `once` exits with 1, logs a line and prints the metrics of the others."""
    source = SPOOLDIR.replace("spool_files", "exits_files")
    source = source.replace("scrape.emit(", "raise SystemExit(5)\n        scrape.emit(")
    drop_in(folder / "plugins", "exits", source)
    configure(folder, f"spool: {{path: {folder}}}, exits: {{name: x, path: y}}")
    code, out, err = run("once", "--log.level=error", folder=folder)

    assert code == 1
    assert "spool_files{" in out
    assert 'bts_exporter_collector_success{collector="exits",target="x"} 0\n' in out
    [line] = err.splitlines()
    assert line.endswith(
        'level=error msg="collection fails: SystemExit: 5 (exits.py:13)" collector=exits[x] reason=internal'
    )


def test_once_of_what_is_not_there(folder: Path) -> None:
    """An invalid name is a one-line error that lists the valid ones."""
    code, out, err = run("once", "--collect=zfs", "--log.level=error", folder=folder)

    assert (code, out) == (1, "")
    assert err == "bts-exporter: no such collector: zfs; there are: spool\n"


def test_collectors_with_a_broken_one(folder: Path) -> None:
    """`collectors` shows why a type is broken, and exits with 1."""
    drop_in(folder / "plugins", "broken", "def (:\n")
    code, out, _ = run("collectors", folder=folder)

    assert code == 1
    assert "Files waiting in a spool directory." in out
    assert "BROKEN: type broken (plugins/broken.py) is broken: SyntaxError: invalid syntax" in out


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("table", "spool_files{path}  gauge  Files waiting in the spool directory.\n"),
        (
            "markdown",
            "| `spool_files` | gauge | path | Files waiting in the spool directory. | spool |\n",
        ),
        ("json", '"name": "spool_files",\n'),
    ],
)
def test_metrics(folder: Path, form: str, expected: str) -> None:
    """The list of metrics comes in three forms."""
    code, out, err = run("metrics", f"--format={form}", folder=folder)

    assert (code, err) == (0, "")
    assert expected in out


def test_metrics_are_a_table_for_who_does_not_say(folder: Path) -> None:
    """By default, metrics are printed as a table."""
    assert run("metrics", folder=folder)[1] == run("metrics", "--format=table", folder=folder)[1]


@pytest.mark.parametrize("command", ["metrics", "collectors", "once"])
def test_reader_that_has_seen_enough(folder: Path, command: str) -> None:
    """`bts-exporter metrics | head -1` ends without an error."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [*COMMAND, command, "--log.level=error"],
            cwd=folder,
            env=environment(),
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writing)

    assert (done.returncode, done.stderr) == (0, "")


def test_port_that_is_in_use(folder: Path) -> None:
    """The error about a port in use shows how to find its owner."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, _, err = run(f"--web.listen-address={address}", folder=folder)

    assert code == 1
    assert err.startswith(
        f"bts-exporter: cannot listen on {address}: port {address.rpartition(':')[2]} is in use; "
    )


# Commands of collector types

GREETS = """\
from bts_exporter import Collector, Command

class Greets(Collector):
    commands = {"hello": Command("greet", {"WHOM": "whom"}, lambda blocks, whom: [f"hello {whom}"])}
    def collect(self, scrape):
        pass
"""


@pytest.mark.parametrize("place", ["before", "after", "nowhere"])
def test_command_of_a_collector(folder: Path, place: str) -> None:
    """A plug-in's command takes the common flags and the usual settings file."""
    drop_in(folder / "plugins", "greets", GREETS)
    flags = ["--config.file", str(folder / "config.yaml")]
    words = {
        "before": [*flags, "greets-hello", "world-wide"],
        "after": ["greets-hello", "world-wide", *flags],
        "nowhere": ["greets-hello", "world-wide"],
    }

    assert run(*words[place], folder=folder) == (0, "hello world-wide\n", "")


def test_argument_may_be_called_like_a_command(folder: Path) -> None:
    """The first word of the command line is the command."""
    drop_in(folder / "plugins", "greets", GREETS)

    assert run("greets-hello", "check", folder=folder) == (0, "hello check\n", "")
    assert run("check", "greets-hello", folder=folder)[0] == 2


def test_help_of_a_command_of_a_collector(folder: Path) -> None:
    """The help of a plug-in's command lists its arguments."""
    drop_in(folder / "plugins", "greets", GREETS)
    code, out, _ = run("greets-hello", "--help", folder=folder)

    assert code == 0
    assert "greet" in out
    assert "WHOM" in out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["greets-hello"], 2, "the following arguments are required: WHOM"),
        (["greets-goodbye", "x"], 2, "invalid choice: 'greets-goodbye'"),
        (["nobody-hello", "x"], 2, "invalid choice: 'nobody-hello'"),
        (["greets-hello", "x", "--config.file"], 2, "usage: bts-exporter"),
        (["greets-hello", "x", "--config.file", "gone.yaml"], 1, "gone.yaml: cannot be read"),
    ],
)
def test_wrong_command_of_a_collector(
    folder: Path, arguments: list[str], code: int, words: str
) -> None:
    """Errors of a plug-in's command look like those of other commands."""
    drop_in(folder / "plugins", "greets", GREETS)
    ended = run(*arguments, folder=folder)

    assert ended[:2] == (code, "")
    assert words in ended[2]


def test_broken_type_says_why_it_has_no_command(folder: Path) -> None:
    """The error about a command of a broken plug-in shows why it is broken."""
    drop_in(folder / "plugins", "greets", "1/0\n")
    code, _, err = run("greets-hello", "x", folder=folder)

    assert code == 1
    assert "ZeroDivisionError" in err


# The live page


def test_flags_of_the_live_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """API and scrapes in the background are on, and each has a flag that turns it off."""
    found: list[tuple[bool, bool]] = []

    def serve(options: Options, _: object) -> int:
        found.append((options.api, options.background_scrape))
        return 0

    monkeypatch.setitem(cli._COMMANDS, None, serve)
    monkeypatch.setattr(cli.logs, "set_up", lambda *_: None)
    for flags in ([], ["--web.disable-api"], ["--web.disable-background-scrape"]):
        cli._run(flags)

    assert found == [(True, True), (False, True), (True, False)]
