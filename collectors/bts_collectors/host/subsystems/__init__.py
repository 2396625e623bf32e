"""Every module here is a subsystem, found by its COLLECTOR."""
