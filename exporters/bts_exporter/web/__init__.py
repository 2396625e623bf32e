"""The HTTP server: sockets, connections with deadlines, requests, routes."""
