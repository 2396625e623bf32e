from __future__ import annotations

import errno
import socket
import ssl

import pytest

from bts_exporter.errors import (
    REASONS,
    ConfigError,
    DeadlineExceeded,
    NotPresent,
    Problem,
    TargetError,
    reason_of,
    text_of,
)


def raised_from(error: Exception, cause: Exception) -> Exception:
    """Return `error` as it is after `raise error from cause`."""
    error.__cause__ = cause
    return error


def raised_while(error: Exception, context: Exception) -> Exception:
    """Return `error` as it is when raised while `context` was handled."""
    error.__context__ = context
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TargetError("loading", "reads its file"), "loading"),
        (DeadlineExceeded("over"), "timeout"),
        (TimeoutError(), "timeout"),
        (ConnectionRefusedError(), "refused"),
        (ssl.SSLError("handshake"), "tls"),
        (ssl.SSLCertVerificationError("expired"), "tls"),
        (socket.gaierror(socket.EAI_NONAME, "unknown"), "dns"),
        (PermissionError(), "noperm"),
        (ConnectionResetError(), "unreachable"),
        (BrokenPipeError(), "unreachable"),
        (OSError(errno.EHOSTUNREACH, "no route"), "unreachable"),
        (OSError(errno.ENETUNREACH, "no route"), "unreachable"),
        (OSError(errno.EIO, "broken disk"), "os"),
        (FileNotFoundError(errno.ENOENT, "gone"), "os"),
        (ValueError("defect"), "internal"),
        (SystemExit(1), "internal"),
        (raised_from(RuntimeError("client"), ConnectionRefusedError()), "refused"),
        (raised_while(RuntimeError("client"), TimeoutError()), "timeout"),
        (raised_while(KeyError("defect"), ConnectionRefusedError()), "internal"),
        (raised_while(AttributeError("defect"), TargetError("auth", "no")), "internal"),
        (raised_from(TypeError("client"), ConnectionRefusedError()), "refused"),
        (raised_from(OSError(errno.EIO, "x"), ValueError()), "os"),
        (raised_from(TargetError("auth", "no"), ConnectionRefusedError()), "auth"),
    ],
    ids=repr,
)
def test_reason_of_an_error(error: BaseException, expected: str) -> None:
    """The reason comes from the error or its causes, and is one of the fixed set."""
    assert reason_of(error) == expected
    assert expected in REASONS


def test_reason_of_errors_that_cause_each_other() -> None:
    """A cycle of causes ends."""
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one

    assert reason_of(one) == "internal"


def test_text_of_an_error() -> None:
    """The text is that of the error, or a fixed one if its class raises."""

    class Mute(Exception):  # noqa: N818
        def __str__(self) -> str:
            raise RuntimeError

    assert text_of(ValueError("words")) == "words"
    assert text_of(Mute()) == "an error whose text cannot be read"


@pytest.mark.parametrize(
    ("problem", "expected"),
    [
        (
            Problem("c.yaml", 7, "collectors.x[0].url", "is missing"),
            "c.yaml:7: collectors.x[0].url: is missing",
        ),
        (Problem("c.yaml", 7, "", "not YAML"), "c.yaml:7: not YAML"),
        (Problem("c.yaml", None, "", "cannot be read"), "c.yaml: cannot be read"),
        (
            Problem("built-in settings", None, "collectors.x", "no"),
            "built-in settings: collectors.x: no",
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else "",
)
def test_problem_as_text(problem: Problem, expected: str) -> None:
    """A problem is shown as `file:line: path: message`."""
    assert str(problem) == expected


def test_config_error_holds_every_problem() -> None:
    """The text of a ConfigError has a line for each problem."""
    problems = [Problem("c", 1, "a", "x"), Problem("c", 2, "b", "y")]

    error = ConfigError(problems)

    assert error.problems == problems
    assert str(error) == "c:1: a: x\nc:2: b: y"


def test_reasons_are_bounded() -> None:
    """The label `reason` has these values and no others: dashboards and alerts name them."""
    assert REASONS == (
        "auth",
        "busy",
        "conflict",
        "dns",
        "internal",
        "invalid_sample",
        "limited",
        "loading",
        "noperm",
        "os",
        "protocol",
        "refused",
        "timeout",
        "tls",
        "unreachable",
        "unusable",
    )


def test_absence_is_no_target_error() -> None:
    """`NotPresent` is not a TargetError."""
    assert not issubclass(NotPresent, TargetError)
