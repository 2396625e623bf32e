"""What AMQP itself tells: passive declares, and the canary."""
