"""Metrics of the broker from its $SYS topics."""
