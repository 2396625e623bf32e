"""The connection to a server, and to those that Sentinel or a cluster names."""
