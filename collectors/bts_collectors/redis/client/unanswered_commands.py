"""Leaves out commands at which a server hangs or closes the connection, so that others are still read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic

from bts_collectors.redis.client.errors import Lost
from bts_exporter import TargetError

#: Seconds for which such a command is left out: each attempt takes half of a scrape's time.
RETRY_SECONDS = 60.0
#: Seconds within which it must happen twice: the first time the server may have been restarted.
STRIKES_SECONDS = 600.0
#: Commands with subcommands.
_WITH_SUBCOMMANDS = frozenset(
    {"CLIENT", "CLUSTER", "COMMANDLOG", "CONFIG", "LATENCY", "MEMORY", "SENTINEL", "SLOWLOG"}
    | {"XINFO"}
)
#: Commands that are always sent.
_ESSENTIAL = frozenset({"INFO", "PING"})


def command_name(command: Sequence[str | bytes | int]) -> str:
    """Return `LATENCY LATEST` or `LLEN`: a command without its arguments."""
    name = str(command[0])
    return f"{name} {command[1]!s}" if name in _WITH_SUBCOMMANDS else name


class UnansweredCommands:
    """The commands that one server did not answer, while it answered others."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        """Take a clock in seconds."""
        self._clock = clock
        #: Until when each is left out, and why.
        self._left_out: dict[str, tuple[float, TargetError]] = {}
        #: When each ended a connection last.
        self._strikes: dict[str, float] = {}

    def __bool__(self) -> bool:
        """Return whether any command is left out now."""
        if self._left_out:
            now = self._clock()
            self._left_out = {name: one for name, one in self._left_out.items() if one[0] > now}
        return bool(self._left_out)

    def add(self, name: str, error: TargetError) -> None:
        """Note that a command failed with `error` while others were answered; the second time it is left out."""
        if name in _ESSENTIAL:
            return
        now = self._clock()
        before, self._strikes[name] = self._strikes.get(name), now
        if before is not None and now - before < STRIKES_SECONDS:
            what = f"{error} (not asked again for {RETRY_SECONDS:.0f} s)"
            self._left_out[name] = now + RETRY_SECONDS, TargetError(error.reason, what)

    def lost(self, command: Sequence[str | bytes | int]) -> Lost | None:
        """Return what stands in place of the reply to a command that is left out; None for any other."""
        one = self._left_out.get(command_name(command))
        return None if one is None else Lost(one[1])
