"""Redis: a package, since streams, queues and topologies each bring an idea of their own."""

from bts_collectors.redis.collector import COLLECTOR

__all__ = ["COLLECTOR"]
