"""LATENCY: spikes by event, and histograms of the durations of commands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from bts_collectors.redis.client.connection import Reply
from bts_collectors.redis.client.labels import label, text
from bts_exporter import Metric, Scrape, gauge, histogram

SPIKE_LAST = gauge(
    "redis_latency_spike_last",
    "Unix time of the latest latency spike of an event (LATENCY LATEST).",
    ("event_name",),
)
SPIKE_DURATION = gauge(
    "redis_latency_spike_duration_seconds",
    "Duration of the latest latency spike of an event (LATENCY LATEST).",
    ("event_name",),
)
DURATIONS = histogram(
    "redis_commands_latencies_usec",
    "LATENCY HISTOGRAM; the sum is usec of INFO commandstats.",
    ("cmd",),
)
METRICS: tuple[Metric, ...] = (SPIKE_LAST, SPIKE_DURATION, DURATIONS)


def emit_spikes(scrape: Scrape, reply: Reply) -> None:
    """Emit the reply of LATENCY LATEST: event, Unix time, duration in milliseconds, longest duration."""
    for event in reply if isinstance(reply, list) else []:
        match event:
            case [bytes(name), int(when), int(milliseconds), *_]:
                event_name = label(name)
                scrape.emit(SPIKE_LAST, when, event_name)
                scrape.emit(SPIKE_DURATION, milliseconds / 1000, event_name)


class Durations(NamedTuple):
    """The durations of the calls of one command."""

    command: str
    #: (upper bound in microseconds, calls up to this bound), ascending.
    buckets: list[tuple[int, int]]


def parse_durations(reply: Reply) -> Iterator[Durations]:
    """Yield the commands in a reply of LATENCY HISTOGRAM, except those of another shape."""
    flat = reply if isinstance(reply, list) else []
    for name, details in zip(flat[::2], flat[1::2], strict=False):
        match name, details:
            case [bytes(), [b"calls", int(), b"histogram_usec", [*bounds]]] if _are_numbers(bounds):
                buckets = list(zip(bounds[::2], bounds[1::2], strict=False))
                yield Durations(text(name), buckets)


def emit_durations(scrape: Scrape, reply: Reply, totals: Mapping[str, float]) -> None:
    """Emit the reply of LATENCY HISTOGRAM; `totals` is the sum of microseconds by command."""
    for command, buckets in parse_durations(reply):
        if command in totals:
            scrape.emit_histogram(DURATIONS, buckets, totals[command], command)


def _are_numbers(values: Sequence[Reply]) -> bool:
    return all(type(value) is int for value in values)
