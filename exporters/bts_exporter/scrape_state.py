"""The part of a scrape that the engine reads when the collection has ended."""

from __future__ import annotations

from typing import Any

from bts_exporter.errors import Reason


class ScrapeState:
    """The outcome of a collection; only the engine sets it."""

    __slots__ = ("__weakref__", "_closed", "_deadline", "_dropped", "_rejected", "_samples")

    def __init__(self, deadline: float) -> None:
        """Give `deadline` on the clock of `time.monotonic`."""
        self._deadline = float(deadline)
        #: By metric.
        self._samples: dict[Any, dict[tuple[str, ...], float]] = {}
        self._dropped = 0
        self._rejected: tuple[Reason, str] | None = None
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
        """What was emitted so far."""
        samples: dict[Any, dict[tuple[str, ...], float]] = self._kept("_samples", dict, {})
        return samples

    @property
    def dropped(self) -> int:
        """How many samples `max_series` left out."""
        dropped: int = self._kept("_dropped", int, 0)
        return dropped

    @property
    def rejected(self) -> tuple[Reason, str] | None:
        """The first sample that had to be left out."""
        rejected: tuple[Reason, str] | None = self._kept("_rejected", tuple, None)
        return rejected

    @property
    def closed(self) -> bool:
        """Whether the collection is over; it cannot begin again."""
        closed: bool = self._kept("_closed", bool, True)
        return closed

    @closed.setter
    def closed(self, over: bool) -> None:
        self._closed = self.closed or bool(over)

    def _kept(self, field: str, kind: type, default: Any) -> Any:
        """Return a field, or `default` where a plug-in deleted or replaced it."""
        value = getattr(self, field, default)
        return value if type(value) is kind else default
