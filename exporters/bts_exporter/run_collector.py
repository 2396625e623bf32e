"""The command `run-collector`: a plug-in without a settings file, for those who write it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bts_exporter.collection import plugin_modules
from bts_exporter.collection.builder import Assembly
from bts_exporter.collection.collector_set import CollectorSet
from bts_exporter.collection.plugin_file import is_part
from bts_exporter.collection.registry import load_file
from bts_exporter.collection.runner import Snapshot
from bts_exporter.errors import ConfigError, ExporterError, PluginError, Problem
from bts_exporter.exposition.formats import Format
from bts_exporter.exposition.page import Source, render
from bts_exporter.logs import quiet
from bts_exporter.page_service import sound_part
from bts_exporter.plugin import Collector
from bts_exporter.printable import on_terminal, printable
from bts_exporter.settings.loader import Settings, load_document
from bts_exporter.settings.yaml_document import Document
from bts_exporter.target_report import lines_about

#: How often `watch` looks for changes, in seconds.
_POLL_SECONDS = 0.2
#: What problems name in place of a file.
_FLAG = "--set"

#: What shows that a file changed.
_State = dict[Path, tuple[int, int] | None]


def run(file: str, pairs: Sequence[str]) -> int:
    """Print the metrics of one collection of the plug-in `file`; exit code 1 if it failed.

    `pairs` are its settings as `key=value`. What the collector says about itself goes to standard error.
    """
    path = _plugin(file)
    settings = _settings(path, load_file(path), pairs)
    with quiet():  # each failure is printed below
        shots = _collect(settings)
    page = render([Source(shot.samples, shot.runner.templates) for shot in shots], Format.TEXT)
    text = page.decode()
    print(printable(text, lines=True) if on_terminal() else text, end="", flush=True)
    for line in lines_about(shots):
        print(printable(line), file=sys.stderr)
    return int(any(not shot.outcome.success for shot in shots))


def watch(file: str, pairs: Sequence[str]) -> int:
    """Run the plug-in, and again after each change of its files, until Ctrl-C; errors are printed."""
    path = _plugin(file)
    while True:
        # Before it is loaded: a change in between is then noticed.
        before = _state(path)
        try:
            run(file, pairs)
        except ExporterError as error:
            print(printable(str(error), lines=True), file=sys.stderr)
        # What it imports is known now.
        before = {**_state(path), **before}
        print("waiting for changes; Ctrl-C ends this", file=sys.stderr, flush=True)
        while (changed := _changed(path, before)) is None:
            time.sleep(_POLL_SECONDS)
        print(f"\n{printable(str(changed))} changed", file=sys.stderr, flush=True)


def _plugin(file: str) -> Path:
    """Return the file or the folder of the package that is meant; PluginError if it is neither."""
    path = Path(os.path.realpath(file))  # never raises, even for a loop of links
    if path.name == "__init__.py":
        return path.parent
    if (path.is_file() and path.suffix == ".py") or (path / "__init__.py").is_file():
        return path
    what = "is not there" if not path.exists() else "is not a plug-in"
    msg = f"{file} {what}: expected a file such as spool.py, or a folder with a file __init__.py"
    raise PluginError(msg)


class _One:
    """The only collector type."""

    def __init__(self, name: str, cls: type[Collector]) -> None:
        self._name = name
        self._type = cls

    def names(self) -> list[str]:
        return [self._name]

    def load(self, name: str) -> type[Collector]:  # noqa: ARG002  # the interface
        return self._type


def _settings(path: Path, cls: type[Collector], pairs: Sequence[str]) -> Settings:
    """Return settings with one collector; ConfigError with every mistake in `pairs`."""
    name = path.name.removesuffix(".py")
    document = Document(_FLAG, "")
    block: dict[str, Any] = {}
    for pair in pairs:
        _add(block, pair, document)
    document.value = {"collectors": {name: block}}
    try:
        return load_document(document, lambda _: _One(name, cls))
    except ConfigError as error:
        raise ConfigError([_named(problem, name) for problem in error.problems]) from None


def _add(block: dict[str, Any], pair: str, document: Document) -> None:
    """Add the setting `a.b=value` to a block, the value as it would be in a file."""
    key, equals, text = pair.partition("=")
    if not equals or not all(steps := key.split(".")):
        document.problems.append(
            Problem(_FLAG, None, "", f"{pair!r} is not a setting: expected KEY=VALUE")
        )
        return
    *above, last = steps
    for step in above:
        inner = block.setdefault(step, {})
        block = inner if isinstance(inner, dict) else {}
    try:
        read = Document(_FLAG, text)
    except ConfigError:  # not YAML, such as *.job: the text itself is meant
        block[last] = text
        return
    document.problems += [problem._replace(line=None, path=key) for problem in read.problems]
    block[last] = read.value if text else ""


def _named(problem: Problem, name: str) -> Problem:
    """Return a problem with the place that the command line has."""
    path = problem.path.removeprefix(f"collectors.{name}").removeprefix(".")
    return problem._replace(line=None, path=path)


def _collect(settings: Settings) -> list[Snapshot]:
    """Start the collectors, collect once, and stop them; PluginError if one cannot be created."""
    assembly = Assembly(settings)
    if assembly.problems:
        raise PluginError("\n".join(problem.message for problem in assembly.problems))
    for warning in assembly.warnings:
        print(f"warning: {printable(str(warning))}", file=sys.stderr)
    collectors = assembly.set
    try:
        for runner in collectors.runners:
            runner.start()
        shots = collectors.collect(collectors.runners, settings.scrape_timeout)
        return [sound_part(shot) for shot in shots]
    finally:
        _stop(collectors)


def _stop(collectors: CollectorSet) -> None:
    for last in collectors.stop(collectors.runners):
        last.wait(1)
    collectors.close()


def _changed(path: Path, before: _State) -> Path | None:
    """Return a file that is not as it was; None if all are."""
    now = _state(path)
    return next((file for file in {**before, **now} if before.get(file) != now.get(file)), None)


def _state(path: Path) -> _State:
    """Return the files of a plug-in, and those that it imported, with what shows that one changed."""
    files = {path, *path.parent.glob("_*.py"), *plugin_modules.imported_files(path)}
    if path.is_dir():
        files |= {
            file for file in path.rglob("*") if all(map(is_part, file.relative_to(path).parts))
        }
    return {file: _times(file) for file in files if not file.is_dir()}


def _times(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:  # an editor may replace it at this moment
        return None
    return found.st_mtime_ns, found.st_size
