"""The flags and commands of the command line."""

from __future__ import annotations

import argparse
import platform
import re

import bts_exporter
from bts_exporter import commands, logs
from bts_exporter.push.options import Protocol, PushOptions
from bts_exporter.settings.value_types import Duration, Url

_EPILOG = """\
Without --config.file, ./config.yaml is used unless other users can write it, then
/etc/bts-exporter/config.yaml. Without a configuration file, this host and the brokers on it are monitored.
SIGHUP reloads the configuration. Collectors may add commands, such as mqtt-test: `bts-exporter collectors` lists them.
"""

_NUMBER = re.compile(r"\d+(\.\d+)?")

#: The flags of TLS settings, by the name of the setting.
TLS_FLAGS = {
    "ca_file": ("FILE", "certificates of the authorities to trust"),
    "cert_file": ("FILE", "client certificate"),
    "key_file": ("FILE", "key of the client certificate"),
    "server_name": ("NAME", "name in the exporter's certificate, if it is not the host of --url"),
}

#: A number of bytes.
_SIZE = re.compile(r"(\d{1,15})(KiB|MiB|GiB|)")
_UNITS = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


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
    add_common_flags(parser, default=None)
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


def _add_push_flags(push: argparse.ArgumentParser) -> None:
    push.add_argument("--url", required=True, help="address of the receiver")
    push.add_argument("--job", required=True, type=_label, help="value of the job label")
    push.add_argument(
        "--instance",
        metavar="NAME",
        type=_label,
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
        type=_interval,
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
        type=_interval,
        default=PushOptions.buffer_age,
        help="how long a collection waits at most while the receiver is down (default 1d)",
    )


def _command(
    commands_: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str
) -> argparse.ArgumentParser:
    command = commands_.add_parser(name, help=text, description=text, allow_abbrev=False)
    # Accepted before and after the command: a default after it must not override a flag before it.
    add_common_flags(command, default=argparse.SUPPRESS)
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
    for name, (metavar, text) in TLS_FLAGS.items():
        lag.add_argument(f"--tls.{name}", dest=name, metavar=metavar, help=text)
    for name in ("target", "system", "destination", "group"):
        lag.add_argument(f"--{name}", metavar="NAME", help=f"only this {name}")
    lag.add_argument("--json", action="store_true", help="print JSON, as /api/lag serves it")
    until = lag.add_mutually_exclusive_group()
    until.add_argument(
        "--max",
        type=_duration,
        metavar="DURATION",
        help="longest lag that is accepted, such as 5m; without it no lag changes the exit status, which is 3"
        " if something cannot be read or the named destination does not exist",
    )
    until.add_argument(
        "--watch", action="store_true", help="print again every 5 s; with --json, a line each time"
    )


def add_common_flags(parser: argparse.ArgumentParser, *, default: str | None) -> None:
    """Add the flags that the exporter and all commands have; `default` is that of the texts."""
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


def _label(text: str) -> str:
    if not text:
        msg = "expected a text that is not empty"
        raise argparse.ArgumentTypeError(msg)
    try:
        text.encode()
    except UnicodeEncodeError:  # how Python holds the bytes of an argument that is not UTF-8
        msg = f"{text!r} is not UTF-8"
        raise argparse.ArgumentTypeError(msg) from None
    return text


def _interval(text: str) -> float:
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


def _duration(text: str) -> Duration:
    try:
        return Duration.from_setting(float(text) if _NUMBER.fullmatch(text) else text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _exporter_url(text: str) -> Url:
    try:
        url = Url.from_setting(text if "://" in text else f"http://{text}")
        url.require_scheme("http", "https", key="address")
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return url


def _absolute(path: str) -> str:
    if not path.startswith("/") or path == "/":
        msg = f"{path!r} is not a valid path (expected a path such as /metrics)"
        raise argparse.ArgumentTypeError(msg)
    return path
