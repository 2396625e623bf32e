"""Redis, Valkey and compatible servers: server, streams, queues, keys; single, with Sentinel, or a cluster."""

from bts_collectors.redis.collector import COLLECTOR

__all__ = ["COLLECTOR"]
