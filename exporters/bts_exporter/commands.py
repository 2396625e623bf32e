"""The commands that do something else than serve."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from bts_exporter.collection.builder import Assembly
from bts_exporter.collection.registry import Registry
from bts_exporter.errors import (
    ConfigError,
    OutputError,
    PluginError,
    Problem,
    SelectionError,
    TargetError,
    listed,
    one_line,
    text_of,
)
from bts_exporter.exposition.formats import Format
from bts_exporter.metric import Metric, Template
from bts_exporter.plugin import Command
from bts_exporter.printable import printable
from bts_exporter.push.options import PushOptions
from bts_exporter.self_metrics import DECLARED
from bts_exporter.service import Options, Service
from bts_exporter.settings.loader import Settings, find, load, plugins_folder


@dataclass(frozen=True)
class Listed:
    """One metric, as `metrics` lists it."""

    name: str
    type: str
    labels: list[str]
    help: str
    collector: str


@dataclass(frozen=True)
class Found:
    """A command of a collector type, and the name that it is called by."""

    name: str
    kind: str
    command: Command


def find_in_types(config_file: str | None, words: Sequence[str]) -> Found | None:
    """Return the command that the first of `words` that is one means: `TYPE-COMMAND`."""
    registry = Registry(plugins_folder(find(config_file)))
    for word in words:
        kind, _, name = word.partition("-")
        if kind in registry.names() and name in (offered := registry.load(kind).commands):
            return Found(word, kind, offered[name])
    return None


def of_type(options: Options, found: Found, arguments: Sequence[str]) -> int:
    """Print the lines of a collector type's command; exit code 1 if it raises an error."""
    settings = _load(options)
    blocks = [block.config for block in settings.blocks if block.type_name == found.kind]
    try:
        for line in found.command.run(blocks, *arguments):
            print(printable(line, lines=True))
    except ValueError as error:
        message = printable(str(error), lines=True)
        print(f"bts-exporter: {found.name}: {message}", file=sys.stderr)
        return 1
    return 0


def check(options: Options, *, connect: bool) -> int:
    """Say whether the settings can be used; with `connect`, whether the targets answer too."""
    settings = _load(options)
    assembly = Assembly(settings)
    web_problems, web_warnings = _of_web_config(options.web_config_file)
    if problems := [*assembly.problems, *_unusable_files(settings), *web_problems]:
        raise ConfigError(problems)
    warnings = [
        w._replace(message=f"warning: {w.message}") for w in (*assembly.warnings, *web_warnings)
    ]
    for line in listed(warnings):
        print(printable(line), file=sys.stderr)
    targets = ", ".join(_target_names(settings)) or "none"
    print(f"{settings.file}: settings are fine; targets: {targets}", flush=True)
    if options.web_config_file is not None:
        print(f"{options.web_config_file}: the web configuration is fine", flush=True)
    return _check_targets(options) if connect else 0


def once(options: Options, *, collect: Sequence[str], exclude: Sequence[str]) -> int:
    """Print what one scrape gives; exit code 1 when a collector fails."""
    if sys.stdout is None:
        msg = "standard output is closed, so that the metrics cannot be printed"
        raise OutputError(msg)
    service = Service(options)
    service.start_collectors()
    try:
        runners = service.exporter.collectors.select(collect, exclude)
        sys.stdout.flush()
        page = service.exporter.page(runners, Format.TEXT)
        if sys.stdout.isatty():  # labels are texts of others
            page = printable(page.decode(), lines=True).encode()
        sys.stdout.buffer.write(page)
        sys.stdout.flush()
    finally:
        service.stop_collectors()
    return int(any(runner.outcome and not runner.outcome.success for runner in runners))


def config(options: Options, type_name: str | None) -> int:
    """Print an example of the settings of a collector type, or of all types that can be loaded."""
    from bts_exporter.settings import example  # noqa: PLC0415  # of this command only

    registry = _registry(options)
    names = registry.names() if type_name is None else [type_name]
    if unknown := {*names} - {*registry.names()}:
        msg = f"no such collector type: {unknown.pop()}; there are: {', '.join(registry.names())}"
        raise SelectionError(msg)
    print("# Every key, its default and its type. Remove the # in front of those that you change.")
    if type_name is None:
        print("\n".join(example.top_level()))
    print("collectors:")
    for name in names:
        try:
            lines = example.block(name, registry.load(name))
        except PluginError as error:
            if type_name is not None:
                raise
            lines = [f"# {name} is broken: {one_line(str(error))}"]
        print("\n".join(f"  {line}".rstrip() for line in lines))
    return 0


def push(options: Options, what: PushOptions) -> int:
    """Push the metrics once or at an interval; exit code 1 when a collector fails."""
    from bts_exporter.push.command import Pusher  # noqa: PLC0415  # of this command only

    pusher = Pusher(Service(options), what)
    if what.every is not None:
        pusher.repeat(what.every)
        return 0
    with _quiet():  # each failure is printed below
        failures = pusher.once()
    for failure in failures:
        print(printable(failure), file=sys.stderr)
    return int(bool(failures))


def collectors(options: Options) -> int:
    """Print the collector types, their origins and their errors."""
    registry = _registry(options)
    broken = False
    for name in registry.names():
        try:
            cls = registry.load(name)
        except PluginError as error:
            broken = True
            print(f"{name:<16} BROKEN: {printable(str(error), lines=True)}")
        else:
            summary = str(cls.__doc__ or "").strip().partition("\n")[0]
            print(f"{name:<16} {registry.source(name):<32} {summary}".rstrip())
            for command, offered in cls.commands.items():
                usage = " ".join([f"{name}-{command}", *offered.arguments])
                print(f"{'':<16} {usage:<32} {offered.help}")
    return int(broken)


def metrics(options: Options, form: str) -> int:
    """Print every metric that any of the collector types declares, or that the settings name."""
    listed = list(_listed(_registry(options), options))
    if form == "json":
        print(json.dumps([asdict(metric) for metric in listed], indent=2))
        return 0
    if form == "markdown":
        print("| name | type | labels | help | collector |\n|---|---|---|---|---|")
    for metric in listed:
        labels = ", ".join(metric.labels)
        if form == "markdown":
            text = metric.help.replace("|", r"\|")
            print(f"| `{metric.name}` | {metric.type} | {labels} | {text} | {metric.collector} |")
        else:
            shown = f"{metric.name}{{{labels}}}" if labels else metric.name
            print(f"{shown}  {metric.type}  {metric.help}")
    return 0


def _of_web_config(file: str | None) -> tuple[list[Problem], Sequence[Problem]]:
    """Return the problems of --web.config.file, and the warnings."""
    if file is None:
        return [], ()
    from bts_exporter.access import watched_files, web_config  # noqa: PLC0415  # few need them

    try:
        return [], web_config.load(Path(file), watched_files.WatchedFiles()).warnings
    except ConfigError as error:
        return error.problems, ()


def _unusable_files(settings: Settings) -> Iterator[Problem]:
    """Yield a problem for every certificate or key that cannot be used."""
    for tls, place in settings.tls:
        try:
            tls.context()
        except TargetError as error:
            yield place._replace(message=str(error))


def _target_names(settings: Settings) -> Iterator[str]:
    for block in settings.blocks:
        name = block.common.name
        yield f"{block.type_name}[{name}]" if name else block.type_name


def _check_targets(options: Options) -> int:
    from bts_exporter.target_report import lines_about  # noqa: PLC0415  # of this command only

    with _quiet():  # each failure is printed below
        service = Service(options)
        service.start_collectors()
        try:
            exporter = service.exporter
            shots = exporter.collectors.collect(
                exporter.collectors.runners, exporter.scrape_timeout
            )
            for line in lines_about(shots):
                print(printable(line))
        finally:
            service.stop_collectors()
    return int(any(not shot.outcome.success for shot in shots))


@contextmanager
def _quiet() -> Iterator[None]:
    """Log nothing, unless the command line asks for more than errors."""
    before = logging.root.manager.disable
    if not logging.getLogger("bts_exporter").isEnabledFor(logging.WARNING):
        logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


def _load(options: Options) -> Settings:
    return load(find(options.config_file), Registry)


def _registry(options: Options) -> Registry:
    return Registry(plugins_folder(find(options.config_file)))


def _listed(registry: Registry, options: Options) -> Iterator[Listed]:
    seen: set[Metric | Template] = set()
    for name, metric in (*_declared(registry), *_configured(options)):
        if metric not in seen:
            seen.add(metric)
            yield _row(metric, name)
    for metric in DECLARED:
        yield _row(metric, "")


def _declared(registry: Registry) -> Iterator[tuple[str, Metric | Template]]:
    for name in registry.names():
        try:
            declared = list(registry.load(name).declared())
        except PluginError as error:
            print(printable(str(error), lines=True), file=sys.stderr)
            continue
        for metric in declared:
            yield name, metric


def _configured(options: Options) -> Iterator[tuple[str, Metric]]:
    """Yield what only the settings name; settings that are wrong name nothing."""
    try:
        blocks = _load(options).blocks
    except ConfigError as error:
        print(printable(str(error), lines=True), file=sys.stderr)
        return
    for block in blocks:
        try:
            named = list(block.type.declared_by(block.config))
        except Exception as error:  # noqa: BLE001  # a plug-in's own code
            said = f"{block.location}{type(error).__name__}: {text_of(error)}"
            print(printable(said), file=sys.stderr)
            continue
        for metric in named:
            yield block.type_name, metric


def _row(metric: Metric | Template, collector: str) -> Listed:
    return Listed(metric.name, str(metric.kind), list(metric.labels), metric.help, collector)
