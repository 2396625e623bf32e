"""Decides whether the broker is up, and why a collection is incomplete."""

from __future__ import annotations

from dataclasses import dataclass

from bts_collectors.mqtt.client import errors
from bts_collectors.mqtt.client.network_thread import NetworkThread
from bts_collectors.mqtt.probes.canary import Canary
from bts_collectors.mqtt.sys.values import SysValues
from bts_exporter import TargetError, Url


@dataclass(frozen=True, slots=True)
class Health:
    """The health of one broker."""

    url: Url
    stale_after_seconds: float
    network: NetworkThread
    #: None where `sys: false`.
    values: SysValues | None
    canary: Canary | None
    #: Whether there are rules or pipelines.
    listens: bool
    #: Whether a setting needs `$SYS`.
    needs_sys: bool = False

    def fresh(self) -> bool:
        """Return whether the broker's last uptime is not older than `stale_after`."""
        age_seconds = self.values.age_seconds() if self.values else None
        return age_seconds is not None and age_seconds <= self.stale_after_seconds

    def why_down(self) -> TargetError | None:
        """Return the error if the broker is down or does not respond; None if it is up."""
        state = self.network.state
        if not self.network.alive:
            return errors.network_thread(self.url)
        if not state.connected:
            return TargetError(*state.failure) if state.failure else errors.no_connection(self.url)
        if self.fresh() or self._canary_returns():
            return None
        return self._why_silent()

    def why_incomplete(self) -> TargetError | None:
        """Return the error if the broker is up but a needed subscription is denied or unanswered."""
        state = self.network.state
        if refused := {name: why for name, why in state.denied.items() if self._needs(name)}:
            return errors.denied(self.url, refused)
        waiting = [name for name in state.unanswered if self._needs(name)]
        return errors.unanswered(self.url, waiting) if waiting else None

    def _needs(self, filter_: str) -> bool:
        return self.needs_sys or not filter_.startswith("$SYS")

    def _canary_returns(self) -> bool:
        return self.canary is not None and self.canary.age_seconds() <= self.stale_after_seconds

    def _why_silent(self) -> TargetError | None:
        """Return the error if neither uptime nor canary is fresh; None if the connection is proof enough."""
        state, values = self.network.state, self.values
        if values and values.gave_uptime:
            age_seconds = values.age_seconds() or 0.0
            return errors.old_uptime(self.url, age_seconds, self.stale_after_seconds)
        if self.canary:
            if denied := {
                name: why for name, why in state.denied.items() if not name.startswith("$SYS")
            }:
                return errors.denied(self.url, denied)
            return errors.no_canary(self.url, self.stale_after_seconds)
        if self.listens or not values:
            return None  # the broker answers pings: otherwise the connection would have ended
        if state.denied:
            return errors.denied(self.url, state.denied)
        if not state.granted:
            return errors.unanswered(self.url, state.unanswered or ("$SYS/#",))
        return errors.no_uptime(self.url) if values.heard else errors.silent_sys(self.url)
