"""What the time that a publisher put on the oldest message is worth: its clock may be hours wrong."""

from __future__ import annotations

from bts_collectors.rabbitmq.queues import head_timestamp
from bts_collectors.rabbitmq.shapes import CLASSIC, Queue
from bts_exporter import backlog

#: Seconds, or the part of an age, by which two ages of the same message may differ.
NEAR_SECONDS = 15.0
NEAR_PART = 0.15


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
        near = max(NEAR_SECONDS, NEAR_PART * age.seconds)
        if age.method == "interpolation":
            return abs(claimed - age.seconds) > near
        return claimed < age.seconds or self._is_wrong
