"""Requests to RabbitMQ's HTTP interfaces, and models of the responses."""
