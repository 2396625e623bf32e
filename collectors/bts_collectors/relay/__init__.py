"""Collector type `relay`; collector.py is the place to start reading."""

from bts_collectors.relay.collector import COLLECTOR

__all__ = ["COLLECTOR"]
