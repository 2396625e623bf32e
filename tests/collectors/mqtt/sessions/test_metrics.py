import time

import pytest

from bts_collectors.mqtt.sessions import metrics
from bts_collectors.mqtt.sessions.metrics import LEFT_OUT, Queue
from bts_exporter import Scrape, backlog


@pytest.fixture
def scrape() -> Scrape:
    """Return a scrape with time left."""
    return Scrape(time.monotonic() + 30)


def test_queues_are_shown_in_the_words_of_all_brokers(scrape: Scrape) -> None:
    """What waits is the backlog of the client as a group; what is unknown has no sample."""
    shown = metrics.emit(scrape, {"a": Queue(5, 2), "b": Queue(0, None), "c": Queue(None, 1)})

    assert scrape.samples[backlog.BACKLOG] == {("mqtt", "", "a"): 5, ("mqtt", "", "b"): 0}
    assert scrape.samples[backlog.IN_FLIGHT] == {("mqtt", "", "a"): 2, ("mqtt", "", "c"): 1}
    assert scrape.samples[LEFT_OUT] == {(): 0}
    assert set(shown) == {"a", "b", "c"}


def test_longest_queues_are_shown_where_there_are_too_many(
    scrape: Scrape, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients do not make series without end, and what is left out is counted."""
    monkeypatch.setattr(metrics, "MAX_CLIENTS", 2)
    queues = {name: Queue(length, 0) for name, length in [("a", 1), ("b", 9), ("c", 5), ("d", 0)]}
    shown = metrics.emit(scrape, queues)

    assert shown == ["b", "c"]
    assert scrape.samples[LEFT_OUT] == {(): 2}


def test_unusable_ids_are_left_out(scrape: Scrape) -> None:
    """An id of 64 kB is no label; one without characters would pass for the whole broker."""
    shown = metrics.emit(scrape, {"x" * 129: Queue(1, 0), "": Queue(1, 0), "y": Queue(1, 0)})

    assert shown == ["y"]
    assert scrape.samples[LEFT_OUT] == {(): 2}
