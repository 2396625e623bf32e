"""Fixtures for the tests of the plug-ins."""

pytest_plugins = ["servers.certificates"]
