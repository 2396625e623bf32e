from __future__ import annotations

import json
import logging
import sys
import threading
import warnings
from collections.abc import Iterator

import pytest

from bts_exporter import logs
from bts_exporter.logs import Formatter, LogFormat, set_up


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Undo what `set_up` does to the process."""
    hooks = threading.excepthook, sys.unraisablehook
    root, own = logging.getLogger(), logging.getLogger("bts_exporter")
    before = root.handlers[:], root.level, own.level
    yield
    logging.captureWarnings(capture=False)
    threading.excepthook, sys.unraisablehook = hooks
    root.handlers[:], root.level, own.level = before
    root.setLevel(before[1])
    own.setLevel(before[2])


def record(message: str, level: int = logging.INFO, **details: object) -> logging.LogRecord:
    """Return a record of 2023-11-14 22:13:20.25 UTC."""
    made = logging.LogRecord("bts_exporter.x", level, __file__, 1, message, (), None)
    made.created = 1_700_000_000.25
    vars(made).update(details)
    return made


@pytest.mark.parametrize(
    ("style", "expected"),
    [
        ("logfmt", 'ts=2023-11-14T22:13:20.250Z level=warn msg="it is late" collector=redis[cache] seconds=5'),
        ("json", '{"ts": "2023-11-14T22:13:20.250Z", "level": "warn", "msg": "it is late", "collector": "redis[cache]", "seconds": 5}'),
    ],
)  # fmt: skip
def test_log_line(style: LogFormat, expected: str) -> None:
    """A line has time, level, message, and details as separate fields."""
    line = Formatter(style).format(
        record("it is late", logging.WARNING, collector="redis[cache]", seconds=5)
    )

    assert line == expected


@pytest.mark.parametrize(
    ("level", "word"),
    [
        (logging.DEBUG, "debug"),
        (logging.INFO, "info"),
        (logging.WARNING, "warn"),
        (logging.ERROR, "error"),
        (logging.CRITICAL, "critical"),
    ],
)
def test_levels(level: int, word: str) -> None:
    """Levels have the names that are usual for exporters."""
    assert f" level={word} " in Formatter("logfmt").format(record("x", level))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", "plain"),
        ("ünicode", "ünicode"),
        ("", '""'),
        ("two words", '"two words"'),
        ('quo"te', '"quo\\"te"'),
        ("a=b", '"a=b"'),
        ("line\nbreak", '"line\\nbreak"'),
        ("tab\t\x1b[31m", '"tab\\t\\u001b[31m"'),
        ("half \udcff", '"half \\udcff"'),
    ],
)
def test_values_that_would_break_the_line(value: str, shown: str) -> None:
    """A record with any value is one line that can be parsed."""
    line = Formatter("logfmt").format(record("x", what=value))

    assert line.endswith(f" what={shown}")
    assert "\n" not in line
    assert json.loads(Formatter("json").format(record("x", what=value)))["what"] == value


def test_traceback_is_a_field() -> None:
    """A record with a traceback is one line."""
    made = record("broken")
    error = ZeroDivisionError("by zero")
    error.__cause__ = ValueError("no number")
    made.exc_info = (type(error), error, None)

    line = Formatter("logfmt").format(made)

    assert ' traceback="ValueError: no number\\n\\nThe above exception was' in line
    assert "\n" not in line


def test_arguments_are_filled_in() -> None:
    """Messages are formatted with their arguments."""
    made = record("%d of %s")
    made.args = (2, "three")

    assert 'msg="2 of three"' in Formatter("logfmt").format(made)


def test_lines_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Log lines go to standard error."""
    set_up("info", "logfmt")
    logging.getLogger("bts_exporter.test").info("hello")

    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith(" level=info msg=hello\n")


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warn", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_least_level(level: str, expected: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Records below the minimum level are left out."""
    set_up(level, "logfmt")
    for name in ("debug", "info", "warning", "error"):
        getattr(logging.getLogger("bts_exporter.test"), name)(name)

    found = [line.rpartition("msg=")[2] for line in capsys.readouterr().err.splitlines()]
    assert found == expected


def test_libraries_log_nothing_below_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    """Client libraries do not log at debug: they would log packets with passwords."""
    set_up("debug", "logfmt")
    library = logging.getLogger("stub_library")
    library.debug("password=hunter2")
    library.info("connected")
    library.warning("broken")

    err = capsys.readouterr().err
    assert "hunter2" not in err
    assert "connected" not in err
    assert "msg=broken" in err


def test_set_up_twice_logs_once(capsys: pytest.CaptureFixture[str]) -> None:
    """A second set-up replaces the handler."""
    for _ in range(2):
        set_up("info", "json")
    logging.getLogger("bts_exporter.test").info("hello")

    assert len(capsys.readouterr().err.splitlines()) == 1


def test_names_of_levels() -> None:
    """The flag accepts these levels and formats."""
    assert logs.LEVELS == ("debug", "info", "warn", "error")


def test_what_python_writes_by_itself_is_logged(capsys: pytest.CaptureFixture[str]) -> None:
    """Uncaught exceptions of threads and destructors, and warnings, are ordinary log lines."""

    class Broken:
        def __del__(self) -> None:
            message = "in a destructor"
            raise ValueError(message)

    def fail() -> None:
        message = "in a thread"
        raise ValueError(message)

    set_up("info", "logfmt")
    thread = threading.Thread(target=fail, name="worker")
    thread.start()
    thread.join()
    Broken()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("in the code", stacklevel=1)

    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("ts=") for line in lines)
    assert "in a thread" in lines[0]
    assert "in a destructor" in lines[1]
    assert "in the code" in lines[2]
