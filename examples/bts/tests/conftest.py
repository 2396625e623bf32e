"""Fixtures for the tests of the BTS service."""

pytest_plugins = [
    "servers.exporter",
    "servers.mosquitto",
    "servers.prometheus",
    "servers.rabbitmq",
    "servers.redis",
    "bts_stack",  # imports those above
]
