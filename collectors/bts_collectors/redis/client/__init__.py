"""The connection to a server, and to those that Sentinel or a cluster names."""

from bts_collectors.redis.client import lazy_package

lazy_package.install()  # before any module of this package imports one of redis-py
