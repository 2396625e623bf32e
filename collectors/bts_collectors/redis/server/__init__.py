"""Metrics of the server from INFO, CONFIG, SLOWLOG, LATENCY and CLIENT LIST."""
