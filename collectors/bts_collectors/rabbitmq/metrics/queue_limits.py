"""What a queue's arguments and its effective policy let happen to messages that wait."""

from __future__ import annotations

from typing import NamedTuple

from bts_collectors.rabbitmq.api.models import Arguments, Policy, Queue, known

MILLISECONDS = 1000


class Limits(NamedTuple):
    """Ways in which messages leave a queue, or never enter it, without being counted."""

    #: Messages that may wait.
    length: float | None = None
    #: Whether what does not fit is refused; otherwise the oldest are dropped.
    rejects: bool = False
    #: Seconds after which a message expires.
    ttl: float | None = None
    #: Whether messages overtake others.
    priorities: bool = False


NONE = Limits()
_NOTHING: tuple[object, ...] = (None, [], Arguments(), Policy())


def limits_of(queue: Queue, before: Limits = NONE) -> Limits:
    """Return the limits of a queue; `before` where the answer does not hold its policy.

    The lower number counts, and an argument more than a policy.
    """
    policy = queue.effective_policy_definition
    if policy is None and before is not NONE:
        return before
    if queue.arguments in _NOTHING and policy in _NOTHING:  # as of most queues
        return NONE
    arguments = queue.arguments if isinstance(queue.arguments, Arguments) else Arguments()
    policy = policy if isinstance(policy, Policy) else Policy()
    ttl = _least(arguments.message_ttl, policy.message_ttl)
    overflow = arguments.overflow or policy.overflow or ""
    return Limits(
        length=_least(arguments.max_length, policy.max_length),
        rejects=overflow.startswith("reject-publish"),
        ttl=None if ttl is None else ttl / MILLISECONDS,
        priorities=bool(known(arguments.max_priority)),
    )


def _least(*limits: object) -> float | None:
    return min((number for limit in limits if (number := known(limit)) is not None), default=None)
