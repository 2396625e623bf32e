"""Queues of job libraries and plain keys."""
