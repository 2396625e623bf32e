"""The command `run-collector`, as authors use it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bts_exporter.cli import main
from servers import Process, wait_until
from stubs import SPOOLDIR

#: Settings of several types, whose values the collector shows.
TYPED = """\
import msgspec

from bts_exporter import Collector, CollectorConfig, Duration, Secret, gauge


class Inner(msgspec.Struct, frozen=True):
    port: int = 1


class Typed(Collector):
    class Config(CollectorConfig):
        text: str = ""
        every: Duration = Duration(1)
        names: tuple[str, ...] = ()
        on: bool = False
        password: Secret | None = None
        inner: Inner = Inner()

    value = gauge("typed", "Shows the settings.", ("repr",))

    def collect(self, scrape):
        scrape.emit(self.value, 1, str(msgspec.structs.astuple(self.config)))
        assert self.config.password is None or self.config.password.reveal() == "hunter2"
"""
SHARING = """\
from bts_exporter import Collector, gauge
from .values import VALUE

class Thing(Collector):
    value = gauge("thing_value", "A value.")
    def collect(self, scrape):
        scrape.emit(self.value, VALUE)
"""


def run(*argv: str | Path) -> int:
    """Run the command, and return its exit code."""
    with pytest.raises(SystemExit) as caught:
        main(["run-collector", *map(str, argv)])
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """Return the file of a plug-in."""
    path = tmp_path / "spool.py"
    path.write_text(SPOOLDIR)
    return path


def test_metrics_of_a_file(spool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The metrics are printed as a scrape would serve them, and a summary on standard error."""
    assert run(spool, "--set", f"path={tmp_path}", "--set", "pattern=*.py") == 0

    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "# HELP spool_files Files waiting in the spool directory.",
        "# TYPE spool_files gauge",
        f'spool_files{{path="{tmp_path}"}} 1',
    ]
    assert err == "spool: ok; 1 series\n"


def test_file_that_others_could_write(spool: Path, tmp_path: Path) -> None:
    """A file that is named on the command line may have any mode, as a program that is started."""
    spool.chmod(0o666)
    tmp_path.chmod(0o777)

    assert run(spool, "--set", "path=.") == 0


def test_labels_that_are_no_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sample that cannot be served is a failure that is named, as in a scrape; the others are printed."""
    path = tmp_path / "labels.py"
    path.write_text(
        "from bts_exporter import Collector, gauge\n"
        "class Labels(Collector):\n"
        "    value = gauge('a_value', 'A value.', ('key',))\n"
        "    def collect(self, scrape):\n"
        "        scrape.emit(self.value, 1, 'good')\n"
        "        scrape.emit(self.value, 2, 5)\n"
    )

    assert run(path) == 1

    out, err = capsys.readouterr()
    assert out.endswith('gauge\na_value{key="good"} 1\n')
    assert err == (
        "labels: FAILS (invalid_sample): a_value: the value of label key is of type int (expected str)\n"
    )


def test_link_that_leads_to_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is reported as a file that is not there."""
    (tmp_path / "loop.py").symlink_to("loop.py")

    assert run(tmp_path / "loop.py") == 1
    assert "loop.py is not there" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["thing", "thing/", "thing/__init__.py"])
def test_metrics_of_a_package(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder of a package can be run, too, and its data are not read."""
    (tmp_path / "thing").mkdir()
    (tmp_path / "thing" / "__init__.py").write_text(SHARING)
    (tmp_path / "thing" / "values.py").write_text("VALUE = 5\n")
    with (tmp_path / "thing" / "data").open("wb") as data:
        data.truncate(2**40)

    assert run(tmp_path / name) == 0
    assert "thing_value 5\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("pair", "shown"),
    [
        ("text=*.job", "'*.job'"),
        ("text=a=b", "'a=b'"),
        ("text=a: b: c", "'a: b: c'"),
        ("text=", "''"),
        ("text='5'", "'5'"),
        ("every=1m30s", "90.0"),
        ("names=[a, b]", "('a', 'b')"),
        ("on=true", "True"),
        ("password=!env TYPED_PASSWORD", "Secret()"),
        ("inner.port=5", "Inner(port=5)"),
        ("inner={port: 6}", "Inner(port=6)"),
    ],
)
def test_settings_are_those_of_a_file(
    pair: str,
    shown: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Values are written as in config.yaml; text that would need quotes there needs none."""
    monkeypatch.setenv("TYPED_PASSWORD", "hunter2")
    (tmp_path / "typed.py").write_text(TYPED)

    assert run(tmp_path / "typed.py", "--set", pair) == 0
    assert shown in capsys.readouterr().out


def test_mistakes_in_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All mistakes are reported at once, each with the key of the command line."""
    (tmp_path / "typed.py").write_text(TYPED)
    pairs = [
        "evry=1",
        "on=maybe",
        "inner.prt=1",
        "password=!env TYPED_MISSING",
        "alone",
        "timeout=soon",
    ]

    assert run(tmp_path / "typed.py", *(word for pair in pairs for word in ("--set", pair))) == 1

    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" (")[0].partition("; ")[0] for line in lines] == [
        "--set: password: !env TYPED_MISSING: no such environment variable",
        "--set: 'alone' is not a setting: expected KEY=VALUE",
        "--set: evry: unknown key 'evry'",
        "--set: timeout: expected seconds or a duration such as 1m30s, got 'soon'",
        "--set: on: expected bool, got str",
        "--set: inner.prt: unknown key 'prt'",
    ]


def test_setting_that_is_missing(spool: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A key without a default is named."""
    assert run(spool) == 1
    assert capsys.readouterr().err == "--set: path is missing\n"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("        raise ValueError('no')\n", "FAILS (internal): ValueError: no (fails.py:8)"),
        ("        self.value = 1 / 0\n", "FAILS (internal): ZeroDivisionError: division by zero (fails.py:8)"),
    ],
)  # fmt: skip
def test_collection_that_fails(
    code: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was emitted before is printed, the error once, and the exit code is 1."""
    source = SHARING.replace("from .values import VALUE", "VALUE = 5")
    (tmp_path / "fails.py").write_text(f"{source}{code}")

    assert run(tmp_path / "fails.py") == 1

    out, err = capsys.readouterr()
    assert "thing_value 5\n" in out
    assert err == f"fails: {message}\n"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import", "SyntaxError: "),
        ("1/0", "ZeroDivisionError: division by zero (FILE:1)"),
        ("x = 5", "FILE defines no collector"),
    ],
)
def test_file_that_is_broken(
    source: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error has file and line."""
    path = tmp_path / "broken.py"
    path.write_text(source)

    assert run(path) == 1
    assert message.replace("FILE", str(path)) in capsys.readouterr().err


def test_constructor_that_raises(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An error in __init__ has file and line."""
    path = tmp_path / "broken.py"
    path.write_text(f"{SPOOLDIR}    def __init__(self, config):\n        super().__init__(5 / 0)\n")

    assert run(path, "--set", "path=.") == 1
    assert capsys.readouterr().err == (
        f"bts-exporter: ZeroDivisionError: division by zero ({path}:15)\n"
    )


@pytest.mark.parametrize("name", ["missing.py", "notes.txt", "folder"])
def test_what_is_no_plugin(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The message says what a plug-in is."""
    (tmp_path / "notes.txt").touch()
    (tmp_path / "folder").mkdir()

    assert run(tmp_path / name) == 1
    what = "is not there" if name == "missing.py" else "is not a plug-in"
    assert f"{name} {what}: expected a file such as spool.py" in capsys.readouterr().err


# Watching


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[tuple[Path, Process]]:
    """Return the folder of a package that is watched, and the process."""
    folder = tmp_path / "thing"
    folder.mkdir()
    (folder / "__init__.py").write_text(SHARING)
    (folder / "values.py").write_text("from .._shared import VALUE\n")
    (tmp_path / "_shared.py").write_text("VALUE = 1\n")
    argv = [sys.executable, "-m", "bts_exporter", "run-collector", "thing", "--watch"]
    process = Process(argv, tmp_path)
    yield folder, process
    process.kill()


def test_changes_are_printed(watched: tuple[Path, Process]) -> None:
    """Each change of a file runs it again; errors are printed, and do not end the command."""
    folder, process = watched

    seen = 0

    def printed(text: str) -> None:
        nonlocal seen
        begin = seen
        wait_until(lambda: text in process.log.read_text()[begin:], text, 60)
        wait_until(lambda: process.log.read_text().endswith("ends this\n"), "it waits", 60)
        seen = len(process.log.read_text())

    printed("thing_value 1\n")
    (folder / "values.py").write_text("VALUE = 2\n")
    printed("thing_value 2\n")
    (folder / "values.py").write_text("VALUE = 2 / 0\n")
    printed(f"ZeroDivisionError: division by zero ({folder}/values.py:1)")
    (folder / "values.py").write_text("from .._shared import VALUE\n")
    printed("thing_value 1\n")
    (folder.parent / "_shared.py").write_text("VALUE = 'x'\n")
    printed("FAILS (invalid_sample): thing_value: 'x' is not a number")
    (folder.parent / "_shared.py").write_text("VALUE = 3\n")
    printed("thing_value 3\n")
    assert process.popen.poll() is None


def test_watching_ends_with_ctrl_c(tmp_path: Path, spool: Path) -> None:
    """Ctrl-C ends the command, also while a collection hangs."""
    spool.write_text(SPOOLDIR.replace("        scrape", "        import time\n        print('hangs', flush=True)\n        time.sleep(600)\n        scrape"))  # fmt: skip
    argv = [sys.executable, "-m", "bts_exporter", "run-collector", str(spool), "--set", "path=.", "--watch"]  # fmt: skip
    process = Process(argv, tmp_path)
    try:
        process.ready(lambda: "hangs" in process.log.read_text())
        process.popen.send_signal(2)
        assert process.popen.wait(60) == 130
    except subprocess.TimeoutExpired:
        pytest.fail("it did not end")
    finally:
        process.kill()
