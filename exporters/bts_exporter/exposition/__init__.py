"""Samples become pages in Prometheus' text format and OpenMetrics."""
