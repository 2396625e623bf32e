"""The command `lag`: which consumers are late, as a table, as JSON, or as an exit status."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, Protocol
from urllib.parse import urlencode

import msgspec

from bts_exporter import logs
from bts_exporter.connection_errors import Product
from bts_exporter.errors import ExporterError, TargetError
from bts_exporter.http_client import HttpClient
from bts_exporter.http_response import HttpResponse
from bts_exporter.lag_report import (
    VERSION,
    CollectorState,
    Destination,
    LagReport,
    matching,
    reports_lag,
)
from bts_exporter.lag_table import collector_name, duration, lag, name_of, table
from bts_exporter.printable import on_terminal, printable
from bts_exporter.service import Options, Service
from bts_exporter.settings.loader import SEARCH
from bts_exporter.settings.tls import TLSConfig
from bts_exporter.settings.value_types import Secret, Url

#: Exit statuses. Those of an invalid command line (2) and of a late destination are not the same.
FINE, LATE, UNKNOWN = 0, 1, 3

#: Seconds between two readings of our own, for rates; RabbitMQ's counts come in steps of 5 s.
_BETWEEN_READINGS = 10.0
#: Seconds between two tables of --watch.
_WATCH_SECONDS = 5.0
#: Seconds that an exporter has for its scrape, and that its answer may take.
_SCRAPE_SECONDS = 10
_ANSWER_SECONDS = 12.0
#: How many destinations or collectors are named on standard error.
_MOST_NAMED = 10
_SETTINGS_OF_THE_SERVICE = SEARCH[-1]
_CLEAR = "\x1b[H\x1b[2J"
_WITHOUT_HISTORY = (
    "reading the brokers directly; ages that need a history are not known yet"
    " (--url asks a running exporter, which has one)"
)
_ALL_DESTINATIONS = (
    "without these options, all are listed; a new key of Redis is found within a minute"
)
_PRODUCT = Product("bts-exporter", tls="--tls")
_OK, _NOT_FOUND = 200, 404
_WILDCARDS = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104  # not listened on


@dataclass(frozen=True, kw_only=True)
class LagRequest:
    """What the command line asks for."""

    #: The exporter to ask; None for the one on this machine, or this process if there is none.
    url: Url | None = None
    password_file: str | None = None
    tls: TLSConfig = field(default_factory=TLSConfig)
    #: Values of target, system, destination and group.
    wanted: dict[str, str] = field(default_factory=dict)
    max_seconds: float | None = None
    watch: bool = False
    as_json: bool = False


class _NotFound(msgspec.Struct):
    """The answer of an exporter that has no such destination."""

    error: str
    collectors: list[CollectorState]


class _Source(Protocol):
    """Where reports come from."""

    #: As it is shown.
    name: str

    def read(self) -> LagReport:
        """Return the destinations that are wanted; ExporterError if they cannot be read."""

    def close(self) -> None:
        """End connections."""


class _RunningExporter:
    """An exporter that is asked over HTTP."""

    def __init__(self, url: Url, request: LagRequest) -> None:
        self.name = str(url)
        password = Secret(_password(request.password_file)) if request.password_file else None
        headers = {"X-Prometheus-Scrape-Timeout-Seconds": str(_SCRAPE_SECONDS)}
        self._client = HttpClient(
            _PRODUCT, url, password=password, tls=request.tls, headers=headers
        )
        self._path = f"/api/lag?{urlencode(request.wanted)}".removesuffix("?")

    def read(self) -> LagReport:
        response = self._client.get(self._path, _ANSWER_SECONDS)
        try:
            if response.status == _OK:
                report = msgspec.json.decode(response.body, type=LagReport)
                if report.version == VERSION:
                    return report
            if response.status == _NOT_FOUND:
                found = msgspec.json.decode(response.body, type=_NotFound)
                return LagReport(time=time.time(), destinations=[], collectors=found.collectors)
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass
        raise _unexpected(response)

    def close(self) -> None:
        self._client.close()


class _OwnCollectors:
    """The brokers, read by this process."""

    name = "this process"

    def __init__(self, options: Options, request: LagRequest) -> None:
        self._wanted = request.wanted
        self._service = Service(options)
        self._service.start_collectors()

    def read(self) -> LagReport:
        exporter = self._service.exporter
        target = self._wanted.get("target")
        runners = [
            runner
            for runner in exporter.collectors.runners
            if reports_lag(runner) and target in {None, runner.target}
        ]
        report = exporter.lag_report(runners)
        return msgspec.structs.replace(report, destinations=matching(report, self._wanted))

    def close(self) -> None:
        self._service.stop_collectors()


def run(options: Options, request: LagRequest) -> int:
    """Print the lag of the wanted destinations; return FINE, LATE or UNKNOWN."""
    with logs.quiet():  # each failure is printed
        try:
            source, first = _first_report(options, request)
            with closing(source):
                if request.watch:
                    _watch(source, first, as_json=request.as_json)
                return _once(source, first, request)
        except ExporterError as error:
            _warn(f"bts-exporter: {error}")
            return UNKNOWN


def _first_report(options: Options, request: LagRequest) -> tuple[_Source, LagReport]:
    """Return where reports come from, and the first one: a running exporter, or this process."""
    if request.url is not None:
        return _read(_RunningExporter(request.url, request))
    if _asks_by_default(options):
        try:
            return _read(_RunningExporter(_local(options), request))
        except (TargetError, ValueError) as error:  # it need not be an address
            _warn(f"note: {error}")
    source = _OwnCollectors(options, request)
    _warn(f"note: {_WITHOUT_HISTORY}")
    return _read(source)


def _read(source: _Source) -> tuple[_Source, LagReport]:
    try:
        return source, source.read()
    except ExporterError:
        source.close()
        raise


def _once(source: _Source, report: LagReport, request: LagRequest) -> int:
    if isinstance(source, _OwnCollectors) and request.max_seconds is None:
        _warn(f"note: reading again in {_BETWEEN_READINGS:.0f} s, for rates")
        time.sleep(_BETWEEN_READINGS)
        report = source.read()
    elif request.url is None and request.max_seconds is None and not request.as_json:
        _warn(f"note: answered by the exporter at {source.name}")
    status, remarks = verdict(report, request.max_seconds, request.wanted)
    lines = _json(report) if request.as_json else table(report, width=_terminal_width())
    try:
        _print(lines)
    except BrokenPipeError:  # the reader has enough; the status is for another one
        sys.stdout = None
    except OSError as error:
        _warn(f"bts-exporter: {error}")
        sys.stdout = None
        status = status or UNKNOWN
    for remark in remarks:
        _warn(remark)
    return status


def _watch(source: _Source, report: LagReport, *, as_json: bool) -> NoReturn:
    """Print again and again, until interrupted; the last table stays while there is no newer one."""
    problem = ""
    while True:
        if not as_json:
            _print(_screen(source.name, report, problem))
        elif not problem:
            _print(_json(report, indent=-1))
        time.sleep(_WATCH_SECONDS)
        try:
            report, problem = source.read(), ""
        except ExporterError as error:
            problem = f"not current: {printable(str(error))}"


def _screen(name: str, report: LagReport, problem: str) -> list[str]:
    """Return the lines of one table of --watch, as many as the terminal has; failures are never left out."""
    width = _terminal_width()
    moment = time.strftime("%H:%M:%S", time.localtime(report.time))
    lines = [f"{name}  {moment}", *filter(None, [problem]), *_failing(report.collectors), ""]
    rows = table(report, width=width)
    if width is None:
        return [*lines, *rows, ""]
    taken = sum(1 + len(line) // width for line in lines)
    room = max(shutil.get_terminal_size().lines - taken - 2, 1)
    if len(rows) > room:
        rows[room:] = [f"and {len(rows) - room} more"]
    lines[0] = f"{_CLEAR}{lines[0]}"
    return [*lines, *rows]


def verdict(
    report: LagReport, max_seconds: float | None, wanted: dict[str, str]
) -> tuple[int, list[str]]:
    """Return the exit status, and why it is not FINE: one that is late counts more than one unknown."""
    remarks = _failing(report.collectors)
    if not report.destinations and wanted:
        remarks.append(_not_found(wanted, may_exist=bool(remarks)))
    elif not (report.destinations or any(it.success and not it.absent for it in report.collectors)):
        remarks.append(f"unknown: no target answered{_not_there(report.collectors)}")
    if max_seconds is None:
        return UNKNOWN if remarks else FINE, remarks
    late, unknown = _later(report, max_seconds)
    limit = duration(max_seconds)
    remarks += _named("unknown", unknown, f"may be more than {limit}")
    remarks[:0] = _named("late", late, f"more than {limit}")
    return LATE if late else UNKNOWN if remarks else FINE, remarks


def _later(report: LagReport, max_seconds: float) -> tuple[list[Destination], list[Destination]]:
    """Return the destinations that are later, and those of which it is not known that they are not."""
    ages = {(it.collector, it.target): it.age_seconds or 0.0 for it in report.collectors}
    late: list[Destination] = []
    unknown: list[Destination] = []
    for row in report.destinations:
        age = ages.get((row.collector, row.target), 0.0)  # a lag that is old has grown
        if (row.lag_seconds or 0) > max_seconds:
            late.append(row)
        elif _may_be_later(row, max_seconds - age):
            unknown.append(row)
    return late, unknown


def _may_be_later(row: Destination, max_seconds: float) -> bool:
    """Return whether the lag can be more than `max_seconds` now."""
    if row.lag_seconds is None:
        return row.lag_is_unknown
    is_bound = row.lag_method == "lower_bound" and row.lag_seconds > 0
    return is_bound or row.lag_seconds > max_seconds


def _failing(states: Sequence[CollectorState]) -> list[str]:
    failing = [state for state in states if not state.success]
    return [f"failing: {collector_name(state)}: {printable(state.message)}" for state in failing]


def _not_found(wanted: dict[str, str], *, may_exist: bool) -> str:
    """Return that nothing matches; it may exist at a target that fails."""
    options = " ".join(f"--{key}={printable(value)}" for key, value in wanted.items())
    if may_exist:
        return f"unknown: no such destination at the targets that answered: {options}"
    return f"unknown: no such destination: {options}; {_ALL_DESTINATIONS}"


def _not_there(states: Sequence[CollectorState]) -> str:
    """Return which optional targets are absent, and where the reason is."""
    absent = [collector_name(state) for state in states if state.absent]
    if not absent:
        return ""
    return f"; optional, and not there: {', '.join(absent)} (bts-exporter check --connect says why)"


def _named(word: str, rows: Sequence[Destination], reason: str) -> list[str]:
    lines = [f"{word}: {name_of(row)}: {lag(row)}, {reason}" for row in rows[:_MOST_NAMED]]
    if len(rows) > _MOST_NAMED:
        lines.append(f"{word}: and {len(rows) - _MOST_NAMED} more")
    return lines


def _asks_by_default(options: Options) -> bool:
    """Return whether the exporter on this machine has the settings, as far as the command line says."""
    file = options.config_file
    is_named = options.addresses != Options().addresses
    return file is None or is_named or Path(os.path.realpath(file)) == _SETTINGS_OF_THE_SERVICE


def _local(options: Options) -> Url:
    """Return the address of an exporter on this machine with these options."""
    host, _, port = options.addresses[0].rpartition(":")
    return Url.from_setting(f"http://{_WILDCARDS.get(host, host)}:{port}")


def _password(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        message = f"--password-file {file} cannot be read: {error.strerror}; write the password to a file that this user can read"
    except UnicodeDecodeError:
        message = f"--password-file {file} is not text in UTF-8: write the password to it as text"
    raise TargetError("auth", message)  # noqa: EM101  # a reason


def _unexpected(response: HttpResponse) -> TargetError:
    """Return why an answer is no report."""
    advice = {
        401: "it needs a user and a password, and refuses wrong ones: check"
        " --url=https://USER@HOST:PORT and --password-file=FILE",
        404: "is it a bts-exporter, not an older one, and without --web.disable-api?",
        503: "it is too busy",
    }
    what = advice.get(response.status, "is it a bts-exporter of the same version?")
    message = f"bts-exporter at {response.address}: status {response.status}; {what}"
    return TargetError("protocol", message)


def _json(report: LagReport, *, indent: int = 2) -> list[str]:
    r"""Return the report as lines of JSON, one if `indent` is negative; what cannot be seen is an escape (\u)."""
    text = msgspec.json.format(msgspec.json.encode(report), indent=indent).decode()
    shown = (it if it.isprintable() or it == "\n" else json.dumps(it)[1:-1] for it in text)
    return "".join(shown).split("\n")


def _terminal_width() -> int | None:
    return shutil.get_terminal_size().columns if on_terminal() else None


def _print(lines: Sequence[str]) -> None:
    if sys.stdout is None:  # closed: the exit code is the answer
        return
    # Names that the terminal's encoding does not have are escaped.
    text = "\n".join(lines)
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)


def _warn(message: str) -> None:
    print(printable(message, lines=True), file=sys.stderr)
