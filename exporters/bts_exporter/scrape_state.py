"""The state of a scrape that the engine reads after the collection."""

from __future__ import annotations

from typing import Any

from bts_exporter.errors import REASONS, Reason

#: How many losses of one collection are listed; the others are only counted.
_MOST_LOSSES = 10


class ScrapeState:
    """The outcome of a collection; only the engine sets it."""

    __slots__ = (
        "__weakref__",
        "_closed",
        "_deadline",
        "_dropped",
        "_losses",
        "_max_series",
        "_samples",
        "_unlisted",
        "_unwanted",
    )

    def __init__(self, deadline: float, max_series: int) -> None:
        """Give `deadline` on the clock of `time.monotonic`."""
        self._max_series = max_series
        self._deadline = float(deadline)
        #: By metric.
        self._samples: dict[Any, dict[tuple[str, ...], float]] = {}
        self._dropped = 0
        self._losses: list[tuple[Reason, str]] = []
        self._unlisted = 0
        #: Metrics that were emitted and that the settings leave out.
        self._unwanted: set[Any] = set()
        self._closed = False

    @property
    def deadline(self) -> float:
        """When the collection must have ended, on the clock of `time.monotonic`."""
        deadline: float = self._kept("_deadline", float, 0.0)
        return deadline

    @deadline.setter
    def deadline(self, moment: float) -> None:
        self._deadline = float(moment)

    @property
    def samples(self) -> dict[Any, dict[tuple[str, ...], float]]:
        """The samples emitted so far, for the engine and tests; collectors use `has` and `discard`."""
        samples: dict[Any, dict[tuple[str, ...], float]] = self._kept("_samples", dict, {})
        return samples

    @property
    def dropped(self) -> int:
        """How many samples `max_series` left out."""
        dropped: int = self._kept("_dropped", int, 0)
        return dropped

    @property
    def losses(self) -> list[tuple[Reason, str]]:
        """The reason and message of each distinct loss, in the order in which they came."""
        losses: list[tuple[Reason, str]] = list(self._kept("_losses", list, []))
        if self.dropped:
            limit = f"raise max_series (now {self._max_series}), or filter metrics"
            losses.append(("limited", f"{self.dropped} series dropped: {limit}"))
        return losses

    @property
    def unlisted(self) -> int:
        """How many losses there were besides those in `losses`."""
        unlisted: int = self._kept("_unlisted", int, 0)
        return unlisted

    @property
    def emitted(self) -> bool:
        """Whether any sample was emitted, even if it was left out."""
        unwanted = self._kept("_unwanted", set, set())
        return bool(self.samples or unwanted or self.dropped or self.losses)

    @property
    def closed(self) -> bool:
        """Whether the collection is over; it cannot begin again."""
        closed: bool = self._kept("_closed", bool, True)
        return closed

    @closed.setter
    def closed(self, over: bool) -> None:
        self._closed = self.closed or bool(over)

    def _lose(self, reason: Reason, message: str) -> None:
        """Add a loss; one that is listed already is not listed twice."""
        loss = (reason if reason in REASONS else "internal", message)
        if loss in self._losses:
            return
        # Every reason is listed, since they are counted.
        if len(self._losses) < _MOST_LOSSES or loss[0] not in dict(self._losses):
            self._losses.append(loss)
        else:
            self._unlisted += 1

    def _kept(self, field: str, kind: type, default: Any) -> Any:
        """Return a field, or `default` where a plug-in deleted or replaced it."""
        value = getattr(self, field, default)
        return value if type(value) is kind else default
