"""Log lines for people and machines: logfmt or JSON, on standard error."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Literal

from bts_exporter.line_writer import LineWriter

log = logging.getLogger("bts_exporter.logs")

LogFormat = Literal["logfmt", "json"]
LEVELS = ("debug", "info", "warn", "error")

#: The attributes of every log record; all others are its details.
_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class Formatter(logging.Formatter):
    """Renders a record and its details as one line."""

    def __init__(self, style: LogFormat) -> None:
        super().__init__()
        self._render = _logfmt if style == "logfmt" else _json

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        moment = datetime.fromtimestamp(record.created, UTC)
        level = "warn" if record.levelno == logging.WARNING else record.levelname.lower()
        fields: dict[str, object] = {
            "ts": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": level,
            "msg": record.getMessage(),
        }
        for key, value in vars(record).items():
            if key not in _PLAIN:
                fields[key] = value if isinstance(value, int | float) else str(value)
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return self._render(fields)


def set_up(level: str, style: LogFormat) -> None:
    """Send the log lines of `level` (one of LEVELS) and above to standard error.

    What Python would write there by itself is logged, too: it would wait for the reader.
    """
    handler = _handler()
    handler.setFormatter(Formatter(style))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Libraries at debug would log every packet, passwords among them.
    root.setLevel(logging.WARNING)
    name = "WARNING" if level == "warn" else level.upper()
    logging.getLogger("bts_exporter").setLevel(name)
    logging.captureWarnings(capture=True)
    threading.excepthook = _log_end_of_thread
    sys.unraisablehook = _log_ignored_error


@contextmanager
def quiet() -> Iterator[None]:
    """Log nothing, unless the command line asks for more than errors."""
    before = logging.root.manager.disable
    if not logging.getLogger("bts_exporter").isEnabledFor(logging.WARNING):
        logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


def _log_end_of_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is not SystemExit and args.exc_value is not None:
        name = args.thread.name if args.thread else ""
        details = (args.exc_type, args.exc_value, args.exc_traceback)
        log.error("thread %s ended by an error", name, exc_info=details)


def _log_ignored_error(args: sys.UnraisableHookArgs) -> None:
    if args.exc_value is not None:
        details = (args.exc_type, args.exc_value, args.exc_traceback)
        log.error("an error was ignored, as none can be raised here", exc_info=details)


def _handler() -> logging.Handler:
    try:
        return LineWriter(sys.stderr.fileno())
    except (AttributeError, OSError):  # no file, no standard error, or no poll on this platform
        return logging.StreamHandler(sys.stderr)


def _logfmt(fields: dict[str, object]) -> str:
    return " ".join(f"{key}={_quoted(str(value))}" for key, value in fields.items())


def _quoted(value: str) -> str:
    plain = value and value.isprintable() and not set(value) & set(' "=')
    return value if plain else _dumped(value)


def _json(fields: dict[str, object]) -> str:
    return _dumped(fields)


def _dumped(value: object) -> str:
    # JSON leaves one control character as it is.
    return json.dumps(value).replace("\x7f", r"\u007f")
