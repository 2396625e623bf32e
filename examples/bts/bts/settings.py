"""Where the brokers are, and what each process of the service is told on its command line."""

from __future__ import annotations

import argparse
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from bts import faults


@dataclass(frozen=True, slots=True)
class Settings:
    """The addresses of the brokers, the port of this process's own metrics, and the file of faults."""

    mqtt_host: str
    mqtt_port: int
    amqp_url: str
    redis_url: str
    metrics_port: int
    #: Names of the faults that are injected, one a line; read by every process (see `faults`).
    faults_file: Path


def parser(role: str, description: str, metrics_port: int) -> argparse.ArgumentParser:
    """Return a command line with the options that all processes have; the environment has defaults.

    BTS_MQTT (host:port), BTS_AMQP and BTS_REDIS (URLs) and BTS_FAULTS (a file) name what they share.
    """
    result = argparse.ArgumentParser(prog=f"python -m bts.{role}", description=description)
    result.add_argument(
        "--mqtt",
        default=os.environ.get("BTS_MQTT", "127.0.0.1:1883"),
        metavar="HOST:PORT",
        help="MQTT broker (%(default)s)",
    )
    result.add_argument(
        "--amqp",
        default=os.environ.get("BTS_AMQP", "amqp://guest:guest@127.0.0.1:5672/"),
        metavar="URL",
        help="RabbitMQ (%(default)s)",
    )
    result.add_argument(
        "--redis",
        default=os.environ.get("BTS_REDIS", "redis://127.0.0.1:6379/0"),
        metavar="URL",
        help="Redis (%(default)s)",
    )
    result.add_argument(
        "--metrics-port", type=int, default=metrics_port, metavar="PORT", help="(%(default)s)"
    )
    result.add_argument(
        "--faults",
        type=Path,
        default=Path(os.environ.get("BTS_FAULTS", faults.demo_folder() / "faults")),
        metavar="FILE",
        help="file that names injected faults (%(default)s)",
    )
    return result


def settings_of(options: argparse.Namespace) -> Settings:
    """Return the settings of a parsed command line, and switch the log on."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    host, _, port = options.mqtt.rpartition(":")
    return Settings(
        mqtt_host=host,
        mqtt_port=int(port),
        amqp_url=options.amqp,
        redis_url=options.redis,
        metrics_port=options.metrics_port,
        faults_file=options.faults,
    )
