import re
import time
from pathlib import Path
from typing import Any

from bts_exporter import HistogramAccumulator, Scrape, histogram
from bts_exporter.testing import collect

PAGE = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text()

METRIC = histogram("h", "A histogram.", "qos")


def test_value_equal_to_a_bound_counts_in_its_bucket() -> None:
    """Buckets are cumulative and include their upper bound, as Prometheus defines them."""
    accumulator = HistogramAccumulator((1, 2))
    for value in (0.5, 1, 1.5, 2, 99):
        accumulator.observe(value)
    scrape = Scrape(time.monotonic() + 30)
    accumulator.emit(scrape, METRIC, "1")

    assert scrape.samples[METRIC] == {
        ("_bucket", "1", "1"): 2,
        ("_bucket", "1", "2"): 4,
        ("_bucket", "1", "+Inf"): 5,
        ("_sum", "1"): 104,
        ("_count", "1"): 5,
    }


def test_histogram_without_observations_is_zero() -> None:
    """A new histogram shows all its buckets with 0, so that its first increase is visible."""
    scrape = Scrape(time.monotonic() + 30)
    HistogramAccumulator((1,)).emit(scrape, METRIC, "0")

    assert set(scrape.samples[METRIC].values()) == {0}


def test_histogram_of_the_page_counts_across_scrapes() -> None:
    """The collector in docs/plugins.md works as it stands."""
    [block] = re.findall(
        r"^## Histograms\n.*?^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE
    )
    names: dict[str, Any] = {}
    exec(block, names)
    collector = names["Resolver"](names["Resolver"].Config())
    collect(collector)
    counts = collect(collector)["resolver_resolution_seconds"]

    assert counts["_count", "localhost"] == 2
