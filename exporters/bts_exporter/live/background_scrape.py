"""Scrapes for the live page where no other ones come, so that it has current values and a past."""

from __future__ import annotations

import logging
import time

from bts_exporter.collection.worker import Worker
from bts_exporter.page_service import Exporter

log = logging.getLogger("bts_exporter.live.background_scrape")

#: Seconds between scrapes while somebody looks at the page, and how long a look lasts.
_VIEWED_SECONDS = 5.0
_LOOK_SECONDS = 30.0
#: Seconds between scrapes while nothing else scrapes, and without a scrape until that is assumed.
_IDLE_SECONDS = 60.0
_UNSCRAPED_SECONDS = 120.0
#: The share of the time that they may take.
_MOST_OF_THE_TIME = 0.1


class BackgroundScrape:
    """Decides when to scrape in the background, and does it."""

    def __init__(self, exporter: Exporter) -> None:
        """Begin with the assumption that others scrape."""
        self._exporter = exporter
        self._running = False
        self._not_before = 0.0
        self._scrapes = 0
        self._scraped_at = time.monotonic()

    def start_if_due(self) -> None:
        """Begin a scrape in a thread of its own if it is time for one; called about once a second."""
        if self._running or not self.is_due(time.monotonic()):
            return
        self._running = True
        worker = Worker("bts-background")
        try:
            worker.submit(self._scrape)
        except RuntimeError as error:
            self._running = False
            self._not_before = time.monotonic() + _IDLE_SECONDS
            log.warning("no scrape in the background: %s", error)
        worker.stop()

    def is_due(self, now: float) -> bool:
        """Return whether it is time for one; `now` is on the monotonic clock."""
        if self._exporter.scrapes != self._scrapes:
            self._scrapes, self._scraped_at = self._exporter.scrapes, now
        recorder = self._exporter.recorder
        if recorder.collected_at is None or now < self._not_before:
            return False  # the first one is under way, or the last one took long
        since = now - recorder.collected_at
        if recorder.viewed_at is not None and now - recorder.viewed_at < _LOOK_SECONDS:
            return since >= _VIEWED_SECONDS
        return since >= _IDLE_SECONDS and now - self._scraped_at >= _UNSCRAPED_SECONDS

    def _scrape(self) -> None:
        began = time.monotonic()
        try:
            self._exporter.refresh()
        finally:
            ended = time.monotonic()
            self._not_before = ended + (ended - began) / _MOST_OF_THE_TIME
            self._running = False
