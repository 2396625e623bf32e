"""The metrics by subject, for all sources."""
