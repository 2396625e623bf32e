"""RabbitMQ: nodes, queues, streams and consumer lag of a whole cluster, under rabbitmq_prometheus' names."""

from bts_collectors.rabbitmq.collector import COLLECTOR

__all__ = ["COLLECTOR"]
