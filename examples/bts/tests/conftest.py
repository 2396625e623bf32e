"""Fixtures for the tests of the BTS service: real servers."""

pytest_plugins = [
    "servers.exporter",
    "servers.mosquitto",
    "servers.prometheus",
    "servers.rabbitmq",
    "servers.redis",
]
