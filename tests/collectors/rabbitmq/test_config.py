from __future__ import annotations

import re
from typing import Any

import pytest

from bts_collectors.rabbitmq.collector import RabbitMQ
from bts_collectors.rabbitmq.config import CanarySettings, RabbitMQConfig
from bts_exporter import Duration, TLSConfig, Url, gauge
from bts_exporter.settings.misplaced_keys import advice

HTTP = Url.from_setting("http://broker:15672")
AMQP = Url.from_setting("amqp://broker")
AMQPS = Url.from_setting("amqps://broker")
TLS = TLSConfig(ca_file="/ca.pem")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"url": HTTP, "source": "management", "scope": "node", "compat": "kbudde"},
        {"url": HTTP, "native": Url.from_setting("https://broker:15691")},
        {"url": Url.from_setting("http://broker:15692"), "source": "prometheus"},
        {"url": AMQP, "declare": ("orders",)},
        {"url": Url.from_setting("amqps://broker/prod"), "source": "amqp", "declare": ("orders",)},
        {"canary": CanarySettings(url=AMQP)},
        {"url": Url.from_setting("https://broker"), "tls": TLS},
        {"native": Url.from_setting("https://broker:15691"), "tls": TLS},
        {"url": AMQPS, "declare": ("orders",), "tls": TLS},
        {"canary": CanarySettings(url=AMQPS), "tls": TLS},
    ],
)
def test_settings_that_go_together_are_taken(settings: dict[str, Any]) -> None:
    """Each source accepts its own kind of address."""
    assert RabbitMQConfig(**settings).url.host


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"url": Url.from_setting("redis://broker")},
            r"url: expected http:// or https://, got redis://broker \(.*http://host:15672\)",
        ),
        (
            {"url": HTTP, "source": "amqp"},
            r"url: expected amqp:// or amqps://, got http://.* \(.*amqp://host:5672/vhost\)",
        ),
        (
            {"url": AMQP, "source": "management"},
            r"url: expected http:// or https://, got amqp://broker \(.*http://host:15672\)",
        ),
        (
            {"url": AMQP, "source": "prometheus"},
            r"url: expected http:// or https://, got amqp://broker \(.*http://host:15692\)",
        ),
        ({"url": AMQP}, r"declare: missing; AMQP has no list.*declare: \[NAME\]"),
        ({"url": HTTP, "declare": ("orders",)}, "declare: .*amqp://"),
        (
            {"native": AMQP},
            r"native: expected http:// or https://, got amqp://broker \(.*http://host:15692\)",
        ),
        ({"source": "prometheus", "compat": "kbudde"}, "compat: .*management API"),
        ({"native": HTTP, "compat": "kbudde"}, "compat: .*management API"),
        ({"url": AMQP, "declare": ("a",), "compat": "kbudde"}, "compat: .*management API"),
        ({"tls": TLS}, "tls: only https:// and amqps:// use TLS, got http://"),
        (
            {"native": HTTP, "canary": CanarySettings(url=AMQP), "tls": TLS},
            "tls: .* got http:// and amqp://",
        ),
        ({"url": AMQP, "declare": ("a",), "tls": TLS}, "tls: .*, got amqp://"),
    ],
)
def test_settings_that_do_not_go_together_are_refused_with_the_key(
    settings: dict[str, Any], words: str
) -> None:
    """The error names the setting and the expected value."""
    with pytest.raises(ValueError, match=words):
        RabbitMQConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"url": HTTP}, "url: .*amqp://"),
        ({"url": AMQP, "timeout": Duration(0)}, "timeout: "),
        ({"url": AMQP, "timeout": Duration(11)}, "timeout: .*interval, 10 s"),
        ({"url": AMQP, "interval": Duration(61)}, "interval: 61 s is too long .*at most 60 s"),
    ],
)
def test_a_canary_needs_an_address_of_amqp_and_time_enough(
    settings: dict[str, Any], words: str
) -> None:
    """A canary needs an AMQP address and a timeout within its interval."""
    with pytest.raises(ValueError, match=words):
        CanarySettings(**settings)


def test_addresses_are_shown_without_credentials() -> None:
    """The text form of the settings contains no password."""
    settings = CanarySettings(url=Url.from_setting("amqp://canary:s3cret@broker"))

    assert "s3cret" not in repr(RabbitMQConfig(canary=settings))


def test_patterns_say_how_much_they_let_through() -> None:
    """Include patterns report how many virtual hosts and queues they select."""
    config = RabbitMQConfig(vhosts_include=re.compile("^a"), queues_include=re.compile("jobs"))
    ready, other = gauge("ready", "Ready.", ("vhost", "queue")), gauge("other", "Other.", "node")
    samples = {ready: {("a", "jobs1"): 1.0, ("a", "jobs2"): 2.0}, other: {("n",): 1.0}}

    assert [match[:4] for match in RabbitMQ(config).matches(samples)] == [
        ("vhosts_include", "^a", 1, "virtual hosts"),
        ("queues_include", "jobs", 2, "queues"),
    ]
    assert list(RabbitMQ(RabbitMQConfig()).matches(samples)) == []


@pytest.mark.parametrize("key", ["vhost", "queues", "hosts", "user", "host", "port", "pass"])
def test_keys_of_other_programs_are_answered(key: str) -> None:
    """Keys that users know from other programs give advice."""
    known = {*RabbitMQConfig.__struct_fields__}

    assert advice(key, known, RabbitMQConfig)
