"""The command line: what each command calls, and the only sys.exit."""

from __future__ import annotations

import argparse
import os
import re
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import takewhile
from typing import NoReturn

from bts_exporter import commands, logs, sd_notify
from bts_exporter.errors import ConfigError, ExporterError
from bts_exporter.flags import TLS_FLAGS, add_common_flags, build_parser
from bts_exporter.printable import printable
from bts_exporter.push.options import Protocol, PushOptions
from bts_exporter.service import Options, Service
from bts_exporter.settings.tls import TLSConfig

#: A command of a collector type: the type, a dash, the command.
_OF_TYPE = re.compile(r"\w+-[\w-]+")

#: How long Python may take to exit once the command has ended.
_EXIT_SECONDS = 0.5


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line `argv`; exit with 0, 1 on failure, 2 for an invalid command line.

    Without `argv` it is the program's own, and the process ends whatever threads are left.
    """
    _open_standard_files()
    code = _exit_code(sys.argv[1:] if argv is None else argv)
    if argv is None:
        _exit_soon(code)
    sys.exit(code)


def _exit_code(argv: Sequence[str]) -> int:
    """Run a command line, and report its error."""
    try:
        code = _run(argv)
        print(end="", flush=True)  # nothing where there is no standard output
    except ConfigError as error:
        print(printable(str(error), lines=True), file=sys.stderr)
        return 1
    except ExporterError as error:
        print(f"bts-exporter: {printable(str(error), lines=True)}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader of our output is gone; at exit Python would report that again.
        sys.stdout = None
        return 0
    except OSError as error:  # such as a full disk
        print(f"bts-exporter: {printable(str(error))}", file=sys.stderr)
        sys.stdout = None
        return 1
    except KeyboardInterrupt:
        return 130
    return code


def _open_standard_files() -> None:
    """Open /dev/null for each standard file that is closed, or a socket could take its number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stdin is None:  # closed when Python started
        sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)


def _run(argv: Sequence[str]) -> int:
    found = _found_in_types(argv)
    arguments = build_parser(found).parse_args(argv)
    runs_on = arguments.command is None or getattr(arguments, "every", None) is not None
    level = arguments.log_level or ("info" if runs_on else "error")
    logs.set_up(level, arguments.log_format)
    options = Options(
        config_file=arguments.config_file,
        addresses=tuple(arguments.listen_address or [":19100"]),
        telemetry_path=arguments.telemetry_path,
        max_requests=arguments.max_requests,
        own_metrics=not arguments.disable_exporter_metrics,
        auto_reload=arguments.auto_reload,
        lifecycle=arguments.enable_lifecycle,
        web_config_file=arguments.web_config_file,
        api=not arguments.disable_api,
        background_scrape=not arguments.disable_background_scrape,
    )
    if found is not None and arguments.command == found.name:
        return commands.of_type(options, found, arguments.arguments)
    return _COMMANDS[arguments.command](options, arguments)


def _found_in_types(argv: Sequence[str]) -> commands.Found | None:
    """Return the collector type's command that the command line names, if any."""
    before_ours = takewhile(lambda word: word not in _COMMANDS, argv)
    words = [word for word in before_ours if _OF_TYPE.fullmatch(word)]
    if not words:
        return None
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    add_common_flags(parser, default=None)
    try:
        known, _ = parser.parse_known_args(argv)
    except argparse.ArgumentError:
        return None  # the complete parser reports it
    return commands.find_in_types(known.config_file, words)


def _serve(options: Options, _: argparse.Namespace) -> int:
    Service(options).run(sd_notify.sockets())
    return 0


def _push(options: Options, arguments: argparse.Namespace) -> int:
    return commands.push(options, _push_options(arguments))


def _exit_soon(code: int) -> None:
    """End the process soon, whatever threads are left."""
    # Python waits for the threads that a plug-in started, also at its import, and one may never end.
    last_resort = threading.Timer(_EXIT_SECONDS, os._exit, (code,))
    last_resort.daemon = True
    with suppress(RuntimeError):  # no thread left
        last_resort.start()


def _hash_password(cost: int) -> int:
    from bts_exporter.password_hash import hash_password  # noqa: PLC0415  # bcrypt and getpass

    return hash_password(cost)


def _lag(options: Options, a: argparse.Namespace) -> int:
    from bts_exporter import lag_command  # noqa: PLC0415  # an HTTP client

    names = ("target", "system", "destination", "group")
    try:
        tls = TLSConfig(**{name: getattr(a, name) for name in TLS_FLAGS})
        if a.url is not None:
            tls.require_used_by(a.url, schemes=["https"])
        _require_url(a, tls)
    except ValueError as error:
        print(f"bts-exporter lag: {printable(str(error))}", file=sys.stderr)
        return 2
    request = lag_command.LagRequest(
        url=a.url,
        password_file=a.password_file,
        tls=tls,
        wanted={name: value for name in names if (value := getattr(a, name)) is not None},
        max_seconds=a.max,
        watch=a.watch,
        as_json=a.json,
    )
    return lag_command.run(options, request)


def _require_url(a: argparse.Namespace, tls: TLSConfig) -> None:
    """Raise ValueError if TLS or a password is given and it is not said for which exporter."""
    if a.password_file is not None and (a.url is None or a.url.username is None):
        msg = "--password-file needs a user in --url, such as https://USER@HOST:19100"
        raise ValueError(msg)
    if a.url is None and tls != TLSConfig():
        msg = "--tls.* needs an address in --url, such as https://HOST:19100"
        raise ValueError(msg)


def _run_collector(arguments: argparse.Namespace) -> int:
    from bts_exporter.run_collector import run, watch  # noqa: PLC0415  # of this command only

    return (watch if arguments.watch else run)(arguments.file, arguments.settings)


def _new_collector(arguments: argparse.Namespace) -> int:
    from bts_exporter.new_collector import create  # noqa: PLC0415  # of this command only

    return create(arguments.name, package=arguments.package)


_COMMANDS: dict[str | None, Callable[[Options, argparse.Namespace], int]] = {
    None: _serve,
    "check": lambda options, a: commands.check(options, connect=a.connect),
    "once": lambda options, a: commands.once(options, collect=a.collect, exclude=a.exclude),
    "push": _push,
    "config": lambda options, a: commands.config(options, a.type),
    "schema": lambda options, _: commands.schema(options),
    "collectors": lambda options, a: commands.collectors(options, verbose=a.verbose),
    "run-collector": lambda _, a: _run_collector(a),
    "new-collector": lambda _, a: _new_collector(a),
    "hash-password": lambda _, a: _hash_password(a.cost),
    "targets": lambda _, a: commands.targets(a.inventory, a.output),
    "metrics": lambda options, a: commands.metrics(options, a.format, a.glob),
    "lag": _lag,
}


def _push_options(arguments: argparse.Namespace) -> PushOptions:
    return PushOptions(
        url=arguments.url,
        job=arguments.job,
        instance=arguments.instance,
        protocol=arguments.protocol and Protocol(arguments.protocol),
        every=arguments.every,
        http_config_file=arguments.http_config_file,
        buffer_bytes=arguments.buffer_size,
        buffer_age=arguments.buffer_age,
    )
