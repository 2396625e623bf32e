"""All errors of the engine, in one file to avoid import loops."""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, get_args

#: Why a collection failed, as the value of the `reason` label: bounded, since error texts must not become labels.
Reason = Literal[
    "auth",  # the target refused our credentials
    "busy",  # the collection before this one is still running
    "conflict",  # another collector serves the same metric or series
    "dns",  # the target's name does not resolve
    "internal",  # an error in the collector's code
    "invalid_sample",  # wrong labels, a duplicate, or a value that is not a number
    "limited",  # series were dropped because of max_series
    "loading",  # the target is starting
    "noperm",  # logged in, but a permission is missing
    "os",  # any other error of the operating system
    "protocol",  # the target sent an unexpected reply
    "refused",  # connection refused
    "timeout",  # no answer by the deadline
    "tls",  # TLS handshake or certificate
    "unreachable",  # no route, or the connection broke
    "unusable",  # the collector could not be created
]
#: Code of generators and coroutines: inspect's CO_GENERATOR, CO_COROUTINE and CO_ASYNC_GENERATOR.
_SUSPENDABLE = 0x20 | 0x80 | 0x200
REASONS: tuple[Reason, ...] = get_args(Reason)
#: Problems in the settings that are printed or logged one by one.
MAX_LISTED = 20
_LONGEST_LINE = 2000
#: Errors that code raises on its own mistakes.
_DEFECTS = (ArithmeticError, AssertionError, AttributeError, LookupError, NameError, TypeError)


class ExporterError(Exception):
    """Base of every error that this package raises on purpose."""


class Problem(NamedTuple):
    """A problem in the settings, and its location."""

    file: str
    line: int | None  # counted from 1; None for what has no line, such as a missing file
    path: str  # such as collectors.redis[0].url
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.path}: {self.message}" if self.path else f"{place}: {self.message}"


def listed(problems: Sequence[Problem]) -> list[str]:
    """Return a line for each of the first problems, and one with the number of the others.

    A generated file can have thousands, and a value in a message can be long.
    """
    lines = [_cut(str(problem)) for problem in problems[:MAX_LISTED]]
    if len(problems) > MAX_LISTED:
        lines.append(f"and {len(problems) - MAX_LISTED} more problems")
    return lines


def _cut(line: str) -> str:
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}..."


class ConfigError(ExporterError):
    """Raised when settings are invalid; has all problems that were found, and the first ones as its text."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(listed(problems)))
        self.problems = problems


class PluginError(ExporterError):
    """Raised when a collector type cannot be loaded or violates the contract."""


class ServeError(ExporterError):
    """Raised when the exporter cannot listen on its address."""


class OutputError(ExporterError):
    """Raised when a command needs standard output, and it is closed."""


class PushError(ExporterError):
    """Raised when metrics cannot be pushed."""


class StateError(ExporterError):
    """Raised when a stored state cannot be read or written, with the reason."""


class SelectionError(ExporterError):
    """Raised when a request asks for collectors or targets that are not configured."""


class NotPresent(ExporterError):  # noqa: N818  # not an error: the collection succeeds
    """Raised by a collector whose source is absent on this machine: no failure, no series."""


class TargetError(ExporterError):
    """Raised by a collector that knows why it cannot read its target."""

    #: For subclasses that do not call our `__init__`.
    reason: Reason = "internal"

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class DeadlineExceeded(ExporterError):  # noqa: N818  # the usual term
    """Raised by `emit` once the scrape is over, so that a late collection ends itself."""


def text_of(error: BaseException) -> str:
    """Return the text of `error`, even if its class raises."""
    try:
        return "".join([str(error)])  # a copy: str() may return an object of a subclass
    except BaseException:  # noqa: BLE001  # a plug-in's class
        return "an error whose text cannot be read"


def reason_of(error: BaseException) -> Reason:
    """Return the bounded reason of `error`, from it or from what caused it."""
    try:
        return _reason_of_chain(error)
    except BaseException:  # noqa: BLE001  # a plug-in's class
        return "internal"


def _reason_of_chain(error: BaseException) -> Reason:
    for link in _chain(error):
        reason = _reason_of_one(link)
        if reason is not None:
            return reason
        if isinstance(link, _DEFECTS) and _slot(link, "__cause__") is None:
            return "internal"  # whatever error of the target was being handled
    return "os" if isinstance(error, OSError) else "internal"


def one_line(message: str) -> str:
    """Return `message` in one line, cut to 500 characters."""
    return " ".join(message.split())[:500]


def place_of(error: BaseException) -> str:
    """Return where in a plug-in's code `error` was raised, as ` (file:line)`.

    That is the innermost line outside of the engine and the standard library, if there is one.
    """
    file, line = _last_line(error, _is_foreign) or _last_line(error, bool) or ("", 0)
    return f" ({Path(file).name}:{line})" if file else ""


def _is_foreign(module: str) -> bool:
    return module != "bts_exporter" and module not in sys.stdlib_module_names


def line_in(package: str, error: BaseException) -> str:
    """Return the last line of code in a top-level package that `error` came through, as ` (path:line)`.

    Empty if it came through none.
    """
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return f" ({error.filename}:{error.lineno})"
    file, line = _last_line(error, package.__eq__) or ("", 0)
    return f" ({file}:{line})" if file else ""


def words_of(error: BaseException) -> str:
    """Return the type and the text of `error`; of a syntax error without its place."""
    text = error.msg if type(error) is SyntaxError else text_of(error)
    return f"{type(error).__name__}: {text}"


def _last_line(error: BaseException, counts: Callable[[str], bool]) -> tuple[str, int] | None:
    """Return file and line of the innermost frame of `error` in a top-level package that `counts`."""
    found = None
    trace: TracebackType | None = _slot(error, "__traceback__")
    while trace is not None:
        module = str(trace.tb_frame.f_globals.get("__name__"))
        if counts(module.partition(".")[0]):
            found = trace.tb_frame.f_code.co_filename, trace.tb_lineno
        trace = trace.tb_next
    return found


def forget_frames(error: BaseException) -> None:
    """Clear the frames that `error`, and what caused it, was raised in, and detach it from them.

    A frame keeps the data of the code that raised, and something may keep the error: the collector,
    or a cycle that is collected much later.
    """
    todo, seen = [error], set()
    while todo:
        for link in _chain(todo.pop()):
            if id(link) not in seen:
                seen.add(id(link))
                _clear_frames(_slot(link, "__traceback__"))
                BaseException.with_traceback(link, None)
                todo += _others(link)


def _clear_frames(trace: TracebackType | None) -> None:
    while trace is not None:
        frame = trace.tb_frame
        # Clearing a generator's frame would close it, and it may still be in use.
        if not frame.f_code.co_flags & _SUSPENDABLE:
            with suppress(RuntimeError):  # it is being executed
                frame.clear()
        trace = trace.tb_next


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield `error`, what it was raised from or while handling, and so on."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        cause = _slot(link, "__cause__")
        link = cause if cause is not None else _slot(link, "__context__")


def _others(error: BaseException) -> list[BaseException]:
    """Return the errors behind `error` that are not in its chain."""
    found = [] if _slot(error, "__context__") is None else [_slot(error, "__context__")]
    if issubclass(type(error), BaseExceptionGroup):  # what its own code says of its class may raise
        found += _slot(error, "exceptions", BaseExceptionGroup)
    return found


def _slot(error: BaseException, name: str, owner: type[BaseException] = BaseException) -> Any:
    # Of the base class: a plug-in's class may define a property of this name.
    return vars(owner)[name].__get__(error)


def _reason_of_one(error: BaseException) -> Reason | None:
    match error:
        case TargetError():
            return error.reason if error.reason in REASONS else "internal"
        case DeadlineExceeded() | TimeoutError():
            return "timeout"
        case ConnectionRefusedError():
            return "refused"
        case OSError() if _is_tls(error):
            return "tls"
        case socket.gaierror():
            return "dns"
        case PermissionError():
            return "noperm"
        case ConnectionError():
            return "unreachable"
        case OSError(errno=errno.EHOSTUNREACH | errno.ENETUNREACH | errno.ENETDOWN):
            return "unreachable"
        case _:
            return None


def _is_tls(error: OSError) -> bool:
    # OpenSSL takes 5 MB: it is imported already if one of its errors was raised.
    ssl = sys.modules.get("ssl")
    return ssl is not None and isinstance(error, ssl.SSLError)
