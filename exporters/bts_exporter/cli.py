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
from bts_exporter.service import Options, Service
from bts_exporter.settings.tls import TLSConfig
from bts_exporter.settings.value_types import Duration, Url

_EPILOG = """\
Without --config.file, ./config.yaml is used unless other users can write it, then
/etc/bts-exporter/config.yaml. Without a configuration file, this host and the brokers on it are monitored.
SIGHUP reloads the configuration. Collectors may add commands, such as mqtt-test: `bts-exporter collectors` lists them.
"""

#: A command of a collector type: the type, a dash, the command.
_OF_TYPE = re.compile(r"\w+-[\w-]+")

_NUMBER = re.compile(r"\d+(\.\d+)?")

#: The flags of TLS settings, by the name of the setting.
_TLS_FLAGS = {
    "ca_file": ("FILE", "certificates of the authorities to trust"),
    "cert_file": ("FILE", "client certificate"),
    "key_file": ("FILE", "key of the client certificate"),
    "server_name": ("NAME", "name in the exporter's certificate, if it is not the host of --url"),
}

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
    level = arguments.log_level or ("info" if arguments.command is None else "error")
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
    _add_common_flags(parser, default=None)
    try:
        known, _ = parser.parse_known_args(argv)
    except argparse.ArgumentError:
        return None  # the complete parser reports it
    return commands.find_in_types(known.config_file, words)


def _serve(options: Options, _: argparse.Namespace) -> int:
    Service(options).run(sd_notify.sockets())
    # Python waits for the threads of a plug-in's pools before it exits, and one may hang.
    last_resort = threading.Timer(_EXIT_SECONDS, os._exit, (0,))
    last_resort.daemon = True
    with suppress(RuntimeError):  # no thread left
        last_resort.start()
    return 0


def _hash_password(cost: int) -> int:
    from bts_exporter.password_hash import hash_password  # noqa: PLC0415  # bcrypt and getpass

    return hash_password(cost)


def _lag(options: Options, a: argparse.Namespace) -> int:
    from bts_exporter import lag_command  # noqa: PLC0415  # an HTTP client

    names = ("target", "system", "destination", "group")
    try:
        tls = TLSConfig(**{name: getattr(a, name) for name in _TLS_FLAGS})
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
    "push": lambda options, a: commands.push(options, a.url, a.job),
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
    push = _command(commands_, "push", "collect once and push the metrics to a Pushgateway")
    push.add_argument("--url", required=True, help="address of the Pushgateway")
    push.add_argument("--job", required=True, help="value of the job label")
    config = _command(commands_, "config", "print a commented example of the settings")
    config.add_argument("type", nargs="?", metavar="TYPE", help="collector type (default: all)")
    _add_commands_for_authors(commands_)
    hashing = _command(
        commands_, "hash-password", "read a password, print its hash for basic_auth_users"
    )
    hashing.add_argument(
        "--cost", type=int, choices=range(4, 16), default=10, help="bcrypt cost (default 10)"
    )
    _add_listings(commands_)
    if found is not None:
        of_type = _command(commands_, found.name, found.command.help)
        for name, text in found.command.arguments.items():
            of_type.add_argument("arguments", action="append", metavar=name, help=text)
    return parser


def _add_listings(commands_: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands that list what is installed."""
    _command(commands_, "schema", "print the JSON Schema of the settings, for editors")
    listing = _command(
        commands_, "collectors", "list the collector types, their origin and their errors"
    )
    listing.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="also list version, API version, and each setting with its value and source",
    )
    metrics = _command(commands_, "metrics", "list the metrics")
    metrics.add_argument(
        "glob", nargs="?", metavar="GLOB", default="*", help="only metrics with such a name"
    )
    metrics.add_argument(
        "--format",
        choices=["table", "markdown", "json"],
        default="table",
        help="form of the list (default table)",
    )
    _add_lag(commands_)
    _add_targets(commands_)


def _add_commands_for_authors(
    commands_: argparse._SubParsersAction[argparse.ArgumentParser],
) -> None:
    running = _command(
        commands_, "run-collector", "run a collector from a file, and print its metrics"
    )
    running.add_argument("file", metavar="FILE", help="file of the plug-in, or folder of a package")
    running.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting, as in the configuration file; a.b=x for a key in a block; repeatable",
    )
    running.add_argument(
        "--watch",
        action="store_true",
        help="print the metrics again after each change of its files",
    )
    new = _command(commands_, "new-collector", "create a collector with its test")
    new.add_argument(
        "name", metavar="NAME", help="collector type, the key in the configuration file"
    )
    new.add_argument("--package", action="store_true", help="create a project that pip can install")


def _add_targets(commands_: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    targets = _command(
        commands_, "targets", "print an inventory as targets for Prometheus (file_sd, http_sd)"
    )
    targets.add_argument("inventory", metavar="FILE", help="inventory, ours or Ansible's, in YAML")
    targets.add_argument(
        "--output", metavar="FILE", help="replace this file at once, if the inventory has no errors"
    )


def _command(
    commands_: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str
) -> argparse.ArgumentParser:
    command = commands_.add_parser(name, help=text, description=text, allow_abbrev=False)
    # Accepted before and after the command: a default after it must not override a flag before it.
    _add_common_flags(command, default=argparse.SUPPRESS)
    return command


def _add_lag(commands_: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    lag = _command(
        commands_,
        "lag",
        "show how late consumers are; with --max, exit status 1 if one is later, 3 if that is not known",
    )
    lag.add_argument(
        "--url",
        type=_exporter_url,
        help="running exporter to ask, such as https://USER@HOST:19100 (default: the one at"
        " --web.listen-address, else this process reads the brokers)",
    )
    lag.add_argument("--password-file", metavar="FILE", help="password of the user in --url")
    for name, (metavar, text) in _TLS_FLAGS.items():
        lag.add_argument(f"--tls.{name}", dest=name, metavar=metavar, help=text)
    for name in ("target", "system", "destination", "group"):
        lag.add_argument(f"--{name}", metavar="NAME", help=f"only this {name}")
    lag.add_argument("--json", action="store_true", help="print JSON, as /api/lag serves it")
    until = lag.add_mutually_exclusive_group()
    until.add_argument(
        "--max",
        type=_duration,
        metavar="DURATION",
        help="longest lag that is accepted, such as 5m; without it the exit status is 3 only if a target fails",
    )
    until.add_argument(
        "--watch", action="store_true", help="print again every 5 s; with --json, a line each time"
    )


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
        "--config.auto-reload",
        dest="auto_reload",
        action="store_true",
        help="reload the configuration file when it changes",
    )
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
        "--web.disable-api",
        dest="disable_api",
        action="store_true",
        help="do not serve JSON below /api/; the page / is then without live updates",
    )
    web.add_argument(
        "--web.disable-background-scrape",
        dest="disable_background_scrape",
        action="store_true",
        help="do not collect for the page / between scrapes",
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


def _count(text: str) -> int:
    if not text.isdecimal():
        msg = f"{text!r} is not a valid number of scrapes (expected 0 or more)"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def _duration(text: str) -> Duration:
    try:
        return Duration.from_setting(float(text) if _NUMBER.fullmatch(text) else text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _exporter_url(text: str) -> Url:
    try:
        url = Url.from_setting(text)
        url.require_scheme("http", "https", key="address")
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return url


def _absolute(path: str) -> str:
    if not path.startswith("/") or path == "/":
        msg = f"{path!r} is not a valid path (expected a path such as /metrics)"
        raise argparse.ArgumentTypeError(msg)
    return path
