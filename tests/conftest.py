"""Fixtures for all tests: real servers, each in the file of its name."""

pytest_plugins = [
    "servers.certificates",
    "servers.exporter",
    "servers.mosquitto",
    "servers.mqttfake",
    "servers.mqtt",
    "servers.prometheus",
    "servers.rabbitmq",
    "servers.redis",
    "servers.redis_groups",
    "servers.redis_versions",
]
