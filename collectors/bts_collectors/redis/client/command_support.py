"""Commands that a server lacks or denies: asked for once, then seldom, since every refusal is logged."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from hiredis import ReplyError

from bts_collectors.redis.client.errors import is_passing
from bts_exporter import Scrape, gauge

#: Seconds until a refused command is tried again.
RETRY = 600.0

SUPPORTED = gauge(
    "redis_exporter_command_supported",
    "1 if the server answers the command, 0 if it lacks or denies it and so its metrics are missing.",
    ("command",),
)


class CommandSupport:
    """What one server refused, and when."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        """Take a clock in seconds."""
        self._clock = clock
        self._supported: dict[str, bool] = {}
        self._retry: dict[str, float] = {}

    def expects(self, command: str) -> bool:
        """Return whether it is worth asking: `command` was not refused lately."""
        return self._clock() >= self._retry.get(command, 0.0)

    def answered(self, command: str) -> None:
        """Note that the server answered `command`."""
        self._supported[command] = True

    def refused(self, command: str, reply: ReplyError) -> None:
        """Note that the server refused `command`, unless it will not do so next time."""
        if not is_passing(reply):
            self._supported[command] = False
            self._retry[command] = self._clock() + RETRY

    def forget(self) -> None:
        """Begin anew: this is another server."""
        self._supported.clear()
        self._retry.clear()

    def emit(self, scrape: Scrape) -> None:
        """Emit which commands the server answers."""
        for command, supported in self._supported.items():
            scrape.emit(SUPPORTED, supported, command)
