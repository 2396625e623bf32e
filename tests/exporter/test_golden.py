from __future__ import annotations

import math

import pytest

from bts_exporter import Kind, Scrape, Template, counter, gauge, histogram, summary, untyped
from bts_exporter.exposition.formats import Format
from bts_exporter.exposition.page import Source, render
from bts_exporter.exposition.templates import TemplateCache
from bts_exporter.testing import Golden

FILES = gauge("spool_files", "Files waiting.", ("path",))
SIZE = histogram("spool_file_size_bytes", "Sizes of the files.", ("path",))
FIELD = Template("memory_{field}_bytes", "Field {field} of meminfo.", Kind.GAUGE)


def host(scrape: Scrape) -> None:
    """Emit samples of a collector without constant labels."""
    scrape.emit(
        counter("cpu_seconds_total", 'Time\nin \\each "mode".', ("cpu", "mode")), 12.5, "0", "user"
    )
    scrape.emit(FIELD.of("Active"), 4096.0)
    scrape.emit(FIELD.of("Dirty"), 2**53 + 1)
    scrape.emit(untyped("context_switches", "No type known."), 1e15)
    scrape.emit(counter("interrupts", "A counter of the anchor's without _total."), 7)
    scrape.emit(gauge("open", "Open files."), 3)
    scrape.emit(counter("open_total", "Opened files."), math.inf)
    scrape.emit(FILES, 0, "/var/spool/a")
    scrape.emit(FILES, -0.25, 'quote " backslash \\ newline \n umlaut ü not UTF-8 \udcff')


def broker(scrape: Scrape) -> None:
    """Emit samples of a collector of a named target, which shares a metric with the other one."""
    scrape.emit(FILES, 5, "/var/spool/b")
    scrape.emit_histogram(SIZE, [(1024.0, 1), (1e6, 4)], 2.5e6, "/var/spool/b")
    scrape.emit_summary(summary("delay_seconds", "Delay."), [(0.5, 0.1), (0.99, math.nan)], 7.5, 30)
    scrape.emit_summary(summary("age_seconds", "Age, its sum unknown."), [(1.0, math.inf)], None, 2)
    scrape.emit(gauge("temperature_celsius", "Temperature."), -math.inf)


@pytest.mark.parametrize(
    ("form", "file"), [(Format.TEXT, "page.txt"), (Format.OPENMETRICS, "page.openmetrics")]
)
def test_page_of_every_kind(form: Format, file: str, bts_golden: Golden) -> None:
    """The page of fixed samples is the file in the folder golden to the byte: no change slips through."""
    first, second = Scrape(math.inf), Scrape(math.inf)
    host(first)
    broker(second)

    actual = render(
        [
            Source(first.samples, TemplateCache()),
            Source(second.samples, TemplateCache({"target": "cache", "site": "a"})),
        ],
        form,
    )

    bts_golden.check(actual.decode(), file)
