"""What a collector keeps across restarts of the exporter: the part of the contract that plug-ins see."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

log = logging.getLogger("bts_exporter.stored_state")

#: A state that was saved longer ago is not used, in seconds: its counts may belong to another history.
MAX_AGE_SECONDS = 86_400.0
#: A state may be so much newer than the clock, in seconds: clocks are adjusted in small steps.
MAX_AHEAD_SECONDS = 2.0
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Clocks(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The clocks of a process at one moment."""

    #: Unix time.
    wall: float
    #: `time.monotonic()`, which begins at another time after a reboot.
    monotonic: float
    #: Seconds since the boot, also those in which the machine slept.
    boottime: float
    #: Identifies the boot; empty if the system does not tell.
    boot_id: str

    @classmethod
    def now(cls) -> Clocks:
        """Read the clocks."""
        which = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
        return cls(time.time(), time.monotonic(), time.clock_gettime(which), _boot_id())

    def since(self, before: Clocks) -> float:
        """Return the seconds since `before`, of another process; negative if the wall clock was set back.

        Within one boot the wall clock does not matter.
        """
        if self.boot_id and self.boot_id == before.boot_id:
            return self.boottime - before.boottime
        return self.wall - before.wall


class Restored(NamedTuple):
    """What a collector stored before the exporter was restarted."""

    #: An instance of the collector's `State`.
    state: Any
    #: Seconds since it was saved: what happened in them is unknown.
    downtime: float
    #: To be added to a stored time of `time.monotonic()`, so that it is one of this process.
    shift: float


class StoredState:
    """The stored state of one collector, until it is taken: once, by the first collection that knows its target."""

    def __init__(
        self,
        place: str,
        identity: str,
        saved: Clocks,
        state: msgspec.Struct,
        on_refused: Callable[[], object] = lambda: None,
    ) -> None:
        """Name the place for messages; call `on_refused` if the state cannot be used."""
        self._place = place
        self._identity = identity
        self._saved = saved
        self._state = state
        self._on_refused = on_refused

    def take(self, identity: str) -> Restored | None:
        """Return the state if it is of the target `identity` and not too old; None and a log line if not."""
        now = Clocks.now()
        downtime = now.since(self._saved)
        problem = age_problem(downtime)
        if identity != self._identity:
            problem = f"it is of {self._identity}, and the target is {identity}"
        if problem:
            log.warning("%s", not_used(self._place, problem))
            self._on_refused()
            return None
        downtime = max(downtime, 0.0)
        shift = now.monotonic - downtime - self._saved.monotonic
        return Restored(self._state, downtime, shift)


def age_problem(seconds: float) -> str:
    """Return why a state that was saved `seconds` ago cannot be used; empty if it can."""
    if seconds < -MAX_AHEAD_SECONDS:
        return f"it was saved {-seconds:.0f} s in the future: check the clock"
    if seconds > MAX_AGE_SECONDS:
        return f"it was saved {seconds / 3600:.0f} h ago (limit: {MAX_AGE_SECONDS / 3600:.0f} h)"
    return ""


def not_used(place: str, problem: str) -> str:
    """Return the log line about a state that is not used."""
    return f"state {place} is not used: {problem}; the collector starts without its history"


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""
