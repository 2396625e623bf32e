"""Commands that a server lacks or denies: tried again rarely, since it logs every refusal."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from hiredis import ReplyError

from bts_collectors.redis.client.errors import is_passing
from bts_exporter import Scrape, gauge

#: Seconds until a refused command is tried again.
RETRY_SECONDS = 600.0

SUPPORTED = gauge(
    "redis_exporter_command_supported",
    "1 if the server answers the command, 0 if it lacks or denies it, so that metrics are missing.",
    ("command",),
)


class CommandSupport:
    """The commands that one server answered or refused."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        """Take a monotonic clock in seconds."""
        self._clock = clock
        self._supported: dict[str, bool] = {}
        self._retry: dict[str, float] = {}

    def expects(self, command: str) -> bool:
        """Return whether to send `command`: false for RETRY_SECONDS after a refusal."""
        return self._clock() >= self._retry.get(command, 0.0)

    def answered(self, command: str) -> None:
        """Note that the server answered `command`."""
        self._supported[command] = True

    def refused(self, command: str, reply: ReplyError) -> None:
        """Note that the server refused `command`, unless the refusal is temporary."""
        if not is_passing(reply):
            self._supported[command] = False
            self._retry[command] = self._clock() + RETRY_SECONDS

    def forget(self) -> None:
        """Forget everything, because this is another server."""
        self._supported.clear()
        self._retry.clear()

    def emit(self, scrape: Scrape) -> None:
        """Emit which commands the server answers."""
        for command, supported in self._supported.items():
            if not scrape.has(SUPPORTED, command):  # by another part of the collector
                scrape.emit(SUPPORTED, supported, command)
