from __future__ import annotations

from bts_collectors.redis.client.unanswered_commands import (
    RETRY_SECONDS,
    STRIKES_SECONDS,
    UnansweredCommands,
    command_name,
)
from bts_exporter import TargetError

HANG = TargetError("timeout", "no reply in time")
COMMAND = ("LATENCY", "LATEST")
NAME = command_name(COMMAND)


def test_a_command_is_left_out_when_it_failed_twice() -> None:
    """One failure may be a restarted server; after two the command is left out for a while."""
    now = 1000.0
    unanswered = UnansweredCommands(lambda: now)
    unanswered.add(NAME, HANG)
    assert not unanswered

    unanswered.add(NAME, HANG)

    assert unanswered
    assert unanswered.no_reply(("LATENCY", "HISTOGRAM")) is None
    lost = unanswered.no_reply(COMMAND)
    assert lost is not None
    assert str(lost) == "no reply in time (not sent again for 60 s)"
    now += RETRY_SECONDS
    assert not unanswered
    assert unanswered.no_reply(COMMAND) is None
    unanswered.add(NAME, HANG)
    assert unanswered


def test_two_failures_far_apart() -> None:
    """Two failures hours apart do not count together."""
    now = 1000.0
    unanswered = UnansweredCommands(lambda: now)
    unanswered.add(NAME, HANG)
    now += STRIKES_SECONDS

    unanswered.add(NAME, HANG)

    assert not unanswered


def test_info_is_always_sent() -> None:
    """INFO is sent in every scrape, since everything else depends on it."""
    unanswered = UnansweredCommands()
    for _ in range(3):
        unanswered.add("INFO", HANG)

    assert not unanswered
