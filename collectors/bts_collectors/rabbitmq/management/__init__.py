"""The management API as the source of all metrics."""
