"""All programs of the demo with their settings: brokers, the service, and what monitors them."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bts.programs import Program, choose_ports, find_all, listens

ROLES = ("bridge", "worker", "lstm_worker", "service", "sensors")
MOSQUITTO = """\
listener {port} 127.0.0.1
# Started by root it would become the user `mosquitto`, who may not write here. Others stay who they are.
user root
allow_anonymous true
# The bridge's session, and what waits in it, survive a restart.
persistence true
persistence_location {folder}/
sys_interval 1
max_inflight_messages 1000
max_queued_messages {queue}
"""
RABBITMQ = """\
listeners.tcp.1 = 127.0.0.1:{amqp}
management.tcp.ip = 127.0.0.1
management.tcp.port = {management}
log.console = true
log.file = false
collect_statistics_interval = 1000
disk_free_limit.absolute = 50MB
"""
#: No other node joins, and idle schedulers do not spin.
ERLANG = "-kernel inet_dist_use_interface {127,0,0,1} +sbwt none +sbwtdcpu none +sbwtdio none"
#: Programs and the Debian packages that have them.
PACKAGES = {
    "mosquitto": "mosquitto",
    "epmd": "erlang-base",
    "rabbitmq-env": "rabbitmq-server",
    "redis-server": "redis-server",
    "prometheus": "prometheus",
    "prometheus-alertmanager": "prometheus-alertmanager",
    "setpriv": "util-linux",
}
EXPORTER = """\
collectors:
  host: {{}}
  rabbitmq:
    url: http://guest:guest@127.0.0.1:{management}
    # Dead letters wait for a person, not for a consumer.
    queues_exclude: "[.]dead$"
  redis:
    url: redis://127.0.0.1:{redis}
    streams: ["bts:*"]
  mqtt:
    url: mqtt://127.0.0.1:{mqtt}
  ml_service:
    name: bts-rest
    url: http://127.0.0.1:{service}
    probes:
      health: {{path: /health}}
      ready: {{path: /ready}}
      predict:
        path: /prediction
        form: {{inputs: {inputs}}}
        value: prediction_result
"""
#: The window that the exporter asks a prediction for, in ampere: an ordinary one, always the same.
PROBE_INPUTS = [[[12.5], [13.0], [12.0], [14.5], [13.5], [12.5]]]


@dataclass(frozen=True, slots=True)
class Options:
    """What can be chosen on the demo's command line."""

    folder: Path
    rate: float
    stations: int
    #: Rule files for Prometheus.
    rules: list[Path]
    #: Alertmanager's settings.
    alertmanager: Path
    #: Seconds between two scrapes.
    interval: float
    stale_seconds: float
    #: Messages that the MQTT broker keeps for the bridge; it drops more.
    mqtt_queue: int
    #: Whether the exporter serves the metrics of the service, too, and is the only target for all of it.
    relay: bool = False


@dataclass(frozen=True, slots=True)
class Scene:
    """The programs, by name and in the order of their start, and the addresses that people open."""

    programs: dict[str, Program]
    addresses: dict[str, str]
    #: Where each role serves its metrics.
    metrics: dict[str, str]


def build(options: Options) -> Scene:
    """Return the programs, each with its settings written below the demo's folder; nothing is started.

    DemoError where a program is missing.
    """
    paths = find_all(PACKAGES)
    # Another demo that is running needs the ports of its programs again after a fault: none are shared.
    another = listens(PORTS["prometheus"])
    ports = choose_ports(dict.fromkeys(PORTS, 0) if another else PORTS)
    folder = options.folder
    programs = [
        _mosquitto(paths, options, ports),
        *_rabbitmq(paths, folder, ports),
        _redis(paths, folder, ports),
        *(_role(role, options, ports) for role in ROLES),
        _exporter(options, ports),
        _alertmanager(paths, options, ports),
        _prometheus(paths, options, ports),
    ]
    base = "http://127.0.0.1"
    return Scene(
        programs={program.name: program for program in programs},
        addresses={
            "metrics": f"{base}:{ports['exporter']}/metrics",
            "Prometheus": f"{base}:{ports['prometheus']}/alerts",
            "Alertmanager": f"{base}:{ports['alertmanager']}",
            "predictions": f"{base}:{ports['service']}/prediction/1161114001",
            "RabbitMQ (guest/guest)": f"{base}:{ports['management']}",
            "AMQP": f"amqp://127.0.0.1:{ports['amqp']}",
            "MQTT": f"mqtt://127.0.0.1:{ports['mosquitto']}",
            "Redis": f"redis://127.0.0.1:{ports['redis']}",
        },
        metrics={role: f"{base}:{ports[role]}/metrics" for role in (*ROLES, "exporter")},
    )


#: Not those of the brokers themselves: a fresh installation from apt listens there already.
PORTS = {
    "mosquitto": 18830,
    "amqp": 18672,
    "management": 18673,
    "distribution": 18674,
    "epmd": 18675,
    "redis": 18379,
    "sensors": 8100,
    "bridge": 8101,
    "worker": 8102,
    "lstm_worker": 8103,
    "service": 8080,
    "exporter": 19100,
    "prometheus": 19090,
    "alertmanager": 19093,
}


def _mosquitto(paths: dict[str, str], options: Options, ports: dict[str, int]) -> Program:
    data = options.folder / "mosquitto"
    data.mkdir()
    config = data / "mosquitto.conf"
    config.write_text(
        MOSQUITTO.format(
            port=ports["mosquitto"],
            folder=data,
            queue=options.mqtt_queue,
        )
    )
    argv = [paths["mosquitto"], "-c", str(config)]
    return Program("mosquitto", argv, options.folder, ports["mosquitto"])


def _rabbitmq(paths: dict[str, str], folder: Path, ports: dict[str, int]) -> list[Program]:
    """Return RabbitMQ and the port mapper of its Erlang: both private, so that a system's are not touched."""
    scripts = Path(paths["rabbitmq-env"]).resolve().parent
    home = folder / "rabbitmq"
    (home / "conf.d").mkdir(parents=True)
    cookie = home / ".erlang.cookie"
    cookie.write_text(secrets.token_hex(16))
    cookie.chmod(0o400)
    (home / "plugins").write_text("[rabbitmq_management].\n")
    (home / "env.conf").touch()
    (home / "rabbitmq.conf").write_text(
        RABBITMQ.format(amqp=ports["amqp"], management=ports["management"])
    )
    environment = {
        "HOME": str(home),
        "RABBITMQ_NODENAME": f"bts-demo-{ports['amqp']}@localhost",
        "RABBITMQ_CONF_ENV_FILE": str(home / "env.conf"),
        "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
        "RABBITMQ_CONFIG_FILES": str(home / "conf.d"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(home / "advanced.config"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "plugins"),
        "RABBITMQ_MNESIA_BASE": str(home / "mnesia"),
        "RABBITMQ_LOG_BASE": str(home / "log"),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_PID_FILE": str(home / "pid"),
        "RABBITMQ_DIST_PORT": str(ports["distribution"]),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": ERLANG,
        "ERL_EPMD_PORT": str(ports["epmd"]),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_CRASH_DUMP": "/dev/null",
        # The start script becomes the broker, instead of its parent.
        "RUNNING_UNDER_SYSTEMD": "1",
    }
    epmd = [paths["epmd"], "-address", "127.0.0.1", "-port", str(ports["epmd"])]
    return [
        Program("epmd", epmd, folder, ports["epmd"]),
        Program(
            "rabbitmq", [str(scripts / "rabbitmq-server")], folder, ports["management"], environment
        ),
    ]


def _redis(paths: dict[str, str], folder: Path, ports: dict[str, int]) -> Program:
    data = folder / "redis"
    data.mkdir()
    argv = [
        paths["redis-server"],
        *("--bind", "127.0.0.1", "--port", str(ports["redis"]), "--dir", str(data)),
        # Results survive a restart of Redis.
        *("--save", "", "--appendonly", "yes"),
    ]
    return Program("redis", argv, folder, ports["redis"])


def _role(role: str, options: Options, ports: dict[str, int]) -> Program:
    environment = {
        "BTS_MQTT": f"127.0.0.1:{ports['mosquitto']}",
        # A worker that is frozen stays attached for as long as the fault lasts: RabbitMQ would notice it by
        # its missing heartbeats after a minute or two.
        "BTS_AMQP": f"amqp://guest:guest@127.0.0.1:{ports['amqp']}/?heartbeat=1800",
        "BTS_REDIS": f"redis://127.0.0.1:{ports['redis']}/0",
        "BTS_FAULTS": str(options.folder / "faults"),
        # One thread for each process: the matrices are tiny.
        "OPENBLAS_NUM_THREADS": "1",
    }
    argv = [sys.executable, "-m", f"bts.{role}", f"--metrics-port={ports[role]}"]
    if role == "sensors":
        argv += [f"--rate={options.rate}", f"--stations={options.stations}"]
    if role == "worker":
        argv += [f"--stale-seconds={options.stale_seconds}"]
    return Program(role, argv, options.folder, ports[role], environment)


def exporter_settings(ports: dict[str, int], relayed: Sequence[str]) -> str:
    """Return the exporter's settings, with the metrics of the processes in `relayed` on its page."""
    text = EXPORTER.format(
        management=ports["management"],
        redis=ports["redis"],
        mqtt=ports["mosquitto"],
        service=ports["service"],
        inputs=json.dumps(PROBE_INPUTS),
    )
    if relayed:
        text += "  relay:\n"
    for role in relayed:
        text += f"    - {{name: {role}, url: 'http://127.0.0.1:{ports[role]}/metrics'}}\n"
    return text


def _exporter(options: Options, ports: dict[str, int]) -> Program:
    config = options.folder / "exporter.yaml"
    config.write_text(exporter_settings(ports, ROLES if options.relay else ()))
    argv = [
        sys.executable,
        "-m",
        "bts_exporter",
        f"--config.file={config}",
        f"--web.listen-address=127.0.0.1:{ports['exporter']}",
    ]
    return Program("exporter", argv, options.folder, ports["exporter"])


def _alertmanager(paths: dict[str, str], options: Options, ports: dict[str, int]) -> Program:
    argv = [
        paths["prometheus-alertmanager"],
        f"--config.file={options.alertmanager}",
        f"--storage.path={options.folder / 'alertmanager'}",
        f"--web.listen-address=127.0.0.1:{ports['alertmanager']}",
        "--cluster.listen-address=",
    ]
    return Program("alertmanager", argv, options.folder, ports["alertmanager"])


def _prometheus(paths: dict[str, str], options: Options, ports: dict[str, int]) -> Program:
    interval = f"{options.interval:g}s"
    roles = [f"127.0.0.1:{ports[role]}" for role in ROLES]
    config = {
        "global": {
            "scrape_interval": interval,
            "scrape_timeout": interval,
            "evaluation_interval": interval,
        },
        "rule_files": [str(path) for path in options.rules],
        "alerting": {
            "alertmanagers": [
                {"static_configs": [{"targets": [f"127.0.0.1:{ports['alertmanager']}"]}]}
            ]
        },
        "scrape_configs": [
            _job("bts-exporter", [f"127.0.0.1:{ports['exporter']}"]),
            # Not both: each value would be there twice.
            *([] if options.relay else [_job("bts-service", roles)]),
            _job("prometheus", [f"127.0.0.1:{ports['prometheus']}"]),
        ],
    }
    path = options.folder / "prometheus.yml"
    path.write_text(json.dumps(config))
    argv = [
        paths["prometheus"],
        f"--config.file={path}",
        f"--storage.tsdb.path={options.folder / 'prometheus'}",
        "--storage.tsdb.retention.time=1d",
        f"--web.listen-address=127.0.0.1:{ports['prometheus']}",
    ]
    return Program("prometheus", argv, options.folder, ports["prometheus"])


def _job(name: str, targets: list[str]) -> dict[str, Any]:
    return {"job_name": name, "static_configs": [{"targets": targets}]}
