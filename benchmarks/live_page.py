"""What the live page costs scrapes: the same scrapes with and without keeping values for it."""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path
from time import process_time
from unittest import mock

from bts_exporter.collection.builder import Assembly
from bts_exporter.collection.registry import Registry
from bts_exporter.exposition.formats import Format
from bts_exporter.live import recorder
from bts_exporter.page_service import Exporter
from bts_exporter.settings.loader import load
from measuring import Bench, ratios, spread
from report import Bar, Row, Section, Table

#: Destinations of the second row: so many are kept at most.
DESTINATIONS = recorder.MOST_DESTINATIONS
#: Scrapes in each turn.
TURN = 10
#: The most that keeping values may cost, as a share of a scrape, and the most memory for it, in bytes.
MOST_SHARE = 1.05
MOST_MEMORY = 5_000_000


def run(bench: Bench) -> Section:
    """Measure scrapes of the host, and of a Redis with as many streams as are kept."""
    from servers.redis import RedisServer  # noqa: PLC0415  # needs the path

    turns = bench.often(20, 4)
    redis = RedisServer(bench.new_folder("redis"))
    try:
        for i in range(DESTINATIONS):
            redis.client.xadd(f"stream-{i}", {"a": 1})
            redis.client.xgroup_create(f"stream-{i}", "workers", id="0")
        streams = f"{{redis: {{url: '{redis.url}', streams: ['stream-*']}}}}"
        rows = [
            _compared("host", "{host: }", bench, turns),
            _compared(f"Redis, {DESTINATIONS:,} consumer groups", streams, bench, turns // 2),
        ]
        memory = _memory(streams, bench)
    finally:
        redis.kill()
    bars = [
        Bar(f"{row.what}: {row.ratio.median:.3f} of a scrape without, at most {MOST_SHARE}", row.ratio.median <= MOST_SHARE)
        for row in rows
        if row.ratio is not None
    ]  # fmt: skip
    held = Bar(
        f"memory: {memory / 1e6:.1f} MB, at most {MOST_MEMORY / 1e6:.0f}", memory <= MOST_MEMORY
    )
    table = Table(("with", "without"), "with / without", rows)
    return Section("Live page", _how(turns), [table], bars=[*bars, held])


def _how(turns: int) -> str:
    return f"""\
CPU of a scrape in this process, in milliseconds, with the values kept that the page `/` shows, and without: turns of
{TURN} scrapes alternate, {turns} times. Every scrape is one of those at which a column of the history is added, which
happens every 15 s at most. The memory is that of {DESTINATIONS:,} destinations with their last 15 minutes (tracemalloc)."""


def _exporter(settings: str, bench: Bench) -> Exporter:
    file: Path = bench.new_folder("live") / "config.yaml"
    file.write_text(f"collectors: {settings}\n")
    exporter = Exporter()
    assembly = Assembly(load(file, Registry))
    assembly.adopt()
    for runner in assembly.new:
        runner.start()
    exporter.collectors = assembly.set
    return exporter


def _compared(what: str, settings: str, bench: Bench, turns: int) -> Row:
    exporter = _exporter(settings, bench)
    kept: list[float] = []
    plain: list[float] = []
    _scrapes(exporter, TURN)
    with mock.patch.object(recorder.Ring, "is_due", return_value=True):
        for _ in range(turns):
            kept.append(_scrapes(exporter, TURN))
            with mock.patch.object(exporter.recorder, "record"):
                plain.append(_scrapes(exporter, TURN))
    _end(exporter)
    return Row(f"{what}: CPU, ms", (spread(kept), spread(plain)), ratios(kept, plain))


def _scrapes(exporter: Exporter, count: int) -> float:
    """Return the CPU time of a scrape in milliseconds."""
    gc.collect()
    before = process_time()
    for _ in range(count):
        exporter.page(exporter.collectors.runners, Format.TEXT, gzip=True)
    return (process_time() - before) / count * 1000


def _memory(settings: str, bench: Bench) -> float:
    """Return the bytes that the values of a long run take."""
    exporter = _exporter(settings, bench)
    shots = exporter.collectors.collect(exporter.collectors.runners, 30)
    exporter.recorder.record(shots, 0.0)
    del shots
    gc.collect()
    tracemalloc.start()
    shots = exporter.collectors.collect(exporter.collectors.runners, 30)
    for step in range(1, 61):
        exporter.recorder.record(shots, step * recorder.STEP)
    del shots
    gc.collect()
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    _end(exporter)
    return used


def _end(exporter: Exporter) -> None:
    for last in exporter.collectors.stop(exporter.collectors.runners):
        last.wait(5)
    exporter.collectors.close()
