"""100,000 samples rendered by this exporter and by prometheus_client, alternately in one process."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from time import perf_counter, process_time
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, exposition
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.core import Metric as TheirMetric
from prometheus_client.openmetrics import exposition as openmetrics

from bts_exporter import Metric, Scrape, counter, gauge
from bts_exporter.exposition.formats import Format
from bts_exporter.exposition.page import Source, render
from bts_exporter.exposition.templates import TemplateCache
from measuring import Bench, ratios, spread
from report import Bar, Row, Section, Table

#: Name and type of each family.
FAMILIES = (
    ("disk_used_bytes", "gauge"),
    ("disk_read_bytes_total", "counter"),
    ("queue_messages", "gauge"),
    ("queue_age_seconds", "gauge"),
    ("queue_published_messages_total", "counter"),
)
LABELS = ("device", "partition", "shard")
SIZES = (20, 100, 10)  # number of values of each label: 20,000 series in each family
#: Required factor by which our rendering is faster.
BAR = 5

#: For each family, the label values and the value of each sample.
Numbers = list[list[tuple[tuple[str, ...], float]]]


class Cost(NamedTuple):
    """The times of one rendering, in milliseconds."""

    wall: float
    cpu: float


@dataclass
class Costs:
    """The times of several renderings."""

    costs: list[Cost] = field(default_factory=list)

    @property
    def wall(self) -> list[float]:
        """Return the wall times."""
        return [cost.wall for cost in self.costs]

    @property
    def cpu(self) -> list[float]:
        """Return the CPU times."""
        return [cost.cpu for cost in self.costs]

    def measure(self, action: Callable[[], bytes]) -> bytes:
        """Measure `action` with the garbage collector enabled, after collecting all earlier garbage."""
        gc.collect()
        cpu, wall = process_time(), perf_counter()
        page = action()
        self.costs.append(
            Cost((perf_counter() - wall) * 1000, (process_time() - cpu) * 1000),
        )
        return page


class Prebuilt:
    """A custom collector of prometheus_client that yields prepared families."""

    def __init__(self, families: Sequence[TheirMetric]) -> None:
        self._families = families

    def collect(self) -> Iterator[TheirMetric]:
        """Yield the families."""
        yield from self._families


class Ours:
    """The samples as in a scrape of this exporter."""

    def __init__(self) -> None:
        declare = {"gauge": gauge, "counter": counter}
        self.metrics = [declare[kind](name, f"Help of {name}.", LABELS) for name, kind in FAMILIES]
        self.templates = TemplateCache()

    def emit(self, numbers: Numbers) -> dict[Metric, dict[tuple[str, ...], float]]:
        """Return the samples after emitting them as a collector does."""
        scrape = Scrape(float("inf"))
        for metric, samples in zip(self.metrics, numbers, strict=True):
            for labels, value in samples:
                scrape.emit(metric, value, *labels)
        return scrape.samples

    def both(self, numbers: Numbers) -> bytes:
        """Return the page, including the time to emit the samples."""
        return render([Source(self.emit(numbers), self.templates)], Format.TEXT)


class Theirs:
    """The samples as a custom collector of prometheus_client yields them."""

    @staticmethod
    def emit(numbers: Numbers) -> CollectorRegistry:
        """Return a registry that has the samples."""
        makers = {"gauge": GaugeMetricFamily, "counter": CounterMetricFamily}
        families: list[TheirMetric] = []
        for (name, kind), samples in zip(FAMILIES, numbers, strict=True):
            family = makers[kind](name, f"Help of {name}.", labels=LABELS)
            for labels, value in samples:
                family.add_metric(labels, value)
            families.append(family)
        registry = CollectorRegistry(auto_describe=False)
        registry.register(Prebuilt(families))
        return registry

    def both(self, numbers: Numbers) -> bytes:
        """Return the page, including the time to build the families."""
        return exposition.generate_latest(self.emit(numbers))


def run(bench: Bench) -> Section:
    """Measure both formats, two kinds of values, and the whole way from values to text."""
    rounds = bench.often(11, 3)
    rows: list[Row] = []
    bars: list[Bar] = []
    for what, form, floats in (
        ("text, half integers, half floats", Format.TEXT, True),
        ("text, integers", Format.TEXT, False),
        ("OpenMetrics, half integers, half floats", Format.OPENMETRICS, True),
    ):
        warm, cold, theirs = _rendered(form, rounds, floats=floats)
        factor = ratios(theirs.cpu, warm.cpu)  # CPU time depends less on other programs
        rows += [
            _row(f"{what}: CPU", warm.cpu, theirs.cpu),
            _row(f"{what}: wall", warm.wall, theirs.wall),
            _row(f"{what}: CPU, first scrape ever", cold.cpu, theirs.cpu),
        ]
        bars.append(
            Bar(f"{what}: {factor.median:.1f} times as fast, at least {BAR}", factor.median >= BAR)
        )
    whole, theirs = _emitted(rounds)
    rows.append(_row("text, half and half, values to samples to text: CPU", whole.cpu, theirs.cpu))
    table = Table(("bts-exporter (ms)", "prometheus_client (ms)"), "times as fast", rows)
    return Section("Exposition", _how(rounds), [table], bars=bars)


def _row(what: str, ours: Sequence[float], theirs: Sequence[float]) -> Row:
    return Row(what, (spread(ours), spread(theirs)), ratios(theirs, ours))


def _how(rounds: int) -> str:
    return f"""\
100,000 samples in {len(FAMILIES)} families with {len(LABELS)} labels are rendered by `bts_exporter.exposition.page.render`, and by
`prometheus_client.generate_latest` from a custom collector whose families are ready. They take turns, {rounds} times each,
in one process with the garbage collector on. Floats have 15 digits or more. Label values are new strings in every
round, as a collector makes them. The exporter keeps the rendered labels of a series from one scrape to the next;
"first scrape ever" is without them. The last pages of both are parsed and must have the same values for the same
series. The last row includes making the samples."""


def _rendered(form: Format, rounds: int, *, floats: bool) -> tuple[Costs, Costs, Costs]:
    warm, cold, theirs = Costs(), Costs(), Costs()
    ours = Ours()
    theirs_of: dict[Format, Callable[[Any], bytes]] = {
        Format.TEXT: exposition.generate_latest,
        Format.OPENMETRICS: openmetrics.generate_latest,
    }
    for seed in range(rounds + 1):  # the first round fills the cache and is not counted
        samples = ours.emit(_numbers(seed, floats=floats))
        page = warm.measure(partial(render, [Source(samples, ours.templates)], form))
        cold.measure(partial(render, [Source(samples)], form))
        del (
            samples
        )  # otherwise the garbage collector would visit them while the other one is measured
        registry = Theirs.emit(_numbers(seed, floats=floats))
        their_page = theirs.measure(partial(theirs_of[form], registry))
        if seed == rounds and _parsed(page) != _parsed(their_page):
            msg = f"{form}: the pages differ"
            raise AssertionError(msg)
    for costs in (warm, cold, theirs):
        del costs.costs[0]
    return warm, cold, theirs


def _emitted(rounds: int) -> tuple[Costs, Costs]:
    ours, theirs = Ours(), Theirs()
    our_costs, their_costs = Costs(), Costs()
    for seed in range(rounds + 1):
        our_costs.measure(partial(ours.both, _numbers(seed, floats=True)))
        their_costs.measure(partial(theirs.both, _numbers(seed, floats=True)))
    del our_costs.costs[0], their_costs.costs[0]
    return our_costs, their_costs


def _numbers(seed: int, *, floats: bool) -> Numbers:
    """Return values that depend only on `seed`, each with its own label values."""
    numbers = random.Random(seed)
    found: Numbers = []
    for _ in FAMILIES:
        samples: list[tuple[tuple[str, ...], float]] = []
        for index, (a, b, c) in enumerate(product(*map(range, SIZES))):
            labels = (f"sd{a}", f"part-{b:03}", f"shard-{c}")
            if floats and index % 2:
                samples.append((labels, numbers.random() * 10 ** numbers.randint(0, 6)))
            else:
                samples.append((labels, numbers.randrange(10 ** numbers.randint(1, 12))))
        found.append(samples)
    return found


def _parsed(page: bytes) -> dict[str, float]:
    lines = (line for line in page.decode().splitlines() if not line.startswith("#"))
    return {series: float(value) for series, _, value in (line.rpartition(" ") for line in lines)}
