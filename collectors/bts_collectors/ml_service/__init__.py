"""Collector type `ml_service`; collector.py is the place to start reading."""

from bts_collectors.ml_service.collector import COLLECTOR

__all__ = ["COLLECTOR"]
