"""Commands at which a server hangs or closes the connection: left out for a while."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic

from bts_collectors.redis.client.errors import NoReplyError
from bts_exporter import TargetError

#: Seconds for which such a command is left out: each attempt takes half of a scrape's time.
RETRY_SECONDS = 60.0
#: Two failures within so many seconds are needed. The first one may be a restart of the server.
STRIKES_SECONDS = 600.0
#: Commands with subcommands.
_WITH_SUBCOMMANDS = frozenset(
    {"CLIENT", "CLUSTER", "COMMANDLOG", "CONFIG", "LATENCY", "MEMORY", "SENTINEL", "SLOWLOG"}
    | {"XINFO"}
)
#: Commands that are never left out.
_ESSENTIAL = frozenset({"INFO", "PING"})


def command_name(command: Sequence[str | bytes | int]) -> str:
    """Return a command without its arguments, such as `LATENCY LATEST` or `LLEN`."""
    name = str(command[0])
    return f"{name} {command[1]!s}" if name in _WITH_SUBCOMMANDS else name


class UnansweredCommands:
    """The commands that one server did not answer, while it answered others."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        """Take a monotonic clock in seconds."""
        self._clock = clock
        #: Until when each command is left out, and why.
        self._left_out: dict[str, tuple[float, TargetError]] = {}
        #: When each command last ended a connection.
        self._strikes: dict[str, float] = {}

    def __bool__(self) -> bool:
        """Return whether any command is left out now."""
        if self._left_out:
            now = self._clock()
            self._left_out = {
                name: entry for name, entry in self._left_out.items() if entry[0] > now
            }
        return bool(self._left_out)

    def add(self, name: str, error: TargetError) -> None:
        """Note that the server failed with `error` at a command; after twice it is left out."""
        if name in _ESSENTIAL:
            return
        now = self._clock()
        before, self._strikes[name] = self._strikes.get(name), now
        if before is not None and now - before < STRIKES_SECONDS:
            what = f"{error} (not sent again for {RETRY_SECONDS:.0f} s)"
            self._left_out[name] = now + RETRY_SECONDS, TargetError(error.reason, what)

    def no_reply(self, command: Sequence[str | bytes | int]) -> NoReplyError | None:
        """Return the substitute for the reply if `command` is left out; None for other commands."""
        entry = self._left_out.get(command_name(command))
        return None if entry is None else NoReplyError(entry[1])
