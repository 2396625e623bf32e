"""Every error of the engine, in one file to avoid import loops."""

from __future__ import annotations

import errno
import socket
import sys
from typing import Literal, NamedTuple, get_args

#: Why a collection failed, as the value of the `reason` label: bounded, so that no error text becomes a label.
Reason = Literal[
    "auth",  # the target refused our credentials
    "busy",  # the collection before this one is still running
    "conflict",  # another collector already serves this name, or this series
    "dns",  # the target's name does not resolve
    "internal",  # a defect of the collector
    "invalid_sample",  # a sample with wrong labels, a repeated one, or no number
    "limited",  # series were dropped because of max_series
    "loading",  # the target is up but not ready to answer yet
    "noperm",  # credentials fine, permission missing
    "os",  # any other error of the operating system
    "protocol",  # the target answers, but not what was expected
    "refused",  # nothing listens there
    "timeout",  # no answer by the deadline
    "tls",  # no TLS connection
    "unreachable",  # no route, or the connection broke
    "unusable",  # the collector's code or settings cannot be used: it could not be made
]
REASONS: tuple[Reason, ...] = get_args(Reason)


class ExporterError(Exception):
    """Base of every error that this package raises on purpose."""


class Problem(NamedTuple):
    """One thing wrong with the settings, and where it is."""

    file: str
    line: int | None  # counted from 1; None for what has no line, such as a missing file
    path: str  # such as collectors.redis[0].url
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.path}: {self.message}" if self.path else f"{place}: {self.message}"


class ConfigError(ExporterError):
    """Raised when settings cannot be used; holds every problem found, not the first alone."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


class PluginError(ExporterError):
    """Raised when a collector type cannot be loaded or does not keep the contract."""


class ServeError(ExporterError):
    """Raised when the exporter cannot listen where it was told to."""


class PushError(ExporterError):
    """Raised when a Pushgateway does not take the metrics."""


class SelectionError(ExporterError):
    """Raised when a request asks for collectors or targets that are not configured."""


class NothingToRead(ExporterError):  # noqa: N818  # the contract's word: it is no failure
    """Raised by a collector whose source is absent on this machine: no failure, no series."""


class TargetError(ExporterError):
    """Raised by a collector that knows why its target gives no answer."""

    #: For subclasses that do not call our `__init__`.
    reason: Reason = "internal"

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class DeadlineExceeded(ExporterError):  # noqa: N818  # named as the field names it
    """Raised by `emit` once the scrape is over, so that a late collection ends itself."""


def text_of(error: BaseException) -> str:
    """Return what `error` says, whatever the code of its own class does."""
    try:
        return str(error)
    except BaseException:  # noqa: BLE001  # a plug-in's class
        return "an error without words"


def reason_of(error: BaseException) -> Reason:
    """Return the bounded reason of `error`, from it or from what caused it."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        reason = _reason_of_one(link)
        if reason is not None:
            return reason
        link = link.__cause__ or link.__context__
    return "os" if isinstance(error, OSError) else "internal"


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
    # OpenSSL takes 5 MB: whoever raises its errors has it already, and nobody else needs it.
    ssl = sys.modules.get("ssl")
    return ssl is not None and isinstance(error, ssl.SSLError)
