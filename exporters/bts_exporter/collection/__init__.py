"""Collectors at work: from their types and settings to one scrape's snapshots."""
