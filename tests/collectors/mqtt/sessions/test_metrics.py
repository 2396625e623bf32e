import time

import pytest

from bts_collectors.mqtt.sessions import metrics
from bts_collectors.mqtt.sessions.metrics import LEFT_OUT, Queue
from bts_exporter import Scrape, backlog


@pytest.fixture
def scrape() -> Scrape:
    """Return a scrape with time left."""
    return Scrape(time.monotonic() + 30)


def test_queues_use_the_common_metrics(scrape: Scrape) -> None:
    """A queue is the backlog of the client as a group; an unknown number has no sample."""
    shown = metrics.emit(scrape, {"a": Queue(5, 2), "b": Queue(0, None), "c": Queue(None, 1)})

    assert scrape.samples[backlog.BACKLOG] == {("mqtt", "", "a"): 5, ("mqtt", "", "b"): 0}
    assert scrape.samples[backlog.IN_FLIGHT] == {("mqtt", "", "a"): 2, ("mqtt", "", "c"): 1}
    assert scrape.samples[LEFT_OUT] == {(): 0}
    assert set(shown) == {"a", "b", "c"}


def test_lag_and_limit_of_a_queue(scrape: Scrape) -> None:
    """The age of the oldest message has its method; an empty queue has the lag 0; unknown values have no sample."""
    queues = {
        "a": Queue(5, 0, backlog.Age(60, "lower_bound"), 100),
        "b": Queue(0, 0),
        "c": Queue(5, 0),
    }
    metrics.emit(scrape, queues, effect="reject_new")

    a, b = ("mqtt", "", "a"), ("mqtt", "", "b")
    assert scrape.samples[backlog.LAG_SECONDS] == {a: 60, b: 0}
    assert scrape.samples[backlog.LAG_METHOD] == {(*a, "lower_bound"): 1}
    assert scrape.samples[backlog.LIMIT] == {a: 100}
    assert scrape.samples[backlog.OVERFLOW] == {(*a, "limit", "reject_new", "setting"): 1}


def test_longest_queues_are_shown_where_there_are_too_many(
    scrape: Scrape, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of series is bounded, and clients left out are counted."""
    monkeypatch.setattr(metrics, "MAX_CLIENTS", 2)
    queues = {name: Queue(length, 0) for name, length in [("a", 1), ("b", 9), ("c", 5), ("d", 0)]}
    shown = metrics.emit(scrape, queues)

    assert shown == ["b", "c"]
    assert scrape.samples[LEFT_OUT] == {(): 2}


def test_unusable_ids_are_left_out(scrape: Scrape) -> None:
    """An id of 64 kB must not become a label; an empty one would be mistaken for the whole broker."""
    shown = metrics.emit(scrape, {"x" * 129: Queue(1, 0), "": Queue(1, 0), "y": Queue(1, 0)})

    assert shown == ["y"]
    assert scrape.samples[LEFT_OUT] == {(): 2}
