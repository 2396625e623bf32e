"""Debian's Prometheus."""
