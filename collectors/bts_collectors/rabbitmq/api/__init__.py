"""The HTTP client of the management API, and the shapes of its responses."""
