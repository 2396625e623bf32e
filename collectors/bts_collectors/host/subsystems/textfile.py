"""Metrics that others wrote to files: jobs that ran, packages to update, what a script found."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterable, Iterator

from bts_collectors.host.kernel.open_files import close_file, with_room
from bts_collectors.host.kernel.text_check import sound
from bts_collectors.host.kernel.text_format import Family, Sample, parse
from bts_collectors.host.subsystem import Paths, Subsystem
from bts_exporter import CollectorConfig, Kind, Metric, Scrape, TargetError, gauge

_BOUNDS = {Kind.HISTOGRAM: "le", Kind.SUMMARY: "quantile"}


class TextfileSettings(CollectorConfig, frozen=True):
    """Settings of `textfile`."""

    #: Folders, or globs of folders, with files named `*.prom`.
    directories: tuple[str, ...] = ()


class TextfileConfig(Paths, frozen=True):
    """Settings of `textfile`, and where the files are."""

    settings: TextfileSettings = TextfileSettings()


class Textfile(Subsystem):
    """Metrics from files in the text format 0.0.4."""

    name = "textfile"
    Config = TextfileConfig
    Settings = TextfileSettings

    mtime = gauge(
        "node_textfile_mtime_seconds",
        "When a file that is served had changed, in Unix time (fstat, st_mtime).",
        ("file",),
    )
    error = gauge(
        "node_textfile_scrape_error",
        "1 if any file or folder of textfile.directories could not be served whole, 0 otherwise.",
    )

    config: TextfileConfig

    def __init__(self, config: TextfileConfig) -> None:
        super().__init__(config)
        self.open_ended = bool(config.settings.directories)
        #: The metrics of the scrape before: the engine remembers how their series are written.
        self._metrics: dict[tuple[str, ...], Metric] = {}

    def collect(self, scrape: Scrape) -> None:
        """Emit what is in the files; what is wrong with one costs that file alone."""
        problems: list[str] = []
        files = self._files(scrape, problems)
        known, self._metrics = self._metrics, {}
        for family in merged(files, problems):
            labels = label_names(family)
            key = (family.name, family.kind, family.help or "", *labels)
            metric = known.get(key) or Metric(family.name, family.help or "", family.kind, labels)
            self._metrics[key] = metric
            samples = [(key_of(metric, sample), sample.value) for sample in family.samples]
            scrape.emit_family(metric, samples)
        scrape.emit(self.error, int(bool(problems)))
        if problems:
            raise TargetError(reason="protocol", message="; ".join(problems))

    def _files(self, scrape: Scrape, problems: list[str]) -> Iterator[tuple[str, list[Family]]]:
        """Yield `(file, families)` of every file that can be read whole."""
        for path in paths(self.config.settings.directories, problems):
            try:
                text, changed = read_text(path)
                families = parse(text)
            except OSError as error:
                problems.append(f"{path}: {error.strerror}")
            except ValueError as error:
                problems.append(f"{path}: {error}")
            else:
                scrape.emit(self.mtime, changed, path)
                for family in families:
                    problems += [f"{path}: {problem}" for problem in sound(family)]
                yield path, families


def paths(directories: Iterable[str], problems: list[str]) -> list[str]:
    """Return the files named `*.prom` in folders, each once; a folder that is not there is a problem."""
    folders: dict[str, None] = {}
    for directory in directories:
        found = sorted(glob.glob(directory))  # noqa: PTH207  # a pattern, not a folder
        if not found:
            problems.append(f"{directory}: no such folder")
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
    """Return the text of a file and when it had changed; ValueError where it is no file or no text."""
    # A pipe without a writer would hold us for ever.
    descriptor = with_room(os.open, path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            msg = "is no regular file"
            raise ValueError(msg)
        with open(descriptor, "rb", closefd=False) as file:  # not by its path
            return file.read().decode(), status.st_mtime
    finally:
        close_file(descriptor)


def merged(files: Iterable[tuple[str, list[Family]]], problems: list[str]) -> list[Family]:
    """Return one family a name: files may share a metric, of which the first type and help count.

    Of samples that two files have the first is taken.
    """
    families: dict[str, Family] = {}
    sources: dict[str, list[str]] = {}
    for path, found in files:
        for family in found:
            first = families.setdefault(family.name, family)
            if first is family or _joined(first, family, f"{path}: {family.name}", problems):
                sources.setdefault(family.name, []).append(path)
    for name, family in families.items():
        family.help = family.help or f"Metric read from {', '.join(sources[name])}"
    return list(families.values())


def _joined(first: Family, other: Family, where: str, problems: list[str]) -> bool:
    if first.kind is not other.kind:
        problems.append(f"{where} is a {first.kind} in another file")
        return False
    if first.help and other.help and first.help != other.help:
        problems.append(f"{where} has another help in another file")
    first.help = first.help or other.help
    known = {_identity(sample) for sample in first.samples}
    fresh = [sample for sample in other.samples if _identity(sample) not in known]
    if len(fresh) < len(other.samples):
        problems.append(f"{where} has samples that another file has too")
    first.samples += fresh
    return True


def _identity(sample: Sample) -> tuple[str, frozenset[tuple[str, str]]]:
    return sample.suffix, frozenset(sample.labels.items())


def label_names(family: Family) -> tuple[str, ...]:
    """Return the labels that any sample has, but those that a histogram or a summary brings itself."""
    names = dict.fromkeys(label for sample in family.samples for label in sample.labels)
    names.pop(_BOUNDS.get(family.kind, ""), None)
    return tuple(names)


def key_of(metric: Metric, sample: Sample) -> tuple[str, ...]:
    """Return a sample's key within its metric; labels that it has not are empty."""
    values = tuple(sample.labels.get(label, "") for label in metric.labels)
    if not metric.compound:
        return values
    bound = sample.labels.get(_BOUNDS[metric.kind])
    return (sample.suffix, *values) if bound is None else (sample.suffix, *values, bound)


COLLECTOR = Textfile
