from __future__ import annotations

import inspect
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from bts_exporter import Collector, CollectorConfig, Metric, NotPresent, Scrape, backlog, gauge
from bts_exporter.collection.background import BackgroundRunner
from bts_exporter.collection.builder import Assembly, PlaceholderCollector
from bts_exporter.collection.collector_set import CollectorSet
from bts_exporter.errors import TargetError
from bts_exporter.settings.loader import load

SHARED = gauge("shared", "Shared by import.", ("key",))

#: Assembles a text of settings, optionally after an active set.
Assemble = Callable[..., Assembly]


class Config(CollectorConfig, frozen=True):
    """Settings that a test changes."""

    path: str = ""


class Typed(Collector):
    """Base of the types below, with their settings."""

    Config = Config

    def collect(self, scrape: Scrape) -> None:
        """Emit nothing."""


class One(Typed):
    """A type with an own and a shared metric."""

    own = gauge("one", "One.", ("key",))
    shared = SHARED


class Other(Typed):
    """Another type with the shared metric."""

    own = gauge("other", "Other.")
    shared = SHARED


class Same(Typed):
    """A type that declares a name of `One`."""

    own = gauge("one", "Not the same.")


class Named(One):
    """A type whose settings name a metric."""

    @classmethod
    def declared_by(cls, config: Config) -> Iterator[Metric]:
        """Yield it."""
        yield gauge(config.path, "Named by the settings.", ("mine",))


class Process(Typed):
    """A type that declares a name of the exporter itself."""

    own = gauge("process_open_fds", "Not the same.")


class Broker(Typed):
    """A type with the common metrics."""

    vocabulary = backlog.VOCABULARY


class Local(Typed):
    """A type that cannot hang."""

    local = True


class Cpu(Typed):
    """Part of `Host`."""

    name = "cpu"


class Meminfo(Typed):
    """Part of `Host`."""

    name = "meminfo"


class Host(Typed):
    """A type that builds several collectors."""

    parts: Sequence[Any] = (Cpu, Meminfo)

    @classmethod
    def build(cls, config: Config) -> Sequence[Collector]:
        """Build one of each part."""
        return [part(config) for part in cls.parts]


class Twins(Host):
    """A type whose collectors have the same name."""

    parts = (Cpu, Cpu)


class Wrong(Host):
    """A type that builds an object that is not a collector."""

    parts = (Cpu, str)


class Failing(Typed):
    """A type whose constructor raises the error in its settings."""

    def __init__(self, config: Config) -> None:
        """Raise."""
        errors: dict[str, BaseException] = {
            "value": ValueError("path: must exist"),
            "defect": KeyError("x"),
            "exit": SystemExit(3),
            "interrupt": KeyboardInterrupt(),
        }
        raise errors[config.path]


TYPES: dict[str, type[Collector]] = {
    "one": One,
    "other": Other,
    "same": Same,
    "named": Named,
    "process": Process,
    "broker": Broker,
    "broker2": type("Broker2", (Broker,), {}),
    "local": Local,
    "host": Host,
    "cpu": Cpu,
    "twins": Twins,
    "wrong": Wrong,
    "failing": Failing,
}


class Types:
    """The types above."""

    def __init__(self, _: Path) -> None:
        pass

    def names(self) -> list[str]:
        """Return their names."""
        return sorted(TYPES)

    def load(self, name: str) -> type[Collector]:
        """Return the type."""
        return TYPES[name]


@pytest.fixture
def assemble(tmp_path: Path) -> Assemble:
    """Return a function that assembles collectors, given as YAML without its first key."""

    def assemble(collectors: str, before: CollectorSet | None = None) -> Assembly:
        path = tmp_path / "c.yaml"
        path.write_text(f"collectors: {{{collectors}}}\n")
        return Assembly(load(path, Types), before)

    return assemble


def identities(assembly: Assembly) -> list[str]:
    """Return the names of the collectors."""
    return [runner.identity for runner in assembly.set.runners]


def messages(assembly: Assembly) -> list[str]:
    """Return the problems of collectors that could not be built."""
    return [f"{problem.path}: {problem.message}" for problem in assembly.problems]


# Building


def test_every_block_becomes_collectors(assemble: Assemble) -> None:
    """Each block builds the collectors of its type, in the order of the settings; all are new."""
    assembly = assemble("other: , one: [{name: a}, {name: b}], host: ")

    assert identities(assembly) == ["other", "one[a]", "one[b]", "cpu", "meminfo"]
    assert [runner.kind for runner in assembly.set.runners] == [
        "other",
        "one",
        "one",
        "host",
        "host",
    ]
    assert assembly.new == assembly.set.runners
    assert assembly.problems == []


def test_interval_makes_a_background_collector(assemble: Assemble) -> None:
    """A collector with an interval is collected on its own."""
    [runner] = assemble("one: {interval: 60}").set.runners

    assert isinstance(runner, BackgroundRunner)


def test_shared_metrics_are_no_collision(assemble: Assemble) -> None:
    """Types may share a metric that is the same object, such as the vocabulary's."""
    assert assemble("one: , other: , broker: {name: a}, broker2: {name: b}").problems == []


def test_metric_of_the_settings_may_be_in_two_blocks(assemble: Assemble) -> None:
    """Two brokers may have the same rules."""
    assert assemble("named: [{name: a, path: x}, {name: b, path: x}]").problems == []


@pytest.mark.parametrize(
    ("collectors", "identity", "message"),
    [
        ("one: , same: ", "same", "collectors.same: type same: metric one is one of one already"),
        ("process: ", "process", "collectors.process: type process: metric process_open_fds is one of the exporter itself already"),
        ("one: {labels: {key: x}}", "one", "collectors.one: labels: metric one has a label 'key' of its own"),
        ("broker: {labels: {system: x, group: y}}", "broker", "collectors.broker: labels: metric messaging_backlog_messages has a label 'group' of its own"),
        ("broker: , named: {path: messaging_consumers}", "named", "collectors.named: type named: metric messaging_consumers is one of broker already"),
        ("named: {path: one}", "named", "collectors.named: type named: metric one is one of named already"),
        ("named: {path: process_open_fds}", "named", "collectors.named: type named: metric process_open_fds is one of the exporter itself already"),
        ("named: {path: x, labels: {mine: y}}", "named", "collectors.named: labels: metric x has a label 'mine' of its own"),
        ("failing: {path: value}", "failing", "collectors.failing: path: must exist (LINE)"),
        ("failing: {path: defect}", "failing", "collectors.failing: KeyError: 'x' (LINE)"),
        ("failing: {path: exit}", "failing", "collectors.failing: SystemExit: 3 (LINE)"),
        ("failing: [{name: a, path: exit}]", "failing[a]", "collectors.failing[0]: SystemExit: 3 (LINE)"),
        ("wrong: ", "wrong", "collectors.wrong: type wrong: build returned str, expected a Collector"),
        ("twins: ", "twins", "collectors.twins: type twins: there is a collector cpu already"),
        ("host: , cpu: ", "cpu", "collectors.cpu: type cpu: there is a collector cpu already"),
    ],
)  # fmt: skip
def test_what_cannot_be_made(
    assemble: Assemble, collectors: str, identity: str, message: str
) -> None:
    """A collector that cannot be built is a problem with its location, and a placeholder shows its failure."""
    _, first = inspect.getsourcelines(Failing)
    message = message.replace("LINE", f"{__file__}:{first + 11}")

    assembly = assemble(f"{collectors}, other: ")

    assert messages(assembly) == [message]
    [stand_in] = [r for r in assembly.set.runners if isinstance(r.collector, PlaceholderCollector)]
    assert stand_in.identity == identity
    assert "other" in identities(assembly)
    with pytest.raises(TargetError, match=f"^{re.escape(message.partition(': ')[2])}$"):
        stand_in.collector.collect(Scrape(0))


def test_collector_of_the_same_name_for_another_target(assemble: Assemble) -> None:
    """Collectors of one name with different targets are allowed."""
    assert assemble("host: , cpu: {name: b}").problems == []


def test_label_named_like_the_targets(assemble: Assemble) -> None:
    """A metric with a label `target` of its own cannot have the settings' name as well."""

    class Probe(Typed):
        own = gauge("probe", "Probe.", ("target",))

    TYPES["probe"] = Probe
    try:
        unnamed, named = assemble("probe: "), assemble("probe: {name: a}")
    finally:
        del TYPES["probe"]

    assert messages(unnamed) == []
    assert messages(named) == [
        "collectors.probe: name: metric probe has a label 'target' of its own"
    ]


def test_interrupted_while_building(assemble: Assemble) -> None:
    """Ctrl-C in a constructor ends the command."""
    with pytest.raises(KeyboardInterrupt):
        assemble("failing: {path: interrupt}")


# Taking over what did not change


@pytest.mark.parametrize(
    "collectors",
    [
        "one: {path: a}",
        "one: [{name: a}, {name: b}]",
        "host: {path: a}",
        "local: ",
        "one: {interval: 60, labels: {x: y}}",
    ],
)
def test_unchanged_collectors_are_kept(assemble: Assemble, collectors: str) -> None:
    """A reload of the same settings keeps every collector, with its connections and counters."""
    before = assemble(collectors)
    after = assemble(collectors, before.set)

    assert after.set.runners == before.set.runners
    assert after.new == []
    assert after.adopt() == []


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ("one: {path: b, timeout: 5}", "its own settings"),
        ("one: {path: a, timeout: 6}", "the common settings"),
        ("one: {path: a, timeout: 5, name: x}", "its name"),
        ("one: {path: a, timeout: 5, interval: 60}", "its interval"),
        ("one: {path: a}", "a key that is gone"),
    ],
    ids=lambda value: value if ":" not in value else "",
)
def test_changed_collector_is_replaced(assemble: Assemble, changed: str, reason: str) -> None:
    """A collector whose settings changed is replaced, and its predecessor is to be stopped; others are kept."""
    before = assemble("one: {path: a, timeout: 5}, other: ")
    old, kept = before.set.runners

    after = assemble(f"{changed}, other: ", before.set)

    assert after.new == after.set.runners[:1], reason
    assert after.set.runners[1] is kept
    assert after.adopt() == [old]


def test_changed_type_is_replaced(assemble: Assemble, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a change of a drop-in file its collectors are replaced, even if their settings are equal."""
    before = assemble("one: ")
    monkeypatch.setitem(TYPES, "one", type("One", (One,), {}))

    after = assemble("one: ", before.set)

    assert after.new == after.set.runners
    assert after.adopt() == before.set.runners


def test_collectors_that_came_and_went(assemble: Assemble) -> None:
    """Removed collectors are stopped and added ones are new, in any order of the settings."""
    before = assemble("one: , other: , host: ")
    one, other, cpu, meminfo = before.set.runners

    after = assemble("host: , local: , other: ", before.set)

    assert after.set.runners == [cpu, meminfo, after.new[0], other]
    assert identities(after) == ["cpu", "meminfo", "local", "other"]
    assert after.adopt() == [one]


def test_nothing_is_touched_before_it_is_adopted(assemble: Assemble) -> None:
    """A set that is built and not adopted leaves the previous set unchanged."""
    before = assemble("local: , one: ")
    workers = [runner.worker for runner in before.set.runners]

    assemble("local: , one: {path: new}, failing: {path: exit}", before.set)

    assert [runner.worker for runner in before.set.runners] == workers
    assert identities(before) == ["local", "one"]


def test_shared_thread_is_the_new_sets(assemble: Assemble) -> None:
    """After a reload, kept and added collectors that cannot hang share one thread."""
    before = assemble("local: {path: a}, one: ")
    kept, alone = before.set.runners
    own = alone.worker
    TYPES["local2"] = type("Local2", (Local,), {})
    try:
        after = assemble("local: {path: a}, one: , local2: ", before.set)
    finally:
        del TYPES["local2"]

    after.adopt()

    assert kept.worker is after.new[0].worker
    assert alone.worker is own


def test_collector_without_a_reading_is_none_the_less_kept(assemble: Assemble) -> None:
    """Whether a collector is kept does not depend on its last samples."""

    class Absent(Typed):
        def collect(self, scrape: Scrape) -> None:
            message = "gone"
            raise NotPresent(message)

    TYPES["absent"] = Absent
    try:
        before = assemble("absent: ")
        [runner] = before.set.runners
        run = runner.begin(time.monotonic() + 60)
        run.wait(time.monotonic() + 60)
        after = assemble("absent: ", before.set)
    finally:
        del TYPES["absent"]

    assert after.set.runners == [runner]
    CollectorSet.stop([runner])


def test_declared_metrics_of_every_type() -> None:
    """The plug-in types of this file declare the expected metrics."""
    assert [metric.name for metric in One.declared() if isinstance(metric, Metric)] == [
        "one",
        "shared",
    ]
