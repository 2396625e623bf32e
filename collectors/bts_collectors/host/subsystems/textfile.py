"""Metrics from text files, such as those that cron jobs and scripts write."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from bts_collectors.host.kernel.open_files import close_file, with_room
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import (
    CollectorConfig,
    Kind,
    Metric,
    Scrape,
    TargetError,
    check_samples,
    gauge,
    prometheus_text,
)

_BOUNDS = {Kind.HISTOGRAM: "le", Kind.SUMMARY: "quantile"}


class TextfileSettings(CollectorConfig, frozen=True):
    """Settings of `textfile`."""

    #: Directories, or globs of directories, with files named `*.prom`.
    directories: tuple[str, ...] = ()


@dataclass(slots=True)
class Family:
    """A metric with its samples from all files; `sources` are the files."""

    name: str
    kind: Kind
    help: str
    samples: list[prometheus_text.Sample] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)


#: A file, its path, and the metrics in it.
ParsedFile = tuple[str, list[Family]]


class Textfile(Subsystem):
    """Metrics from files in the Prometheus text format 0.0.4."""

    name = "textfile"
    Settings = TextfileSettings

    mtime = gauge(
        "node_textfile_mtime_seconds",
        "Modification time of a file that is served, in Unix time (fstat, st_mtime).",
        ("file",),
    )
    error = gauge(
        "node_textfile_scrape_error",
        "Whether a file or directory of textfile.directories has an error.",
    )

    settings: TextfileSettings

    def __init__(self, config: Paths) -> None:
        super().__init__(config)
        self.open_ended = bool(self.settings.directories)
        #: The metrics of the previous scrape: the engine keeps how their series are rendered.
        self._metrics: dict[tuple[str, ...], Metric] = {}

    def collect(self, scrape: Scrape) -> None:
        """Emit the metrics of all files; an invalid file loses only its own."""
        problems: list[str] = []
        files = self._files(scrape, problems)
        previous, self._metrics = self._metrics, {}
        for family in merge(files, problems):
            labels = label_names(family)
            help_ = family.help or f"Metric read from {', '.join(family.sources)}"
            key = (family.name, family.kind, help_, *labels)
            metric = previous.get(key) or Metric(family.name, help_, family.kind, labels)
            self._metrics[key] = metric
            samples = [(key_of(metric, sample), sample.value) for sample in family.samples]
            scrape.emit_family(metric, samples)
        scrape.emit(self.error, int(bool(problems)))
        if problems:
            raise TargetError(reason="protocol", message="; ".join(problems))

    def _files(self, scrape: Scrape, problems: list[str]) -> Iterator[ParsedFile]:
        """Yield each file that can be parsed as a whole."""
        for path in paths(self.settings.directories, problems):
            try:
                text, modified = read_text(path)
                parsed = prometheus_text.parse(text)
            except OSError as error:
                problems.append(f"{path}: {error.strerror}")
            except ValueError as error:
                problems.append(f"{path}: {error}")
            else:
                scrape.emit(self.mtime, modified, path)
                families = []
                for family in parsed:
                    samples, errors = check_samples(family)
                    problems += [f"{path}: {error}" for error in errors]
                    families.append(Family(family.name, family.kind, family.help, samples, [path]))
                yield path, families


def paths(directories: Iterable[str], problems: list[str]) -> list[str]:
    """Return the files named `*.prom`, each once; a missing directory is added to `problems`."""
    folders: dict[str, None] = {}
    for directory in directories:
        found = sorted(glob.glob(directory))  # noqa: PTH207  # a pattern, not a path
        if not found:
            problems.append(f"{directory}: no such directory")
        folders.update(dict.fromkeys(found))
    files: dict[str, None] = {}
    for folder in folders:
        try:
            names = sorted(with_room(os.listdir, folder))
        except OSError as error:
            problems.append(f"{folder}: {error.strerror}")
        else:
            files.update((os.path.join(folder, n), None) for n in names if n.endswith(".prom"))  # noqa: PTH118
    return list(files)


def read_text(path: str) -> tuple[str, float]:
    """Return text and modification time of a file; ValueError if it is not a regular file, or not UTF-8."""
    # Without O_NONBLOCK a pipe without a writer would block forever.
    descriptor = with_room(os.open, path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            msg = "is not a regular file"
            raise ValueError(msg)
        with open(descriptor, "rb", closefd=False) as file:  # not the path, which may have changed
            return file.read().decode(), status.st_mtime
    finally:
        close_file(descriptor)


def merge(files: Iterable[ParsedFile], problems: list[str]) -> list[Family]:
    """Return one family per name: several files may have samples of one metric.

    If they disagree, the first file wins: its type, its help, and its value for a series in both. A
    histogram or summary comes from one file as a whole.
    """
    families: dict[str, Family] = {}
    for path, found in files:
        for family in found:
            first = families.setdefault(family.name, family)
            if first is not family:
                _add(first, family, f"{path}: {family.name}", problems)
    return list(families.values())


def _add(first: Family, other: Family, place: str, problems: list[str]) -> None:
    """Add the samples of another file to a family."""
    if first.kind is not other.kind:
        problems.append(f"{place} is a {first.kind} in {', '.join(first.sources)}")
        return
    if first.help and other.help and first.help != other.help:
        problems.append(f"{place} has a different help in {', '.join(first.sources)}")
    first.help = first.help or other.help
    known = {_identity(first.kind, sample) for sample in first.samples}
    new = [sample for sample in other.samples if _identity(first.kind, sample) not in known]
    if len(new) < len(other.samples):
        problems.append(f"{place} has samples that are also in {', '.join(first.sources)}")
    first.samples += new
    first.sources += other.sources


def _identity(kind: Kind, sample: prometheus_text.Sample) -> frozenset[tuple[str, str]]:
    """Return the labels of a sample without the bound of a bucket or quantile."""
    bound = _BOUNDS.get(kind)
    return frozenset(item for item in sample.labels.items() if item[0] != bound)


def label_names(family: Family) -> tuple[str, ...]:
    """Return the labels that any sample has, without `le` of histograms and `quantile` of summaries."""
    names = dict.fromkeys(label for sample in family.samples for label in sample.labels)
    names.pop(_BOUNDS.get(family.kind, ""), None)
    return tuple(names)


def key_of(metric: Metric, sample: prometheus_text.Sample) -> tuple[str, ...]:
    """Return the key of a sample within its metric; a label that the sample lacks is empty."""
    values = tuple(sample.labels.get(label, "") for label in metric.labels)
    if not metric.compound:
        return values
    bound = sample.labels.get(_BOUNDS[metric.kind])
    return (sample.suffix, *values) if bound is None else (sample.suffix, *values, bound)


COLLECTOR = Textfile
