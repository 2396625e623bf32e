"""The command line: flags as exporters have them, and the only sys.exit."""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import takewhile
from typing import NoReturn

import bts_exporter
from bts_exporter import commands, logs, sd_notify
from bts_exporter.errors import ConfigError, ExporterError
from bts_exporter.printable import printable
from bts_exporter.service import Options, Service

_EPILOG = """\
Settings are looked for in ./config.yaml, unless other users can write it, and in
/etc/bts-exporter/config.yaml when --config.file does not name them; without any, this host and the brokers on it are served. SIGHUP loads them anew.
Collectors may have commands of their own, such as mqtt-test: `bts-exporter collectors` lists them.
"""

#: A command of a collector type: the type, a dash, the command.
_OF_TYPE = re.compile(r"\w+-[\w-]+")

#: How long Python may take to exit once the service has stopped.
_EXIT_SECONDS = 1.0


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line `argv`; exit code 0, 1 for what went wrong, 2 for a wrong command line."""
    try:
        code = _run(sys.argv[1:] if argv is None else argv)
        print(end="", flush=True)  # nothing where there is no standard output
        sys.exit(code)
    except ConfigError as error:
        for problem in error.problems:
            print(printable(str(problem), lines=True), file=sys.stderr)
        sys.exit(1)
    except ExporterError as error:
        print(f"bts-exporter: {printable(str(error), lines=True)}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        # The reader of our output has seen enough; Python's own exit would complain once more.
        sys.stdout = None
        sys.exit(0)
    except OSError as error:  # such as a full disk behind our output
        print(f"bts-exporter: {printable(str(error))}", file=sys.stderr)
        sys.stdout = None
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _run(argv: Sequence[str]) -> int:
    found = _found_in_types(argv)
    arguments = _parser(found).parse_args(argv)
    level = arguments.log_level or ("info" if arguments.command is None else "error")
    logs.set_up(level, arguments.log_format)
    options = Options(
        config_file=arguments.config_file,
        addresses=tuple(arguments.listen_address or [":19100"]),
        telemetry_path=arguments.telemetry_path,
        max_requests=arguments.max_requests,
        own_metrics=not arguments.disable_exporter_metrics,
        lifecycle=arguments.enable_lifecycle,
    )
    if found is not None and arguments.command == found.name:
        return commands.of_type(options, found, arguments.arguments)
    return _COMMANDS[arguments.command](options, arguments)


def _found_in_types(argv: Sequence[str]) -> commands.Found | None:
    """Return the command of a collector type that is asked for, if one is."""
    before_ours = takewhile(lambda word: word not in _COMMANDS, argv)
    words = [word for word in before_ours if _OF_TYPE.fullmatch(word)]
    if not words:
        return None
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    _add_common_flags(parser, default=None)
    try:
        known, _ = parser.parse_known_args(argv)
    except argparse.ArgumentError:
        return None  # the parser of everything says it better
    return commands.find_in_types(known.config_file, words)


def _serve(options: Options, _: argparse.Namespace) -> int:
    Service(options).run(sd_notify.sockets())
    # Python waits for the threads of a plug-in's pools before it exits, and one may hang.
    last_resort = threading.Timer(_EXIT_SECONDS, os._exit, (0,))
    last_resort.daemon = True
    with suppress(RuntimeError):  # no thread left
        last_resort.start()
    return 0


_COMMANDS: dict[str | None, Callable[[Options, argparse.Namespace], int]] = {
    None: _serve,
    "check": lambda options, a: commands.check(options, connect=a.connect),
    "once": lambda options, a: commands.once(options, collect=a.collect, exclude=a.exclude),
    "push": lambda options, a: commands.push(options, a.url, a.job),
    "collectors": lambda options, _: commands.collectors(options),
    "metrics": lambda options, a: commands.metrics(options, a.format),
}


def _parser(found: commands.Found | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bts-exporter",
        description="Serves this host's and its brokers' metrics to Prometheus.",
        epilog=_EPILOG,
        allow_abbrev=False,
    )
    version = f"bts-exporter {bts_exporter.__version__} (Python {platform.python_version()})"
    parser.add_argument("--version", action="version", version=version)
    _add_common_flags(parser, default=None)
    _add_web_flags(parser)
    commands_ = parser.add_subparsers(dest="command", title="commands (without one, it serves)")
    check = _command(commands_, "check", "check the settings; exit code 0 or 1")
    check.add_argument(
        "--connect", action="store_true", help="collect once too, and name the targets that fail"
    )
    once = _command(commands_, "once", "collect once and print the metrics")
    once.add_argument("--collect", action="append", default=[], metavar="NAME")
    once.add_argument("--exclude", action="append", default=[], metavar="NAME")
    push = _command(commands_, "push", "collect once and push the metrics to a Pushgateway")
    push.add_argument("--url", required=True, help="address of the Pushgateway")
    push.add_argument("--job", required=True, help="value of the label job")
    _command(commands_, "collectors", "list the collector types, where from, and what is broken")
    metrics = _command(commands_, "metrics", "list every metric that can be served")
    metrics.add_argument("--format", choices=["table", "markdown", "json"], default="table")
    if found is not None:
        of_type = _command(commands_, found.name, found.command.help)
        for name, text in found.command.arguments.items():
            of_type.add_argument("arguments", action="append", metavar=name, help=text)
    return parser


def _command(
    commands_: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str
) -> argparse.ArgumentParser:
    command = commands_.add_parser(name, help=text, description=text, allow_abbrev=False)
    # Accepted before and after the command; after it, absence must not undo what stood before.
    _add_common_flags(command, default=argparse.SUPPRESS)
    return command


def _add_common_flags(parser: argparse.ArgumentParser, *, default: str | None) -> None:
    parser.add_argument(
        "--config.file", dest="config_file", metavar="FILE", default=default, help="the settings"
    )
    parser.add_argument(
        "--log.level",
        dest="log_level",
        choices=logs.LEVELS,
        default=default,
        help="least severity that is logged (default info; error for the commands)",
    )
    parser.add_argument(
        "--log.format",
        dest="log_format",
        choices=["logfmt", "json"],
        default=default or "logfmt",
        help="form of the log lines",
    )


def _add_web_flags(parser: argparse.ArgumentParser) -> None:
    web = parser.add_argument_group("serving")
    web.add_argument(
        "--web.listen-address",
        dest="listen_address",
        action="append",
        metavar="[HOST]:PORT",
        help="where to listen; repeatable (default :19100)",
    )
    web.add_argument(
        "--web.telemetry-path",
        dest="telemetry_path",
        metavar="PATH",
        type=_absolute,
        default="/metrics",
        help="path of the metrics (default /metrics)",
    )
    web.add_argument(
        "--web.max-requests",
        dest="max_requests",
        type=_count,
        metavar="N",
        default=40,
        help="scrapes under way at most, those that share one counted once; 0: no bound (default 40)",
    )
    web.add_argument(
        "--web.disable-exporter-metrics",
        dest="disable_exporter_metrics",
        action="store_true",
        help="leave out the process's and the HTTP server's own metrics",
    )
    web.add_argument(
        "--web.enable-lifecycle",
        dest="enable_lifecycle",
        action="store_true",
        help="allow POST /-/reload",
    )


def _count(text: str) -> int:
    if not text.isdecimal():
        msg = f"a whole number, not negative, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def _absolute(path: str) -> str:
    if not path.startswith("/") or path == "/":
        msg = f"a path such as /metrics, got {path!r}"
        raise argparse.ArgumentTypeError(msg)
    return path
