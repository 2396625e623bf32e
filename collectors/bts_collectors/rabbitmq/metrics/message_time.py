"""What the time that a publisher put on the oldest message is worth: its clock may be hours wrong."""

from __future__ import annotations

from bts_collectors.rabbitmq.api.models import CLASSIC, Queue
from bts_collectors.rabbitmq.metrics.queues import head_timestamp
from bts_exporter import backlog

#: Seconds, or the part of an age, by which a message may say that it is older than the counts do.
OLDER_SECONDS, OLDER_PART = 15.0, 0.15
#: The same where it says that it is younger: a small number that is wrong is worse.
YOUNGER_SECONDS, YOUNGER_PART = 6.0, 0.05


class MessageTimes:
    """Compares times on messages with what the exporter itself observed of one queue."""

    __slots__ = ("_is_wrong",)

    def __init__(self) -> None:
        """Begin with trust."""
        #: Whether the latest comparison was a contradiction.
        self._is_wrong = False

    def refine(
        self, queue: Queue, age: backlog.Age | None, now: float, oldest: float
    ) -> backlog.Age | None:
        """Return the more exact of `age` and that by the message's own time; `now` is Unix time.

        `oldest` is how old a message can be at most. The time is used only where the oldest message
        that is not acknowledged is one that waits, and where nothing contradicts it.
        """
        published = head_timestamp(queue) if queue.type == CLASSIC else None
        if published is None or not queue.messages_ready or queue.messages_unacknowledged != 0:
            return age
        claimed = now - published
        self._is_wrong = self._contradicts(claimed, age, oldest)
        return age if self._is_wrong else backlog.Age(claimed, "message_time")

    def _contradicts(self, claimed: float, age: backlog.Age | None, oldest: float) -> bool:
        if claimed <= 0 or claimed > oldest:
            return True
        if age is None:
            return self._is_wrong
        if age.method == "interpolation":
            older = claimed - age.seconds
            most = max(OLDER_SECONDS, OLDER_PART * age.seconds)
            return not -max(YOUNGER_SECONDS, YOUNGER_PART * age.seconds) <= older <= most
        return claimed < age.seconds or self._is_wrong
