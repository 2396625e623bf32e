"""Whether to trust the publisher's timestamp of the oldest message: its clock may be hours wrong."""

from __future__ import annotations

from bts_collectors.rabbitmq.api.models import CLASSIC, Queue
from bts_collectors.rabbitmq.metrics.queues import head_timestamp
from bts_exporter import backlog

#: Tolerance, in seconds or as a share of the age, for a timestamp older than the age by counts.
OLDER_SECONDS, OLDER_PART = 15.0, 0.15
#: The same for a younger timestamp: a lag that is too small is worse.
YOUNGER_SECONDS, YOUNGER_PART = 6.0, 0.05


class MessageTimes:
    """Compares the timestamps of one queue with the age that the exporter observed."""

    __slots__ = ("_is_wrong",)

    def __init__(self, *, is_wrong: bool = False) -> None:
        """Start by trusting the timestamps, unless `is_wrong`."""
        #: Whether the latest comparison failed.
        self._is_wrong = is_wrong

    @property
    def is_wrong(self) -> bool:
        """Return whether the latest comparison failed."""
        return self._is_wrong

    def refine(
        self, queue: Queue, age: backlog.Age | None, now: float, max_seconds: float
    ) -> backlog.Age | None:
        """Return the age by timestamp if it is valid, otherwise `age`; `now` is Unix time.

        `max_seconds` is the largest possible age. The timestamp is that of the oldest unacknowledged
        message, so it is used only if no message is with a consumer.
        """
        published = head_timestamp(queue) if queue.type == CLASSIC else None
        if published is None or not queue.messages_ready or queue.messages_unacknowledged != 0:
            return age
        claimed = now - published
        self._is_wrong = self._contradicts(claimed, age, max_seconds)
        return age if self._is_wrong else backlog.Age(claimed, "message_time")

    def _contradicts(self, claimed: float, age: backlog.Age | None, max_seconds: float) -> bool:
        if claimed <= 0 or claimed > max_seconds:
            return True
        if age is None:
            return self._is_wrong
        if age.method == "interpolation":
            older = claimed - age.seconds
            most = max(OLDER_SECONDS, OLDER_PART * age.seconds)
            return not -max(YOUNGER_SECONDS, YOUNGER_PART * age.seconds) <= older <= most
        return claimed < age.seconds or self._is_wrong
