from __future__ import annotations

import time
from collections.abc import Callable

from bts_exporter.live.background_scrape import BackgroundScrape
from bts_exporter.page_service import Exporter
from servers import wait_until
from stubs import Stub, collectors


def background_scrapes(
    seconds: int, *, viewed: Callable[[int], bool] = lambda _: False, scrape_every: int = 0
) -> list[int]:
    """Return in which of so many seconds a scrape in the background is due."""
    exporter = Exporter()
    background = BackgroundScrape(exporter)
    start = time.monotonic()
    exporter.recorder.collected_at = start
    due = []
    for second in range(1, seconds + 1):
        now = start + second
        if viewed(second):
            exporter.recorder.viewed_at = now
        if scrape_every and second % scrape_every == 0:
            exporter.scrapes += 1
            exporter.recorder.collected_at = now
        if background.is_due(now):
            exporter.recorder.collected_at = now
            due.append(second)
    return due


def test_none_while_others_scrape() -> None:
    """While something scrapes, however slowly, there is none."""
    assert background_scrapes(600, scrape_every=15) == []
    assert background_scrapes(600, scrape_every=90) == []


def test_slowly_when_nothing_scrapes() -> None:
    """Two minutes after the last scrape there is one a minute."""
    assert background_scrapes(300) == [120, 180, 240, 300]


def test_often_while_somebody_looks() -> None:
    """While the page is open, values are not older than five seconds; half a minute later it ends."""
    due = background_scrapes(100, viewed=lambda second: 10 <= second <= 30)

    assert due == [10, 15, 20, 25, 30, 35, 40, 45, 50, 55]


def test_frequent_scrapes_are_enough() -> None:
    """The page needs none of its own if others scrape often enough."""
    assert background_scrapes(60, viewed=lambda _: True, scrape_every=2) == []


def test_slow_collections_take_a_tenth_of_the_time() -> None:
    """After a collection that took long, there is a pause of ten times as long."""
    exporter = Exporter()
    with collectors(("slow", Stub(lambda _: time.sleep(0.2)))) as (together, _):
        exporter.collectors = together
        exporter.recorder.collected_at = time.monotonic() - 60
        exporter.recorder.viewed_at = time.monotonic()
        background = BackgroundScrape(exporter)
        began = time.monotonic()
        background.start_if_due()
        wait_until(lambda: not background._running, "it ends")

    next_at = background._not_before
    assert next_at >= began + 0.2 + 10 * 0.2
    exporter.recorder.viewed_at = next_at
    exporter.recorder.collected_at = next_at - 60
    assert [background.is_due(moment) for moment in (next_at - 0.1, next_at)] == [False, True]


def test_one_at_a_time() -> None:
    """A collection that hangs does not begin another one."""
    exporter = Exporter()
    stub = Stub()
    with collectors(("one", stub)) as (together, _):
        exporter.collectors = together
        exporter.recorder.collected_at = time.monotonic() - 1000
        background = BackgroundScrape(exporter)
        background._scraped_at -= 1000
        background._running = True
        background.start_if_due()
        none = stub.collections
        background._running = False
        background.start_if_due()
        wait_until(lambda: not background._running, "it ends")

    assert (none, stub.collections) == (0, 1)
