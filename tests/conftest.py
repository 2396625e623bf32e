"""Fixtures for all tests: real servers, each in the file of its name."""

from hypothesis import settings

# Hypothesis fails an example that takes longer than 200 ms: on a busy machine that says nothing.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

pytest_plugins = [
    "servers.browser",
    "servers.certificates",
    "servers.exporter",
    "servers.machine",
    "servers.mosquitto",
    "servers.mqttfake",
    "servers.mqtt",
    "servers.prometheus",
    "servers.rabbitmq",
    "servers.redis",
    "servers.redis_groups",
    "servers.redis_proxy",
    "servers.redis_versions",
    "servers.monitored",  # imports the others
]
