"""Checks of alert rules, their tests, runbooks and queries: `make rules`."""
