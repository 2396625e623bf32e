"""Metrics under other exporters' names."""
