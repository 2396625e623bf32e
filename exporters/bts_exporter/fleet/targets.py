"""An inventory as the JSON of Prometheus' file_sd and http_sd: `bts-exporter targets`."""

from __future__ import annotations

import json
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from bts_exporter.errors import ConfigError, OutputError
from bts_exporter.fleet.ansible_inventory import looks_like_ansible, read_ansible
from bts_exporter.fleet.machines import (
    JOB,
    Machine,
    join,
    problems_of,
)
from bts_exporter.fleet.own_inventory import read_own
from bts_exporter.settings.schema import Schema
from bts_exporter.settings.yaml_document import Document, read

_FORM = (
    "neither an inventory of bts-exporter (a key `groups`) nor an Ansible inventory in YAML; Ansible converts"
    " others: ansible-inventory -i FILE --list --yaml"
)
#: 10,000 hosts with a hundred variables each, as `ansible-inventory` writes them.
_MAX_VALUES = 2_000_000
#: As for other files: readable for Prometheus, which runs as another user.
_MODE = 0o644


def read_inventory(path: Path) -> list[Machine]:
    """Return the machines of an inventory, ours or Ansible's; ConfigError with every problem."""
    document = _read_yaml(path)
    if document.value is None:
        raise ConfigError([document.problem((), "it is empty")])
    schema = Schema(document)
    if isinstance(document.value, dict) and "groups" in document.value:
        machines = list(read_own(document, schema))
    elif looks_like_ansible(document.value):
        machines = list(read_ansible(document, schema))
    else:
        raise ConfigError([document.problem((), _FORM)])
    problems = [*schema.problems, *problems_of(machines)]
    if not problems and not machines:
        problems.append(document.problem((), "it has no hosts, so that nothing would be scraped"))
    if problems:
        raise ConfigError(sorted(dict.fromkeys(problems), key=lambda problem: problem.line or 0))
    return machines


def _read_yaml(path: Path) -> Document:
    try:
        return read(path, _MAX_VALUES)
    except ConfigError as error:
        # Ansible's other format begins with [GROUP] or with a host.
        first = error.problems[0]
        if first.message.startswith("not YAML") and path.suffix not in {".yml", ".yaml"}:
            error = ConfigError([first._replace(message=f"{first.message}; it is {_FORM}")])
        raise error from None


def warnings_of(machines: Iterable[Machine]) -> list[str]:
    """Return a warning for each job that the alert rules do not know."""
    jobs = sorted({machine.labels.get("job", JOB) for machine in machines} - {JOB})
    return [
        f"warning: the job is {job!r}: alerts such as BtsExporterDown expect {JOB!r}"
        for job in jobs
    ]


def page(machines: Iterable[Machine]) -> str:
    """Return the JSON: a block for each set of labels; equal inventories give equal bytes."""
    groups: dict[tuple[tuple[str, str], ...], list[str]] = defaultdict(list)
    for machine in machines:
        labels = {"job": JOB, **machine.labels}
        if machine.address != machine.name:
            labels["instance"] = join(machine.name, machine.port)
        groups[tuple(sorted(labels.items()))].append(machine.target)
    blocks = [{"targets": sorted(groups[key]), "labels": dict(key)} for key in sorted(groups)]
    return json.dumps(blocks, indent=2, ensure_ascii=False) + "\n"


def summary(machines: Sequence[Machine]) -> Iterator[str]:
    """Yield the number of targets, and the machine that monitors each broker."""
    yield f"{len(machines)} targets"
    for machine in sorted(machines, key=lambda machine: machine.name):
        for broker in machine.brokers:
            yield f"{broker.type_name} {broker.address}: monitored by {machine.name}"


def write(path: Path, text: str) -> None:
    """Replace a file at once, so that Prometheus never reads half of it; OutputError if that fails."""
    path = Path(os.path.realpath(path))  # of a link, the file that it leads to
    try:
        # Prometheus reads every *.json of the folder: the temporary file has another ending.
        number, temporary = tempfile.mkstemp(
            prefix=f".{path.name}.", suffix=".tmp", dir=path.parent
        )
    except OSError as error:
        msg = f"{path}: cannot be written: {error.strerror}"
        if isinstance(error, FileNotFoundError):
            msg += f": create the folder {path.parent}"
        raise OutputError(msg) from error
    try:
        with os.fdopen(number, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(number)
            os.fchmod(number, _MODE)
        Path(temporary).replace(path)
    except OSError as error:
        with suppress(OSError):
            Path(temporary).unlink()
        msg = f"{path}: cannot be written: {error.strerror}"
        raise OutputError(msg) from error
