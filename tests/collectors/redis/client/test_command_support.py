from __future__ import annotations

from time import monotonic

import pytest
from hiredis import ReplyError

from bts_collectors.redis.client.command_support import RETRY, SUPPORTED, Refusals
from bts_collectors.redis.client.errors import Lost
from bts_exporter import Scrape, TargetError

NOPERM = ReplyError("NOPERM this user has no permissions to run the 'config|get' command")


def supported(refusals: Refusals) -> dict[tuple[str, ...], float]:
    """Return what is exported of the commands."""
    scrape = Scrape(monotonic() + 60)
    refusals.emit(scrape)
    return scrape.samples.get(SUPPORTED, {})


def test_a_refused_command_is_not_asked_again_for_a_while() -> None:
    """A refusal is remembered for ten minutes; then the command has another chance."""
    now = 0.0
    refusals = Refusals(lambda: now)
    refusals.refused("config|get", NOPERM)

    now = RETRY - 1
    assert not refusals.expects("config|get")
    assert refusals.expects("slowlog|len")
    now = RETRY
    assert refusals.expects("config|get")


def test_what_the_server_supports_is_told() -> None:
    """Every command that was asked for is 1 or 0, by its latest reply."""
    refusals = Refusals()
    refusals.answered("slowlog|len")
    refusals.refused("slowlog|get", NOPERM)
    refusals.refused("config|get", NOPERM)
    refusals.answered("config|get")

    assert supported(refusals) == {("slowlog|len",): 1, ("slowlog|get",): 0, ("config|get",): 1}


@pytest.mark.parametrize(
    "reply",
    [
        ReplyError("LOADING Redis is loading the dataset in memory"),
        ReplyError("BUSY Redis is busy running a script"),
        Lost(TargetError("refused", "a node of the cluster is down")),
    ],
    ids=["loading", "busy", "lost"],
)
def test_a_server_that_is_busy_supports_the_command(reply: ReplyError) -> None:
    """A refusal that will be over next time is none to remember."""
    refusals = Refusals()
    refusals.refused("config|get", reply)

    assert refusals.expects("config|get")
    assert supported(refusals) == {}


def test_another_server_is_asked_anew() -> None:
    """What one server refused says nothing about the next one."""
    refusals = Refusals()
    refusals.refused("config|get", NOPERM)
    refusals.forget()

    assert refusals.expects("config|get")
    assert supported(refusals) == {}
