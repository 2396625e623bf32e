"""Many machines: from an inventory to the targets that Prometheus scrapes."""
