"""Changes of a queue's limits by policies that concern the messages from before."""

from __future__ import annotations

from typing import NamedTuple

from bts_collectors.rabbitmq.api.models import QUORUM, Queue
from bts_collectors.rabbitmq.metrics.queue_limits import Limits, has_ttl_of_policy

#: Share of its limit below which a quorum queue that rejected messages accepts them again.
ACCEPTS_BELOW = 0.8


class PolicyChanges(NamedTuple):
    """What is to be remembered of changes."""

    #: When the message TTL was seen to be another one than before; None for never.
    ttl: float | None = None
    #: Whether a new limit was below the depth of a classic queue, until it has been applied. The queue applies the
    #: length before the overflow behavior: once, it drops its oldest messages although the limit rejects new ones.
    drops: bool = False
    #: Whether a quorum queue was full when its limit ceased to reject messages. Channels that published to it do not
    #: notice that: their messages are rejected until they are closed.
    rejected: bool = False

    def after(
        self, queue: Queue, before: Limits, limits: Limits, depth: float, now: float
    ) -> PolicyChanges:
        """Return the changes after an observation of other limits."""
        changes = self
        if limits.ttl != before.ttl and has_ttl_of_policy(queue, limits):
            changes = changes._replace(ttl=now)
        if queue.type == QUORUM:
            was_full = before.may_be_full or depth >= ACCEPTS_BELOW * (before.length or depth + 1)
            if before.rejects and not limits.rejects and was_full:
                changes = changes._replace(rejected=True)
        elif limits.rejects and not before.rejects:
            changes = changes._replace(drops=limits.length is not None and limits.length < depth)
        return changes

    def shifted(self, shift: float) -> PolicyChanges:
        """Return them with `shift` added to the time."""
        return self if self.ttl is None else self._replace(ttl=self.ttl + shift)

    def apply(self, limits: Limits, *, has_ttl: bool) -> Limits:
        """Return the limits as the queue applies them."""
        if not has_ttl:
            limits = limits._replace(ttl=None)
        if self.drops:
            return limits._replace(rejects=False)
        if self.rejected and limits.length is None and not limits.may_be_full:
            return limits._replace(rejects=True, may_be_full=True)
        return limits

    def applied(self) -> PolicyChanges:
        """Return them after an observation to which they were applied."""
        return self._replace(drops=False) if self.drops else self

    def may_reject(self, limits: Limits) -> bool:
        """Return whether it is unknown if new messages are rejected or the oldest ones dropped."""
        is_limited = limits.length is not None or limits.may_be_full
        return self.rejected and is_limited and not limits.rejects


NO_CHANGES = PolicyChanges()
