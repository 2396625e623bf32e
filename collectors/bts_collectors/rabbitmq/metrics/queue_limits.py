"""Limits of a queue or stream, from its arguments and its effective policy."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from bts_collectors.rabbitmq.api.models import (
    QUORUM,
    STREAM,
    Arguments,
    Policy,
    Queue,
    known,
)

MILLISECONDS = 1000

#: What happens at a limit: the values of the label `effect`.
Effect = Literal["drop_oldest", "reject_new", "dead_letter"]

_DAY = 86400.0
#: Units of a stream's maximum age in seconds, as the broker converts them.
_AGE_UNITS = {"Y": 365 * _DAY, "M": 30 * _DAY, "D": _DAY, "h": 3600.0, "m": 60.0, "s": 1.0}
_AGE = re.compile(r"(\d{1,15})([YMDhms])")
_REJECT, _REJECT_TO_DEAD_LETTERS = "reject-publish", "reject-publish-dlx"


class Limits(NamedTuple):
    """Limits by which messages leave or do not enter a queue without being counted."""

    #: Maximum number of ready messages.
    length: float | None = None
    #: Whether the limit rejects new messages; otherwise the oldest are dropped.
    rejects: bool = False
    #: Message TTL, or maximum age of a stream's messages, in seconds.
    ttl: float | None = None
    #: Whether the queue has priorities, so that messages overtake others.
    priorities: bool = False
    #: What happens to messages beyond `length`, and to those older than `ttl`.
    at_length: Effect = "drop_oldest"
    at_ttl: Effect = "drop_oldest"
    #: Whether the policy is known, which may lower the limits of the arguments.
    is_complete: bool = True
    #: The queue's own time to acknowledge, in seconds; None if it has none.
    ack_timeout: float | None = None
    #: Whether the queue may be full with fewer messages: it has a limit in bytes.
    may_be_full: bool = False


NO_LIMITS = Limits()
_NOTHING: tuple[object, ...] = (None, [], Arguments(), Policy())


def limits_of(queue: Queue, before: Limits = NO_LIMITS) -> Limits:
    """Return the limits of a queue; `before` if the response does not contain its policy.

    The lower number applies. For the overflow behaviour, the argument takes precedence in classic
    queues, and the policy in quorum queues.
    """
    policy = queue.effective_policy_definition
    if policy is None and before is not NO_LIMITS:
        return before
    if queue.arguments in _NOTHING and policy in _NOTHING:  # most queues
        return NO_LIMITS
    is_complete = policy is not None
    arguments = queue.arguments if isinstance(queue.arguments, Arguments) else Arguments()
    policy = policy if isinstance(policy, Policy) else Policy()
    if queue.type == STREAM:
        return Limits(ttl=_max_age(arguments, policy), is_complete=is_complete)
    ttl = _least(arguments.message_ttl, policy.message_ttl)
    timeout = _least(arguments.consumer_timeout, policy.consumer_timeout)
    overflow = _overflow(queue, arguments, policy)
    exchanges = (arguments.dead_letter_exchange, policy.dead_letter_exchange)
    has_dead_letters = any(exchange is not None for exchange in exchanges)
    return Limits(
        length=_least(arguments.max_length, policy.max_length),
        rejects=overflow.startswith(_REJECT),
        ttl=None if ttl is None else ttl / MILLISECONDS,
        priorities=bool(known(arguments.max_priority)),
        at_length=_at_length(overflow, has_dead_letters=has_dead_letters),
        at_ttl="dead_letter" if has_dead_letters else "drop_oldest",
        is_complete=is_complete,
        ack_timeout=None if timeout is None else timeout / MILLISECONDS,
        may_be_full=_least(arguments.max_length_bytes, policy.max_length_bytes) is not None,
    )


def has_ttl_of_policy(queue: Queue, limits: Limits) -> bool:
    """Return whether the TTL is not that of the arguments, which a queue has from its declaration on."""
    arguments = queue.arguments
    own = known(arguments.message_ttl) if isinstance(arguments, Arguments) else None
    return limits.ttl is not None and (own is None or own / MILLISECONDS != limits.ttl)


def _overflow(queue: Queue, arguments: Arguments, policy: Policy) -> str:
    settings = (arguments.overflow, policy.overflow)
    first, second = reversed(settings) if queue.type == QUORUM else settings
    return first or second or ""


def _at_length(overflow: str, *, has_dead_letters: bool) -> Effect:
    """Return what happens to messages beyond the maximum length."""
    if overflow == _REJECT:
        return "reject_new"
    if has_dead_letters:
        return "dead_letter"
    return "reject_new" if overflow == _REJECT_TO_DEAD_LETTERS else "drop_oldest"


def _max_age(arguments: Arguments, policy: Policy) -> float | None:
    """Return the maximum age of a stream's messages in seconds; None if there is none."""
    ages = [
        int(match[1]) * _AGE_UNITS[match[2]]
        for text in (arguments.max_age, policy.max_age)
        if text is not None and (match := _AGE.fullmatch(text))
    ]
    return min(ages, default=None)


def _least(*limits: object) -> float | None:
    return min((number for limit in limits if (number := known(limit)) is not None), default=None)
