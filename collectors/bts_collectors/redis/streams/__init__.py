"""Streams: lag of consumer groups, pending entries, consumers."""
