from __future__ import annotations

from time import monotonic

import pytest
from hiredis import ReplyError

from bts_collectors.redis.client.command_support import RETRY_SECONDS, SUPPORTED, CommandSupport
from bts_collectors.redis.client.errors import NoReplyError
from bts_exporter import Scrape, TargetError

NOPERM = ReplyError("NOPERM this user has no permissions to run the 'config|get' command")


def supported(command_support: CommandSupport) -> dict[tuple[str, ...], float]:
    """Return the samples of the commands."""
    scrape = Scrape(monotonic() + 60)
    command_support.emit(scrape)
    return scrape.samples.get(SUPPORTED, {})


def test_a_refused_command_is_not_sent_again_for_a_while() -> None:
    """A refusal is remembered for ten minutes; then the command has another chance."""
    now = 0.0
    command_support = CommandSupport(lambda: now)
    command_support.refused("config|get", NOPERM)

    now = RETRY_SECONDS - 1
    assert not command_support.expects("config|get")
    assert command_support.expects("slowlog|len")
    now = RETRY_SECONDS
    assert command_support.expects("config|get")


def test_supported_commands_are_emitted() -> None:
    """Every command that was sent is 1 or 0, by its latest reply."""
    command_support = CommandSupport()
    command_support.answered("slowlog|len")
    command_support.refused("slowlog|get", NOPERM)
    command_support.refused("config|get", NOPERM)
    command_support.answered("config|get")

    assert supported(command_support) == {
        ("slowlog|len",): 1,
        ("slowlog|get",): 0,
        ("config|get",): 1,
    }


@pytest.mark.parametrize(
    "reply",
    [
        ReplyError("LOADING Redis is loading the dataset in memory"),
        ReplyError("BUSY Redis is busy running a script"),
        NoReplyError(TargetError("refused", "a node of the cluster is down")),
    ],
    ids=["loading", "busy", "lost"],
)
def test_a_server_that_is_busy_supports_the_command(reply: ReplyError) -> None:
    """A temporary refusal is not remembered."""
    command_support = CommandSupport()
    command_support.refused("config|get", reply)

    assert command_support.expects("config|get")
    assert supported(command_support) == {}


def test_another_server_gets_all_commands() -> None:
    """Refusals of one server do not apply to another."""
    command_support = CommandSupport()
    command_support.refused("config|get", NOPERM)
    command_support.forget()

    assert command_support.expects("config|get")
    assert supported(command_support) == {}
