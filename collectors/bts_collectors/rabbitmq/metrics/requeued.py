"""Whether requeued messages may wait at the end of a quorum queue, behind younger ones.

Quorum queues put a requeued message at the end (seen on 3.10), classic ones where it was. So the oldest message may
be any, and the age of the message at the head is only a lower bound.
"""

from __future__ import annotations

from bts_collectors.rabbitmq.api.models import MessageStats, Queue, known
from bts_collectors.rabbitmq.metrics.queue_order import DEPTH_DELAY_SECONDS

#: Seconds for which messages must be missing: the number of unacknowledged ones is older than the counts.
_WINDOW_SECONDS = 2 * DEPTH_DELAY_SECONDS


class Requeued:
    """The delivered messages of one queue that are neither acknowledged nor with a consumer."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        """Start without observations."""
        self._seen: list[tuple[float, float]] = []

    def may_wait(self, queue: Queue, now: float) -> bool:
        """Add an observation at `now`, in seconds; return whether such messages have been missing for some time.

        Rejected messages cannot be told from them.
        """
        missing = _missing(queue)
        if missing is not None:
            self._seen.append((now, missing))
        while len(self._seen) > 1 and self._seen[0][0] < now - _WINDOW_SECONDS:
            del self._seen[0]
        return bool(self._seen) and min(count for _, count in self._seen) > 0


def _missing(queue: Queue) -> float | None:
    """Return how many first deliveries were not acknowledged and are over; None if unknown."""
    stats, unacked = queue.message_stats, known(queue.messages_unacknowledged)
    if not isinstance(stats, MessageStats) or unacked is None:
        return None
    delivered = (known(stats.deliver) or 0.0) + (known(stats.get) or 0.0)
    return delivered - (known(stats.redeliver) or 0.0) - (known(stats.ack) or 0.0) - unacked
