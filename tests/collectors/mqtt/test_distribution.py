import time

from bts_collectors.mqtt.distribution import Distribution
from bts_exporter import Scrape, histogram

METRIC = histogram("h", "A histogram.", "qos")


def test_values_are_counted_up_to_and_including_their_bound() -> None:
    """Buckets are cumulative, as Prometheus has them, and have the sum of all values."""
    found = Distribution((1, 2))
    for value in (0.5, 1, 1.5, 2, 99):
        found.observe(value)
    scrape = Scrape(time.monotonic() + 30)
    found.emit(scrape, METRIC, "1")

    assert scrape.samples[METRIC] == {
        ("_bucket", "1", "1"): 2,
        ("_bucket", "1", "2"): 4,
        ("_bucket", "1", "+Inf"): 5,
        ("_sum", "1"): 104,
        ("_count", "1"): 5,
    }
