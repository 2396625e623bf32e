"""Queues of single clients, from mosquitto's saved file or EMQX's API."""
