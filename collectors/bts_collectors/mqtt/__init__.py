"""Collector type `mqtt`; collector.py is the place to start reading."""

from bts_collectors.mqtt.collector import COLLECTOR

__all__ = ["COLLECTOR"]
