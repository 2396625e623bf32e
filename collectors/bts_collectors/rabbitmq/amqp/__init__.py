"""AMQP 0-9-1: passive declarations of queues, and the canary."""
