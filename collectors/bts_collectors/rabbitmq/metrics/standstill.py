"""Since when the depth of a queue and its counts have stayed the same: its messages are the same ones, too."""

from __future__ import annotations

from typing import NamedTuple

from bts_collectors.rabbitmq.metrics.queue_order import DEPTH_DELAY_SECONDS, Depth, Flow


class Standstill(NamedTuple):
    """Ready messages of a queue in which nothing happens."""

    since: float
    depth: Depth
    #: The latest known counts, and their time; None if there have been none all the time.
    flow: Flow | None
    counted: float

    def seconds(self, now: float) -> float | None:
        """Return how long it has lasted; None while the depth may be older than that."""
        seconds = now - self.since
        return seconds if seconds >= DEPTH_DELAY_SECONDS else None

    def shifted(self, shift: float) -> Standstill:
        """Return it with `shift` added to its times."""
        return self._replace(since=self.since + shift, counted=self.counted + shift)

    @property
    def was_counted(self) -> bool:
        """Return whether counts have confirmed it."""
        return self.flow is not None and self.seconds(self.counted) is not None


def observe(
    before: Standstill | None, depth: Depth, flow: Flow | None, now: float
) -> Standstill | None:
    """Return the standstill after an observation; None if no message is ready.

    Counts that are missing or 0 do not end it: the broker lost its statistics.
    """
    if depth.ready == 0:
        return None
    if before is not None and (depth.ready is None or depth == before.depth):
        if flow is None:
            return before
        if before.flow is not None and _may_be_same(before.flow, flow):
            return Standstill(before.since, before.depth, flow, now)
    return None if depth.ready is None else Standstill(now, depth, flow, now)


def _may_be_same(before: Flow, flow: Flow) -> bool:
    """Return whether nothing happened between these counts, each of which may be lost."""
    return all(new in {0, old} for new, old in zip(flow, before, strict=True))
