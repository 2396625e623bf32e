"""The limit of requests, a token bucket."""

from __future__ import annotations

import threading
from time import monotonic

from bts_exporter.access.web_settings import RateLimit


class RateLimiter:
    """A bucket of tokens, shared by all connections: each request takes one."""

    def __init__(self, settings: RateLimit) -> None:
        """Start with a full bucket; without an interval there is no limit."""
        self.settings = settings
        self._tokens = float(settings.burst)
        self._filled = monotonic()
        self._lock = threading.Lock()

    def wait(self) -> float:
        """Take a token and return 0; without a token, return the seconds until the next one."""
        interval = self.settings.interval
        if not interval:
            return 0.0
        with self._lock:
            now = monotonic()
            added = (now - self._filled) / interval
            self._tokens = min(self._tokens + added, float(self.settings.burst))
            self._filled = now
            if self._tokens >= 1:
                self._tokens -= 1
                return 0.0
            return (1 - self._tokens) * interval
