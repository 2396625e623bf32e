"""What is installed and configured, for people: the output of `collectors` and of `metrics`."""

from __future__ import annotations

import inspect
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import Any, NamedTuple

from bts_exporter.collection.registry import Registry
from bts_exporter.errors import PluginError, line_in, words_of
from bts_exporter.metric import Metric, Template
from bts_exporter.plugin import API_VERSION, Collector
from bts_exporter.printable import printable
from bts_exporter.self_metrics import DECLARED
from bts_exporter.settings.example import as_yaml
from bts_exporter.settings.field_types import Key, keys_of
from bts_exporter.settings.loader import CollectorBlock
from bts_exporter.settings.value_types import Secret, Url
from bts_exporter.settings.yaml_document import Document, Hidden

_WIDTH = 16


@dataclass(frozen=True)
class Listed:
    """One metric, as `metrics` lists it."""

    name: str
    type: str
    labels: list[str]
    help: str
    collector: str


class Setting(NamedTuple):
    """A setting that a collector has, and where its value is from."""

    key: str
    value: str
    #: Such as `config.yaml:12`, or `default`.
    source: str


def listed(registry: Registry, blocks: Sequence[CollectorBlock]) -> Iterator[Listed]:
    """Yield every metric that a type declares, that the settings name, and our own; print errors of plug-ins."""
    seen: set[Metric | Template] = set()
    for name, metric in (*_declared(registry), *_configured(blocks)):
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


def _configured(blocks: Sequence[CollectorBlock]) -> Iterator[tuple[str, Metric]]:
    """Yield what only the settings name."""
    for block in blocks:
        try:
            named = list(block.type.declared_by(block.config))
        except Exception as error:  # noqa: BLE001  # a plug-in's own code
            place = line_in(block.type.__module__.partition(".")[0], error)
            said = f"{block.location}{words_of(error)}{place}"
            print(printable(said), file=sys.stderr)
            continue
        for metric in named:
            yield block.type_name, metric


def _row(metric: Metric | Template, collector: str) -> Listed:
    return Listed(metric.name, str(metric.kind), list(metric.labels), metric.help, collector)


def metric_lines(rows: Sequence[Listed], form: str) -> Iterator[str]:
    """Yield the lines of a list of metrics: table, markdown or json."""
    if form == "json":
        yield json.dumps([asdict(metric) for metric in rows], indent=2)
        return
    if form == "markdown":
        yield "| name | type | labels | help | collector |\n|---|---|---|---|---|"
    for metric in rows:
        labels = ", ".join(metric.labels)
        if form == "markdown":
            text = metric.help.replace("|", r"\|")
            yield f"| `{metric.name}` | {metric.type} | {labels} | {text} | {metric.collector} |"
        else:
            shown = f"{metric.name}{{{labels}}}" if labels else metric.name
            yield f"{shown}  {metric.type}  {metric.help}"


def matching(rows: Sequence[Listed], glob: str) -> list[Listed]:
    """Return the metrics whose name matches `glob`; of a template, if one of its names can."""
    wide = re.sub(r"\[!?.[^]]*\]", "?", glob)
    return [
        metric
        for metric in rows
        if fnmatchcase(metric.name, glob)
        or ("{field}" in metric.name and _overlap(wide, metric.name.replace("{field}", "*")))
    ]


@cache
def _overlap(a: str, b: str) -> bool:
    """Return whether some text matches both patterns, of letters, `?` and `*`."""
    if not a or not b:
        return not (a + b).strip("*")
    if a[0] == "*":
        return _overlap(a[1:], b) or _overlap(a, b[1:])
    if b[0] == "*":
        return _overlap(b, a)
    return (a[0] == b[0] or "?" in {a[0], b[0]}) and _overlap(a[1:], b[1:])


def type_lines(registry: Registry, name: str) -> Iterator[str]:
    """Yield the lines about a collector type: origin, summary, commands; PluginError if it is broken."""
    cls = registry.load(name)
    summary = str(cls.__doc__ or "").strip().partition("\n")[0]
    yield f"{name:<{_WIDTH}} {registry.source(name):<32} {summary}".rstrip()
    for command, offered in cls.commands.items():
        usage = " ".join([f"{name}-{command}", *offered.arguments])
        yield _indented(f"{usage:<32} {offered.help}")


def detail_lines(
    registry: Registry, name: str, blocks: Sequence[CollectorBlock] | None, report: SettingsReport
) -> Iterator[str]:
    """Yield version, origin and API version of a type, and every setting of its blocks."""
    try:
        cls = registry.load(name)
    except PluginError:
        yield _indented(f"version {registry.version(name) or 'unknown'}, {registry.source(name)}")
        return
    api = cls.requires_api or API_VERSION
    version = registry.version(name) or _module_version(cls)
    yield _indented(f"version {version}, API version {api}, {_file_of(cls)}")
    own = [block for block in blocks or () if block.type_name == name]
    if not own:
        yield _indented("not configured" if blocks is not None else "the settings are wrong")
    for block in own:
        place = f"{block.location.file}:{block.location.line or '-'}"
        yield _indented(f"{block.location.path} ({place})")
        for setting in report.of_block(block):
            yield _indented(f"  {setting.key}: {setting.value}  ({setting.source})")


class SettingsReport:
    """The settings of collectors, with the place in the document that each is from."""

    def __init__(self, document: Document) -> None:
        """Take the document that the settings were loaded from."""
        self._document = document
        self._lines = document.lines_by_path()

    def of_block(self, block: CollectorBlock) -> Iterator[Setting]:
        """Yield every setting of a block, the engine's first."""
        place = block.location.path
        raw = self._document.at(place)
        yield from self._of(block.common, raw, place)
        yield from self._of(block.config, raw, place)

    def _of(self, part: Any, raw: Any, place: str, prefix: str = "") -> Iterator[Setting]:
        for key in keys_in(part):
            value, given = _value(part, key), isinstance(raw, dict) and key.key in raw
            path, shown = f"{place}.{key.key}", f"{prefix}{key.key}"
            if given and keys_in(value) and isinstance(raw[key.key], dict):
                yield from self._of(value, raw[key.key], path, f"{shown}.")
            elif given:
                source = f"{self._document.file}:{self._lines.get(path, '-')}"
                yield Setting(shown, _shown(value, raw[key.key]), source)
            else:
                yield Setting(shown, _shown(value, None), "default")


def keys_in(value: Any) -> tuple[Key, ...]:
    """Return the keys of a block's value; none for other values."""
    kind: Any = type(value)
    return keys_of(kind) or ()


def _value(block: Any, key: Key) -> Any:
    return block.get(key.name) if isinstance(block, dict) else getattr(block, key.name)


def _shown(value: Any, raw: Any) -> str:
    """Return a value as people read it, without secrets."""
    if isinstance(value, Url) and value.password is not None:
        return f"{value} with a password"
    if isinstance(value, Secret | Url):
        return str(value)
    if isinstance(raw, Hidden):
        return "<hidden>"
    match value:
        case None:
            return "null"
        case list() | tuple():
            items = raw if isinstance(raw, list) else [None] * len(value)
            return f"[{', '.join(map(_shown, value, items))}]"
        case dict():
            return _shown_map([(key, value[key]) for key in value], raw)
        case _ if keys := keys_in(value):
            return _shown_map([(key.key, _value(value, key)) for key in keys], raw, only=raw)
        case _:
            return as_yaml(value) or str(value)


def _shown_map(items: Sequence[tuple[Any, Any]], raw: Any, only: Any = None) -> str:
    """Return the entries of a map; of a block, those that were given or all, by `only`."""
    given = raw if isinstance(raw, dict) else {}
    shown = [
        f"{key}: {_shown(value, given.get(key))}"
        for key, value in items
        if not isinstance(only, dict) or key in only
    ]
    return f"{{{', '.join(shown)}}}"


def _file_of(cls: type[Collector]) -> str:
    """Return the file that a collector type is defined in, relative to the current folder if it is below it."""
    try:
        file = inspect.getfile(cls)
    except (OSError, TypeError):  # made without a file
        return f"module {cls.__module__}"
    near = os.path.relpath(file)
    return file if near.startswith("..") else near


def _module_version(cls: type[Collector]) -> str:
    return str(getattr(inspect.getmodule(cls), "__version__", "unknown"))


def _indented(text: str) -> str:
    return f"{'':<{_WIDTH}} {text}".rstrip()
