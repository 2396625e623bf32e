import time

from bts_exporter import HistogramAccumulator, Scrape, histogram

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


def test_counts_go_on_across_scrapes() -> None:
    """A scrape does not reset the counts."""
    accumulator = HistogramAccumulator((1,))
    counts = []
    for _ in range(2):
        accumulator.observe(0.5)
        scrape = Scrape(time.monotonic() + 30)
        accumulator.emit(scrape, METRIC, "1")
        counts.append(scrape.samples[METRIC]["_count", "1"])

    assert counts == [1, 2]
