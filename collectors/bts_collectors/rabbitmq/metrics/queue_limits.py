"""Limits of a queue, from its arguments and its effective policy."""

from __future__ import annotations

from typing import NamedTuple

from bts_collectors.rabbitmq.api.models import Arguments, Policy, Queue, known

MILLISECONDS = 1000


class Limits(NamedTuple):
    """Limits by which messages leave or do not enter a queue without being counted."""

    #: Maximum number of ready messages.
    length: float | None = None
    #: Whether the limit rejects new messages; otherwise the oldest are dropped.
    rejects: bool = False
    #: Message TTL in seconds.
    ttl: float | None = None
    #: Whether the queue has priorities, so that messages overtake others.
    priorities: bool = False


NO_LIMITS = Limits()
_NOTHING: tuple[object, ...] = (None, [], Arguments(), Policy())


def limits_of(queue: Queue, before: Limits = NO_LIMITS) -> Limits:
    """Return the limits of a queue; `before` if the response does not contain its policy.

    The lower number applies; for the overflow behaviour, the argument takes precedence.
    """
    policy = queue.effective_policy_definition
    if policy is None and before is not NO_LIMITS:
        return before
    if queue.arguments in _NOTHING and policy in _NOTHING:  # most queues
        return NO_LIMITS
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
