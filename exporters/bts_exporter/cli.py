"""The command line: the usual flags of exporters, and the only sys.exit."""

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
from bts_exporter.push.options import Protocol, PushOptions
from bts_exporter.service import Options, Service
from bts_exporter.settings.value_types import Duration

_EPILOG = """\
Without --config.file, ./config.yaml is used unless other users can write it, then
/etc/bts-exporter/config.yaml. Without a configuration file, this host and the brokers on it are monitored.
SIGHUP reloads the configuration. Collectors may add commands, such as mqtt-test: `bts-exporter collectors` lists them.
"""

#: A command of a collector type: the type, a dash, the command.
_OF_TYPE = re.compile(r"\w+-[\w-]+")

#: A number of bytes.
_SIZE = re.compile(r"(\d{1,15})(KiB|MiB|GiB|)")
_UNITS = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}

#: How long Python may take to exit once the service has stopped.
_EXIT_SECONDS = 0.5


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line `argv`; exit with 0, 1 on failure, 2 for an invalid command line."""
    _open_standard_files()
    try:
        code = _run(sys.argv[1:] if argv is None else argv)
        print(end="", flush=True)  # nothing where there is no standard output
        sys.exit(code)
    except ConfigError as error:
        print(printable(str(error), lines=True), file=sys.stderr)
        sys.exit(1)
    except ExporterError as error:
        print(f"bts-exporter: {printable(str(error), lines=True)}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        # The reader of our output is gone; at exit Python would report that again.
        sys.stdout = None
        sys.exit(0)
    except OSError as error:  # such as a full disk
        print(f"bts-exporter: {printable(str(error))}", file=sys.stderr)
        sys.stdout = None
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _open_standard_files() -> None:
    """Open /dev/null for each standard file that is closed, or a socket could take its number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


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
        lifecycle=arguments.enable_lifecycle,
        web_config_file=arguments.web_config_file,
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
    _add_common_flags(parser, default=None)
    try:
        known, _ = parser.parse_known_args(argv)
    except argparse.ArgumentError:
        return None  # the complete parser reports it
    return commands.find_in_types(known.config_file, words)


def _serve(options: Options, _: argparse.Namespace) -> int:
    Service(options).run(sd_notify.sockets())
    _exit_soon()
    return 0


def _push(options: Options, arguments: argparse.Namespace) -> int:
    code = commands.push(options, _push_options(arguments))
    if arguments.every is not None:
        _exit_soon()
    return code


def _exit_soon() -> None:
    """End the process soon, whatever threads are left."""
    # Python waits for the threads of a plug-in's pools before it exits, and one may hang.
    last_resort = threading.Timer(_EXIT_SECONDS, os._exit, (0,))
    last_resort.daemon = True
    with suppress(RuntimeError):  # no thread left
        last_resort.start()


def _hash_password(cost: int) -> int:
    from bts_exporter.password_hash import hash_password  # noqa: PLC0415  # bcrypt and getpass

    return hash_password(cost)


_COMMANDS: dict[str | None, Callable[[Options, argparse.Namespace], int]] = {
    None: _serve,
    "check": lambda options, a: commands.check(options, connect=a.connect),
    "once": lambda options, a: commands.once(options, collect=a.collect, exclude=a.exclude),
    "push": _push,
    "config": lambda options, a: commands.config(options, a.type),
    "collectors": lambda options, _: commands.collectors(options),
    "hash-password": lambda _, a: _hash_password(a.cost),
    "metrics": lambda options, a: commands.metrics(options, a.format),
}


def build_parser(found: commands.Found | None = None) -> argparse.ArgumentParser:
    """Return the parser of the command line; `found` is the command of a collector type that it names."""
    parser = argparse.ArgumentParser(
        prog="bts-exporter",
        description="Prometheus exporter for this host and for RabbitMQ, Redis and MQTT brokers.",
        epilog=_EPILOG,
        allow_abbrev=False,
    )
    version = f"bts-exporter {bts_exporter.__version__} (Python {platform.python_version()})"
    parser.add_argument("--version", action="version", version=version)
    _add_common_flags(parser, default=None)
    _add_web_flags(parser)
    commands_ = parser.add_subparsers(dest="command", title="commands (default: serve metrics)")
    check = _command(commands_, "check", "check the configuration; exit code 0 or 1")
    _add_web_config_flag(check, default=argparse.SUPPRESS)
    check.add_argument(
        "--connect", action="store_true", help="also collect once, and list the targets that fail"
    )
    once = _command(commands_, "once", "collect once and print the metrics")
    once.add_argument(
        "--collect",
        action="append",
        default=[],
        metavar="NAME",
        help="only this collector; repeatable",
    )
    once.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="NAME",
        help="all but this one; repeatable",
    )
    _add_push_flags(_command(commands_, "push", "push the metrics to a receiver"))
    config = _command(commands_, "config", "print a commented example of the settings")
    config.add_argument("type", nargs="?", metavar="TYPE", help="collector type (default: all)")
    _command(commands_, "collectors", "list the collector types, their origin and their errors")
    hashing = _command(
        commands_, "hash-password", "read a password, print its hash for basic_auth_users"
    )
    hashing.add_argument(
        "--cost", type=int, choices=range(4, 16), default=10, help="bcrypt cost (default 10)"
    )
    metrics = _command(commands_, "metrics", "list all metrics")
    metrics.add_argument(
        "--format",
        choices=["table", "markdown", "json"],
        default="table",
        help="form of the list (default table)",
    )
    if found is not None:
        of_type = _command(commands_, found.name, found.command.help)
        for name, text in found.command.arguments.items():
            of_type.add_argument("arguments", action="append", metavar=name, help=text)
    return parser


def _add_push_flags(push: argparse.ArgumentParser) -> None:
    push.add_argument("--url", required=True, help="address of the receiver")
    push.add_argument("--job", required=True, type=_not_empty, help="value of the job label")
    push.add_argument(
        "--instance",
        metavar="NAME",
        type=_not_empty,
        help="value of the instance label (default: the host name; a Pushgateway gets none)",
    )
    push.add_argument(
        "--protocol",
        choices=[str(protocol) for protocol in Protocol],
        help="protocol (default: as the address indicates)",
    )
    push.add_argument(
        "--every",
        metavar="DURATION",
        type=_duration,
        help="push at this interval, such as 30s, until a signal (default: once)",
    )
    push.add_argument(
        "--http.config.file",
        dest="http_config_file",
        metavar="FILE",
        help="TLS, credentials, headers and proxy, in the format of Prometheus' http_config",
    )
    push.add_argument(
        "--buffer-size",
        metavar="BYTES",
        type=_size,
        default=PushOptions.buffer_bytes,
        help="most bytes that wait while the receiver is down, such as 256MiB (default 64MiB)",
    )
    push.add_argument(
        "--buffer-age",
        metavar="DURATION",
        type=_duration,
        default=PushOptions.buffer_age,
        help="how long a collection waits at most while the receiver is down (default 1d)",
    )


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


def _command(
    commands_: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str
) -> argparse.ArgumentParser:
    command = commands_.add_parser(name, help=text, description=text, allow_abbrev=False)
    # Accepted before and after the command: a default after it must not override a flag before it.
    _add_common_flags(command, default=argparse.SUPPRESS)
    return command


def _add_common_flags(parser: argparse.ArgumentParser, *, default: str | None) -> None:
    parser.add_argument(
        "--config.file",
        dest="config_file",
        metavar="FILE",
        default=default,
        help="configuration file",
    )
    parser.add_argument(
        "--log.level",
        dest="log_level",
        choices=logs.LEVELS,
        default=default,
        help="minimum log level (default info; error for commands)",
    )
    parser.add_argument(
        "--log.format",
        dest="log_format",
        choices=["logfmt", "json"],
        default=default or "logfmt",
        help="log format (default logfmt)",
    )


def _add_web_flags(parser: argparse.ArgumentParser) -> None:
    web = parser.add_argument_group("serving")
    web.add_argument(
        "--web.listen-address",
        dest="listen_address",
        action="append",
        metavar="[HOST]:PORT",
        help="address to listen on; repeatable (default :19100)",
    )
    _add_web_config_flag(web, default=None)
    web.add_argument(
        "--web.telemetry-path",
        dest="telemetry_path",
        metavar="PATH",
        type=_absolute,
        default="/metrics",
        help="URL path of the metrics (default /metrics)",
    )
    web.add_argument(
        "--web.max-requests",
        dest="max_requests",
        type=_count,
        metavar="N",
        default=40,
        help="maximum concurrent scrapes; scrapes that share a page count once; 0: unlimited (default 40)",
    )
    web.add_argument(
        "--web.disable-exporter-metrics",
        dest="disable_exporter_metrics",
        action="store_true",
        help="do not serve metrics of the exporter's process and HTTP server",
    )
    web.add_argument(
        "--web.enable-lifecycle",
        dest="enable_lifecycle",
        action="store_true",
        help="enable POST /-/reload",
    )


def _add_web_config_flag(parser: argparse._ActionsContainer, *, default: str | None) -> None:
    parser.add_argument(
        "--web.config.file",
        dest="web_config_file",
        metavar="FILE",
        default=default,
        help="TLS, passwords, headers and rate limit, in the format of Prometheus' exporter-toolkit",
    )


def _not_empty(text: str) -> str:
    if not text:
        msg = "expected a text that is not empty"
        raise argparse.ArgumentTypeError(msg)
    return text


def _duration(text: str) -> float:
    try:
        seconds = Duration.from_setting(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if seconds < 1:
        msg = f"{text!r} is too short (expected at least 1s)"
        raise argparse.ArgumentTypeError(msg)
    return float(seconds)


def _size(text: str) -> int:
    found = _SIZE.fullmatch(text)
    if found is None or int(found[1]) == 0:
        msg = f"{text!r} is not a valid size (expected bytes, or such as 64MiB)"
        raise argparse.ArgumentTypeError(msg)
    return int(found[1]) * _UNITS[found[2]]


def _count(text: str) -> int:
    if not text.isdecimal():
        msg = f"{text!r} is not a valid number of scrapes (expected 0 or more)"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def _absolute(path: str) -> str:
    if not path.startswith("/") or path == "/":
        msg = f"{path!r} is not a valid path (expected a path such as /metrics)"
        raise argparse.ArgumentTypeError(msg)
    return path
