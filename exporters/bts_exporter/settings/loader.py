"""Loads config.yaml as typed, frozen settings; every error has file, line and path."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Protocol

import msgspec

from bts_exporter.errors import ConfigError, PluginError, Problem
from bts_exporter.plugin import Collector, CollectorConfig
from bts_exporter.settings import misplaced_keys
from bts_exporter.settings.ownership import problem_with
from bts_exporter.settings.schema import INVALID, Schema, nearest
from bts_exporter.settings.tls import TLSConfig
from bts_exporter.settings.value_types import Duration
from bts_exporter.settings.yaml_document import UNREADABLE, Document, Path_, read

log = logging.getLogger("bts_exporter.settings.loader")

#: Where settings are searched for without --config.file; the first file that exists is used.
SEARCH = (Path("config.yaml"), Path("/etc/bts-exporter/config.yaml"))

#: The settings without a configuration file: this host, and the brokers that may run on it.
BUILT_IN = """\
collectors:
  host:
  rabbitmq: {url: "http://guest:guest@127.0.0.1:15672", optional: true}
  redis: {url: "redis://127.0.0.1:6379", optional: true}
  mqtt: {url: "mqtt://127.0.0.1:1883", optional: true}
"""

_LABEL = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")
#: Labels of the engine, and those of histograms and summaries.
_RESERVED = frozenset({"target", "le", "quantile"})
#: What `Common.__post_init__` checks, for editors.
_LABELS_SCHEMA = {
    "propertyNames": {
        "pattern": rf"^{_LABEL.pattern}$(?!\n)",
        "not": {"enum": sorted(_RESERVED)},
    },
    "additionalProperties": {"minLength": 1},
}
_AT_LEAST_1 = msgspec.Meta(extra_json_schema={"minimum": 1})
_POSITIVE = msgspec.Meta(extra_json_schema={"exclusiveMinimum": 0})

#: The shortest scrape_timeout, in seconds: no target answers in less.
_MIN_SCRAPE_TIMEOUT = 0.1


class MetricFilter(msgspec.Struct, frozen=True):
    """Which metrics of a collector are served: globs on their names, `deny` over `allow`."""

    #: Only these, and those that say whether a target is up; all if empty.
    allow: tuple[str, ...] = ()
    #: None of these.
    deny: tuple[str, ...] = ()


class Common(msgspec.Struct, frozen=True, kw_only=True):
    """The settings that all collectors have."""

    #: The label `target` of all its series; required if a type is configured twice.
    name: str = ""
    #: Further labels of all its series.
    labels: Annotated[dict[str, str], msgspec.Meta(extra_json_schema=_LABELS_SCHEMA)] = {}
    #: Collect in the background this often, instead of at each scrape.
    interval: Annotated[Duration, _AT_LEAST_1] | None = None
    #: Longest time for one collection, if shorter than the scrape's.
    timeout: Annotated[Duration, _POSITIVE] | None = None
    #: Further series are dropped and counted.
    max_series: Annotated[int, _AT_LEAST_1] = 100_000
    #: Whether the target may be absent: a refused connection is then not a failure.
    optional: bool = False
    metrics: MetricFilter = MetricFilter()

    def __post_init__(self) -> None:
        """Check the values; ValueError with all problems."""
        wrong = [
            f"labels: {label!r} is not a valid label name (expected letters, digits and _; not {', '.join(sorted(_RESERVED))})"
            for label in self.labels
            if not _LABEL.fullmatch(label) or label in _RESERVED
        ]
        wrong += [
            f"labels: the value of {label} is empty, which Prometheus treats as a missing label"
            for label in self.labels
            if not self.labels[label]
        ]
        if self.interval is not None and self.interval < 1:
            wrong.append(f"interval: must be at least 1 s, got {self.interval:g}")
        if self.timeout is not None and self.timeout <= 0:
            wrong.append("timeout: must be more than 0")
        if self.max_series < 1:
            wrong.append(f"max_series: must be at least 1, got {self.max_series}")
        if wrong:
            raise ValueError("; ".join(wrong))


COMMON_KEYS = frozenset(Common.__struct_fields__)


class CollectorBlock(msgspec.Struct, frozen=True):
    """One configured collector type, ready to be built."""

    type_name: str
    type: type[Collector]
    common: Common
    config: CollectorConfig
    #: Where the block is in the file, for problems that are found later.
    location: Problem
    #: Where its filter of metrics is.
    metrics_location: Problem | None = None


class Settings(msgspec.Struct, frozen=True):
    """The settings of a configuration file."""

    file: str
    blocks: tuple[CollectorBlock, ...]
    #: Types that are configured and cannot be loaded, with their location in the file.
    broken: tuple[tuple[str, Problem], ...]
    #: The upper limit of a scrape's duration, in seconds; Prometheus may send a shorter timeout.
    scrape_timeout: float
    #: The folder in which collectors store their history; None if they do not.
    state: Path | None = None
    #: TLS settings and their locations: `check` tests whether their files can be used.
    tls: tuple[tuple[TLSConfig, Problem], ...] = ()
    #: Settings without effect, which are most likely mistakes.
    warnings: tuple[Problem, ...] = ()


class TopLevel(msgspec.Struct, frozen=True):
    """The keys of a settings file."""

    #: The collectors by type; if the key is missing, this host and the brokers on it.
    collectors: Any = msgspec.UNSET
    #: Folder of plug-ins (files *.py and packages), relative to this file.
    plugins: str = "/etc/bts-exporter/plugins"
    #: Maximum duration of a scrape; the timeout that Prometheus sends applies if it is shorter.
    scrape_timeout: Annotated[
        Duration, msgspec.Meta(extra_json_schema={"minimum": _MIN_SCRAPE_TIMEOUT})
    ] = Duration(9.5)
    #: Folder in which collectors store their history, so that a restart does not lose it; without it nothing is stored.
    state: str | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        if self.state == "":
            msg = "state: expected the name of a folder, or no such key"
            raise ValueError(msg)
        if self.scrape_timeout < _MIN_SCRAPE_TIMEOUT:
            msg = f"scrape_timeout: must be at least {_MIN_SCRAPE_TIMEOUT} s, got {self.scrape_timeout:g}"
            raise ValueError(msg)


class Types(Protocol):
    """Where collector types come from."""

    def names(self) -> list[str]:
        """Return the names of all types, broken ones included."""

    def load(self, name: str) -> type[Collector]:
        """Return the type `name`; PluginError when it cannot be loaded."""


class TypesIn(Protocol):
    """Makes the types known, given the drop-in folder that the settings name."""

    def __call__(self, folder: Path) -> Types:
        """Look into `folder`."""


def find(explicit: str | None) -> Path | None:
    """Return the configuration file; None if the built-in settings apply."""
    if explicit is not None:  # an empty name is reported as a mistake
        return Path(explicit)
    return next((path for path in SEARCH if path.exists() and _is_trusted(path)), None)


def _is_trusted(path: Path) -> bool:
    """Return whether only root and our user can write `path`, which --config.file did not name."""
    problem = "" if path.is_absolute() else problem_with(path)
    if problem:
        _report(f"{path} is not used: {problem}; or name the file: --config.file={path}")
    return not problem


@cache  # commands look for the settings more than once
def _report(message: str) -> None:
    log.error(message)


def plugins_folder(path: Path | None) -> Path:
    """Return the drop-in folder that the settings in `path` name, whatever else is in them."""
    document = document_of(path)
    return _folder(document, _folder_named(document))


def load(path: Path | None, types_in: TypesIn) -> Settings:
    """Return the settings in `path`, or the built-in ones; ConfigError holds every problem."""
    return load_document(document_of(path), types_in)


def load_document(document: Document, types_in: TypesIn) -> Settings:
    """Return the settings in a document; ConfigError holds every problem."""
    if document.value is None or document.value == {}:
        # Most likely the rest of a file that could not be written; it must not enable all defaults.
        msg = "the file is empty (without a configuration file, this host and the brokers on it are monitored)"
        raise ConfigError([document.problem((), msg)])
    schema = Schema(document)
    folder = _folder(document, _folder_named(document))
    types = types_in(folder)
    top = schema.convert(_without_misplaced(document, types, schema), TopLevel, ())
    if top is INVALID:
        # Check the collectors, too, so that all problems are reported at once.
        top = TopLevel(_of(document, "collectors", {}))
    raw = top.collectors
    if raw is msgspec.UNSET:
        raw = Document("", BUILT_IN).value["collectors"]
    converter = _Blocks(schema, types, folder)
    blocks = converter.convert(raw)
    if schema.problems:
        problems = schema.problems + [problem for _, problem in converter.broken]
        raise ConfigError(sorted(problems, key=lambda problem: problem.line or 0))
    return Settings(
        document.file,
        tuple(blocks),
        tuple(converter.broken),
        float(top.scrape_timeout),
        None if top.state is None else _folder(document, top.state),
        tuple(schema.tls),
        (
            *_no_collectors(document, raw),
            *_missing_folder(document, folder),
            *_late_timeouts(document, converter, float(top.scrape_timeout)),
        ),
    )


def document_of(path: Path | None) -> Document:
    """Return the document in `path`, or that of the built-in settings."""
    return read(path) if path is not None else Document("built-in settings", BUILT_IN)


def _without_misplaced(document: Document, types: Types, schema: Schema) -> Any:
    """Return the values without top-level keys that belong elsewhere, and add a problem for each of those."""
    if not isinstance(document.value, dict):
        return document.value
    known = TopLevel.__struct_fields__
    found: dict[str, Any] = {}
    for key, value in document.value.items():
        advice = "" if key in known else misplaced_keys.advice_at_top(key)
        if key not in known and key in types.names():
            advice = f"it belongs below collectors, indented: collectors: {{{key}: ...}}"
        if advice:
            schema.unknown(key, known, (key,), advice=advice)
        else:
            found[key] = value
    return found


def _no_collectors(document: Document, raw: object) -> Iterator[Problem]:
    """Yield a warning for an empty map of collectors, which may be the rest of a template."""
    if raw == {}:
        message = "no collector is configured: only the exporter's own metrics are served"
        yield document.problem(("collectors",), message)


def _missing_folder(document: Document, folder: Path) -> Iterator[Problem]:
    """Yield a warning for a folder of plug-ins that is named and missing; the default one may be missing."""
    if _folder_named(document) != TopLevel().plugins and not os.path.isdir(folder):  # noqa: PTH112  # also for names that are too long
        yield document.problem(("plugins",), f"no effect: {folder} does not exist")


def _late_timeouts(
    document: Document, converter: _Blocks, scrape_timeout: float
) -> Iterator[Problem]:
    """Yield a warning for each timeout that is longer than a collection can take."""
    for common, path in converter.timeouts:
        key = "scrape_timeout" if common.interval is None else "interval"
        end = scrape_timeout if common.interval is None else common.interval
        if common.timeout is not None and common.timeout > end:
            message = f"no effect: a collection ends after {end:g} s already ({key})"
            yield document.problem(path, message)


def _as_map(raw: Any) -> str:
    """Return how to write the map of collectors instead of `raw`."""
    if isinstance(raw, list):
        return "; write each type without a hyphen and with a colon, such as host:"
    return "; write each type in a line of its own, indented, such as host:"


def _as_block(raw: Any) -> str:
    """Return how to write a block of settings instead of `raw`."""
    match raw:
        case True:
            return "; write nothing behind the colon to collect it as it is"
        case False:
            return "; leave it out to switch it off"
        case str() if re.match(r"\w+\s*=", raw):
            return "; a key and its value are written key: value"
        case str() if "://" in raw and not raw.partition(":")[2].startswith("//"):
            return "; a space is missing behind the colon of its key"
        case str() if "://" in raw:
            return "; an address is written {url: ADDRESS}"
        case _:
            return "; write its settings below it, indented, as key: value"


def _of(document: Document, key: str, default: Any) -> Any:
    return document.value.get(key, default) if isinstance(document.value, dict) else default


def _folder_named(document: Document) -> str:
    named = _of(document, "plugins", None)
    return named if isinstance(named, str) else TopLevel().plugins


def _folder(document: Document, named: str) -> Path:
    # Relative to the settings, as every path in them.
    return Path(document.file).parent / named


class _Blocks:
    """Converts the map of collectors, one type after another."""

    def __init__(self, schema: Schema, types: Types, folder: Path) -> None:
        self._schema = schema
        self._types = types
        self._folder = folder
        self.broken: list[tuple[str, Problem]] = []
        #: The settings common to all of each block, with the place of its timeout.
        self.timeouts: list[tuple[Common, Path_]] = []

    def convert(self, raw: Any) -> list[CollectorBlock]:
        path: Path_ = ("collectors",)
        if raw is UNREADABLE:
            return []
        if not isinstance(raw, dict):
            message = f"expected a map from collector types to their settings{_as_map(raw)}"
            self._schema.add_problem(path, message)
            return []
        blocks: list[CollectorBlock] = []
        for type_name, value in raw.items():
            if type_name in self._types.names():
                blocks.extend(self._of_type(type_name, value, (*path, type_name)))
            else:
                self._unknown(type_name, (*path, type_name))
        return blocks

    def _unknown(self, type_name: str, path: Path_) -> None:
        names, advice = self._types.names(), ""
        if nearest(type_name, names) is None and not os.path.isdir(self._folder):  # noqa: PTH112  # as above
            advice = f"known: {', '.join(names)}; there is no folder of plug-ins {self._folder}"
        elif (self._folder / type_name).is_dir():
            advice = (
                f"the folder {self._folder / type_name} is a plug-in if it has a file __init__.py"
            )
        self._schema.unknown(type_name, names, path, what="collector type", advice=advice)

    def _of_type(self, type_name: str, raw: Any, path: Path_) -> list[CollectorBlock]:
        try:
            cls = self._types.load(type_name)
        except PluginError as error:
            self.broken.append((type_name, self._schema.document.problem(path, str(error))))
            return []
        if not isinstance(raw, list):
            found = [self._block(type_name, cls, raw, path)]
        elif not raw:
            self._schema.add_problem(
                path, "an empty list: leave the key out, or put a block into it"
            )
            return []
        else:
            found = [self._block(type_name, cls, item, (*path, i)) for i, item in enumerate(raw)]
        blocks = [block for block in found if block is not None]
        self._check_names(blocks)
        return blocks

    def _block(
        self, type_name: str, cls: type[Collector], raw: Any, path: Path_
    ) -> CollectorBlock | None:
        raw = {} if raw is None else raw
        if raw is UNREADABLE:
            return None
        if not isinstance(raw, dict):
            message = f"expected a block of settings, or a list of blocks{_as_block(raw)}"
            self._schema.add_problem(path, message)
            return None
        known = {*COMMON_KEYS, *cls.Config.__struct_fields__}
        for key in raw.keys() - known:
            hint = misplaced_keys.advice(key, known, cls.Config)
            if isinstance(raw[key], dict) and "url" in known and "url" in raw[key]:
                hint = f"several targets are a list of blocks: - {{name: {key}, url: ...}}"
            self._schema.unknown(key, known, (*path, key), advice=hint)
        shared = {key: value for key, value in raw.items() if key in COMMON_KEYS}
        own = {k: v for k, v in raw.items() if k in known and k not in COMMON_KEYS}
        shared = {"max_series": cls.default_max_series, **shared}
        common = self._schema.convert(shared, Common, path)
        config = self._schema.convert(own, cls.Config, path)
        if common is INVALID or config is INVALID:
            return None
        problem = self._schema.document.problem
        self.timeouts.append((common, (*path, "timeout")))
        location = problem((*path, "metrics"), "") if "metrics" in raw else None
        return CollectorBlock(type_name, cls, common, config, problem(path, ""), location)

    def _check_names(self, blocks: list[CollectorBlock]) -> None:
        names: set[str] = set()
        for block in blocks:
            if len(blocks) > 1 and not block.common.name:
                message = (
                    "name is missing: it is required to distinguish several targets of one type"
                )
                self._schema.problems.append(block.location._replace(message=message))
            elif block.common.name in names:
                message = f"a target named {block.common.name!r} is there already"
                self._schema.problems.append(block.location._replace(message=message))
            names.add(block.common.name)
