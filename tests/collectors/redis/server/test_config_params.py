from __future__ import annotations

from time import monotonic
from typing import Any

import pytest
from hiredis import ReplyError

from bts_collectors.redis.server import config_params
from bts_collectors.redis.server.info import Facts
from bts_exporter import Scrape


def emitted(settings: dict[str, str]) -> dict[str, dict[tuple[str, ...], float]]:
    """Return the samples of the server's settings."""
    scrape = Scrape(monotonic() + 60)
    config_params.emit(scrape, settings)

    assert scrape.losses == []
    return {metric.name: samples for metric, samples in scrape.samples.items()}


def test_parameters_are_requested_together() -> None:
    """Since Redis 7.0 one command requests all parameters, including those that only Valkey has."""
    ((*words,),) = config_params.commands(Facts(version=(7, 0, 15)))
    ((*more,),) = config_params.commands(Facts(version=(7, 2, 4), has_commandlog=True))

    assert words[:3] == ["CONFIG", "GET", "databases"]
    assert more == [*words, "commandlog-*"]


@pytest.mark.parametrize("version", [(), (6, 2, 14)])
def test_older_servers_need_a_command_for_each_parameter(version: tuple[int, ...]) -> None:
    """Before Redis 7.0 each parameter needs a command."""
    commands = config_params.commands(Facts(version=version))

    assert ("CONFIG", "GET", "maxclients") in commands
    assert {len(command) for command in commands} == {3}


def test_replies_are_joined() -> None:
    """The replies of several commands are merged; refused and odd ones are skipped."""
    replies: list[Any] = [
        [b"maxclients", b"10000", b"maxmemory", b"0"],
        [],
        ReplyError("ERR unknown"),
        None,
        [b"databases", b"16", b"odd"],
    ]

    assert config_params.parse(replies) == {
        "maxclients": "10000",
        "maxmemory": "0",
        "databases": "16",
    }


@pytest.mark.parametrize(("settings", "number"), [({"databases": "16"}, 16), ({}, 0)])
def test_databases(settings: dict[str, str], number: int) -> None:
    """The number of databases is one of the parameters, and 0 if it is missing."""
    assert number == config_params.databases(settings)


def test_plain_settings() -> None:
    """Numbers are emitted under their names; other parameters, such as passwords, never."""
    settings = {
        "maxclients": "10000",
        "io-threads": "4",
        "commandlog-request-larger-than": "1048576",
        "maxmemory": "lots",
        "requirepass": "123",
    }

    assert emitted(settings) == {
        "redis_config_maxclients": {(): 10000},
        "redis_config_io_threads": {(): 4},
        "redis_commandlog_request_larger_than": {(): 1048576},
    }


def test_limits_of_output_buffers() -> None:
    """Each class of clients has a hard limit, a soft one, and the seconds that it may be over it."""
    samples = emitted({"client-output-buffer-limit": "normal 0 0 0 slave 256 64 60 pubsub 1"})

    assert samples == {
        "redis_config_client_output_buffer_limit_bytes": {
            ("normal", "hard"): 0,
            ("normal", "soft"): 0,
            ("slave", "hard"): 256,
            ("slave", "soft"): 64,
        },
        "redis_config_client_output_buffer_limit_overcome_seconds": {
            ("normal", "soft"): 0,
            ("slave", "soft"): 60,
        },
    }
