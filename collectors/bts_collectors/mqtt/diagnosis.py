"""Whether the broker is up, and why a collection fails: what is known of it goes in, both come out."""

from __future__ import annotations

from dataclasses import dataclass

from bts_collectors.mqtt.client import errors
from bts_collectors.mqtt.client.network_thread import NetworkThread
from bts_collectors.mqtt.probes.canary import Canary
from bts_collectors.mqtt.sys.values import SysValues
from bts_exporter import TargetError, Url


@dataclass(frozen=True, slots=True)
class Health:
    """Judges one broker."""

    url: Url
    stale_after: float
    network: NetworkThread
    #: None where `sys: false`.
    values: SysValues | None
    canary: Canary | None
    #: Whether there are rules or pipelines.
    listens: bool
    #: Whether something that was asked for comes from `$SYS` alone.
    needs_sys: bool = False

    def fresh(self) -> bool:
        """Return whether the broker has given its uptime of late."""
        age = self.values.age_seconds() if self.values else None
        return age is not None and age <= self.stale_after

    def why_down(self) -> TargetError | None:
        """Return why nothing shows that the broker lives; None where something does."""
        state = self.network.state
        if not self.network.alive:
            return errors.network_thread(self.url)
        if not state.connected:
            return TargetError(*state.failure) if state.failure else errors.no_connection(self.url)
        if self.fresh() or self._canary_returns():
            return None
        return self._why_silent()

    def why_incomplete(self) -> TargetError | None:
        """Return what is missing although the broker is up: subscriptions that something needs."""
        state = self.network.state
        if refused := {name: why for name, why in state.denied.items() if self._needs(name)}:
            return errors.denied(self.url, refused)
        waiting = [name for name in state.unanswered if self._needs(name)]
        return errors.unanswered(self.url, waiting) if waiting else None

    def _needs(self, filter_: str) -> bool:
        return self.needs_sys or not filter_.startswith("$SYS")

    def _canary_returns(self) -> bool:
        return self.canary is not None and self.canary.age_seconds() <= self.stale_after

    def _why_silent(self) -> TargetError | None:
        """Return why neither an uptime nor a canary is fresh, unless the connection itself will do."""
        state, values = self.network.state, self.values
        if values and values.gave_uptime:
            age = values.age_seconds() or 0.0
            return errors.old_uptime(self.url, age, self.stale_after)
        if self.canary:
            if denied := {n: w for n, w in state.denied.items() if not n.startswith("$SYS")}:
                return errors.denied(self.url, denied)
            return errors.no_canary(self.url, self.stale_after)
        if self.listens or not values:
            return None  # the broker answers pings, or the connection would have ended
        if state.denied:
            return errors.denied(self.url, state.denied)
        if not state.granted:
            return errors.unanswered(self.url, state.unanswered or ("$SYS/#",))
        return errors.no_uptime(self.url) if values.heard else errors.silent_sys(self.url)
