"""RabbitMQ's own Prometheus endpoint as a source."""
