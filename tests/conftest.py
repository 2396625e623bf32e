"""Fixtures for all tests: real servers, each in the file of its name."""

pytest_plugins = ["servers.rabbitmq", "servers.redis", "servers.mosquitto", "servers.prometheus"]
