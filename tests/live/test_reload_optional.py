"""A reload while an optional target is down, with the real process."""

from __future__ import annotations

import signal

import pytest

from servers import wait_until
from servers.exporter import StartExporter
from servers.redis import MakeRedis

pytestmark = pytest.mark.live


def test_reload_does_not_hide_the_outage_of_an_optional_target(
    exporter: StartExporter, make_redis: MakeRedis
) -> None:
    """A target that has answered stays a failure when another of its settings changes."""
    redis = make_redis()
    settings = f"collectors:\n  redis: {{url: '{redis.url}', optional: true, timeout: TIMEOUT}}\n"
    server = exporter(settings.replace("TIMEOUT", "1s"))
    wait_until(lambda: server.value("redis_up") == 1, "Redis answers")
    redis.kill()
    wait_until(lambda: server.value("redis_up") == 0, "Redis is down")
    loaded = server.value("bts_exporter_config_last_reload_success_timestamp_seconds")

    server.config.write_text(settings.replace("TIMEOUT", "1500ms"))
    server.popen.send_signal(signal.SIGHUP)
    wait_until(
        lambda: server.value("bts_exporter_config_last_reload_success_timestamp_seconds") != loaded,
        "the settings are reloaded",
    )

    assert server.value("redis_up") == 0
    assert server.value("bts_exporter_collector_success", collector="redis", target="") == 0
