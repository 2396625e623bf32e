"""The commands that do something else than serve."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bts_exporter import logs
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
)
from bts_exporter.exposition.formats import Format
from bts_exporter.page_service import sound_part
from bts_exporter.plugin import Command
from bts_exporter.printable import on_terminal, printable
from bts_exporter.push.options import PushOptions
from bts_exporter.service import Options, Service
from bts_exporter.settings import loader
from bts_exporter.settings.loader import (
    CollectorBlock,
    Settings,
    document_of,
    find,
    load,
    plugins_folder,
)


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
    found = (*assembly.warnings, *_unusable_state(settings), *web_warnings)
    warnings = [w._replace(message=f"warning: {w.message}") for w in found]
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
        if on_terminal():  # labels are texts of others
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


def schema(options: Options) -> int:
    """Print the JSON Schema of the settings, with every collector type that is installed."""
    from bts_exporter.settings import json_schema  # noqa: PLC0415  # of this command only

    registry = _registry(options)
    for name in registry.names():
        try:
            registry.load(name)
        except PluginError as error:
            print(printable(str(error), lines=True), file=sys.stderr)
    print(json.dumps(json_schema.schema_of(registry), indent=2, ensure_ascii=False))
    return 0


def push(options: Options, what: PushOptions) -> int:
    """Push the metrics once or at an interval; exit code 1 when a collector fails."""
    from bts_exporter.push.command import Pusher  # noqa: PLC0415  # of this command only

    pusher = Pusher(Service(options), what)
    if what.every is not None:
        pusher.repeat(what.every)
        return 0
    with logs.quiet():  # each failure is printed below
        failures = pusher.once()
    for failure in failures:
        print(printable(failure), file=sys.stderr)
    return int(bool(failures))


def targets(inventory: str, output: str | None) -> int:
    """Print the targets of an inventory, or write them to a file and print what they are."""
    from bts_exporter.fleet import targets as fleet  # noqa: PLC0415  # of this command only

    machines = fleet.read_inventory(Path(inventory))
    for warning in fleet.warnings_of(machines):
        print(f"{inventory}: {printable(warning)}", file=sys.stderr)
    page = fleet.page(machines)
    if output is None:
        print(page, end="")
        return 0
    fleet.write(Path(output), page)
    for line in fleet.summary(machines):
        print(f"{output}: {printable(line)}")
    return 0


def collectors(options: Options, *, verbose: bool = False) -> int:
    """Print the collector types, their origins and errors; with `verbose`, their settings too."""
    from bts_exporter import inventory  # noqa: PLC0415  # of this command and the next only

    registry = _registry(options)
    report = inventory.SettingsReport(loader.document_of(find(options.config_file)))
    blocks = _blocks_or_errors(options) if verbose else None
    broken = False
    for name in registry.names():
        try:
            lines = list(inventory.type_lines(registry, name))
        except PluginError as error:
            broken = True
            lines = [f"{name:<16} BROKEN: {error}"]
        if verbose:
            lines += inventory.detail_lines(registry, name, blocks, report)
        print("\n".join(printable(line, lines=True) for line in lines))
    return int(broken)


def metrics(options: Options, form: str, glob: str = "*") -> int:
    """Print every metric that matches `glob`, and that a type declares or the settings name."""
    from bts_exporter import inventory  # noqa: PLC0415  # as above

    registry, blocks = _registry(options), _blocks_or_errors(options)
    listed = inventory.matching(list(inventory.listed(registry, blocks or ())), glob)
    for line in inventory.metric_lines(listed, form):
        print(line)
    if not listed:
        print(f"bts-exporter: no metric matches {printable(glob)}", file=sys.stderr)
    return int(not listed)


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


def _unusable_state(settings: Settings) -> Iterator[Problem]:
    """Yield a warning if nothing can be stored in the folder for states, or if other users can write to it."""
    if settings.state is not None:
        from bts_exporter.collection.state_store import folder_problem  # noqa: PLC0415  # few need it

        if problem := folder_problem(settings.state):
            yield document_of(Path(settings.file)).problem(("state",), problem)


def _target_names(settings: Settings) -> Iterator[str]:
    for block in settings.blocks:
        name = block.common.name
        yield f"{block.type_name}[{name}]" if name else block.type_name


def _check_targets(options: Options) -> int:
    from bts_exporter.target_report import lines_about  # noqa: PLC0415  # of this command only

    with logs.quiet():  # each failure is printed below
        service = Service(options)
        service.start_collectors()
        try:
            exporter = service.exporter
            found = exporter.collectors.collect(
                exporter.collectors.runners, exporter.scrape_timeout
            )
            shots = [sound_part(shot) for shot in found]
            for line in lines_about(shots):
                print(printable(line))
        finally:
            service.stop_collectors()
    return int(any(not shot.outcome.success for shot in shots))


def _load(options: Options) -> Settings:
    return load(find(options.config_file), Registry)


def _registry(options: Options) -> Registry:
    return Registry(plugins_folder(find(options.config_file)))


def _blocks_or_errors(options: Options) -> Sequence[CollectorBlock] | None:
    """Return the blocks of the settings; None, and the errors are printed, if they are wrong."""
    try:
        return _load(options).blocks
    except ConfigError as error:
        print(printable(str(error), lines=True), file=sys.stderr)
        return None
