"""MQTT: a subscription that runs between scrapes; mosquitto's own account of itself.

The name of this package is the collector's type; `collector.py` is where to begin to read.
"""

from bts_collectors.mqtt.collector import COLLECTOR

__all__ = ["COLLECTOR"]
