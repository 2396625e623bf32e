"""What the live page shows: the last values and the last 15 minutes of the exporter's own scrapes, in memory."""
