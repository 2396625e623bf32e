"""When the messages in mosquitto's persistence file arrived: the file has no times, but numbers all messages.

Each saved file has the number of the latest message, so that a message arrived between two saves.
"""

from __future__ import annotations

from bts_exporter import backlog

#: Seconds, or share of the age, within which it must be known to be more than a lower bound.
_SECONDS, _SHARE = 10.0, 0.1


class Arrivals:
    """The numbers of the latest messages at the times of the saves."""

    __slots__ = ("_timeline",)

    def __init__(self) -> None:
        """Begin without a saved file."""
        self._timeline = backlog.Timeline()

    def observe(self, saved: float, latest: int | None) -> None:
        """Add a file that was saved at a Unix time; `latest` is None if it has no number."""
        if latest is not None:
            self._timeline.observe(saved, latest)

    def age(self, number: int | None, saved: float, now: float) -> backlog.Age | None:
        """Return the age of a message, by its number, that waited when the file was `saved`; None if unknown.

        A lower bound is the age at that time: whether the message still waits is unknown.
        """
        began = self._timeline.began
        if number is None or began is None:
            return None
        arrival = self._timeline.arrival(number - 1)
        if arrival is None:  # from before the first file, or not numbered
            age = self._timeline.age(number - 1, saved)
            return age if age is not None and age.method == "lower_bound" else None
        lowest, highest = saved - arrival.latest, now - arrival.earliest
        if highest - lowest <= max(_SECONDS, _SHARE * highest):
            return self._timeline.age(number - 1, now)
        return backlog.Age(lowest, "lower_bound") if lowest > 0 else None
