"""The scene of docker-compose.yaml: what one file names, another has to have."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from servers import Process, free_port, listens, need

ROOT = Path(__file__).parents[1]
MONITORING = ROOT / "monitoring"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def mounts(service: dict[str, Any]) -> list[tuple[str, str]]:
    """Return (source, target) of a service's volumes, in the short and in the long form."""
    return [
        (volume["source"], volume["target"])
        if isinstance(volume, dict)
        else (volume.split(":")[0], volume.split(":")[1])
        for volume in service.get("volumes", [])
    ]


def listening(service: dict[str, Any]) -> str:
    """Return the address that a service in the machine's own network listens on."""
    if "GF_SERVER_HTTP_ADDR" in (environment := service.get("environment", {})):
        return f"{environment['GF_SERVER_HTTP_ADDR']}:{environment['GF_SERVER_HTTP_PORT']}"
    [address] = [
        flag.removeprefix("--web.listen-address=")
        for flag in service["command"]
        if flag.startswith("--web.listen-address=")
    ]
    return address


def published() -> set[int]:
    """Return the ports that services publish on the machine."""
    return {
        int(port.split(":")[1])
        for service in SERVICES.values()
        for port in service.get("ports", [])
    }


@pytest.mark.parametrize("name", SERVICES)
def test_service_is_published_on_loopback_only(name: str) -> None:
    """A demonstration with public passwords listens on the loopback address only."""
    service = SERVICES[name]

    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    if service.get("network_mode") == "host":
        assert listening(service).startswith("127.0.0.1:")


@pytest.mark.parametrize("name", SERVICES)
def test_volumes_exist(name: str) -> None:
    """A volume is declared at the end of the file, or is a file or folder of this repository."""
    for source, _ in mounts(SERVICES[name]):
        if source.startswith("."):
            assert (ROOT / source).exists()
        elif not source.startswith("/"):
            assert source in COMPOSE["volumes"]


def test_volumes_are_all_used() -> None:
    """No volume is declared that no service mounts."""
    used = {source for service in SERVICES.values() for source, _ in mounts(service)}

    assert set(COMPOSE["volumes"]) <= used


def test_exporter_sees_the_machine() -> None:
    """The folders that the settings name are below the mount of the machine's own root."""
    host = settings()["host"]

    assert ("/", "/host") in mounts(SERVICES["exporter"])
    assert host == {
        "procfs": "/host/proc",
        "sysfs": "/host/sys",
        "rootfs": "/host",
        "udev_data": "/host/run/udev/data",
    }


def test_exporter_reads_its_settings_where_they_are_mounted() -> None:
    """The settings are mounted where the exporter looks for them by default."""
    assert ("./monitoring/compose.yaml", "/etc/bts-exporter/config.yaml") in mounts(
        SERVICES["exporter"]
    )


def test_exporter_accepts_its_settings() -> None:
    """The exporter itself has nothing against the settings of the scene."""
    done = run(
        sys.executable,
        "-m",
        "bts_exporter",
        f"--config.file={MONITORING / 'compose.yaml'}",
        "check",
    )

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("collector", ["rabbitmq", "redis", "mqtt"])
def test_exporter_reaches_the_broker(collector: str) -> None:
    """Each broker's address in the settings is a port that a service publishes."""
    url = urlsplit(settings()[collector]["url"])

    assert url.hostname == "127.0.0.1"
    assert url.port in published()


def test_rabbitmq_knows_the_exporters_user() -> None:
    """The settings log in as the user that the broker is started with."""
    environment = SERVICES["rabbitmq"]["environment"]
    url = urlsplit(settings()["rabbitmq"]["url"])

    assert url.username == environment["RABBITMQ_DEFAULT_USER"]
    assert url.password == environment["RABBITMQ_DEFAULT_PASS"]


def test_prometheus_scrapes_the_exporter() -> None:
    """Prometheus has the exporter's address among its targets."""
    config = yaml.safe_load((MONITORING / "prometheus" / "prometheus.yml").read_text())
    targets = {
        target
        for job in config["scrape_configs"]
        for static in job["static_configs"]
        for target in static["targets"]
    }

    assert listening(SERVICES["exporter"]) in targets


def test_image_checks_its_own_port() -> None:
    """The health check asks the port that the exporter listens on by default."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    [port] = re.findall(r"^EXPOSE (\d+)$", dockerfile, re.MULTILINE)

    assert f"http://127.0.0.1:{port}/-/healthy" in dockerfile
    assert listening(SERVICES["exporter"]).endswith(f":{port}")


def test_image_runs_without_privileges() -> None:
    """The last user of the image is not root."""
    users = re.findall(r"^USER (\d+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)

    assert users
    assert users[-1] != "0"


def test_image_gets_all_that_setup_reads() -> None:
    """What setup.py reads is not kept from the build by .dockerignore."""
    taken = (ROOT / ".dockerignore").read_text().splitlines()

    for name in ("collectors", "exporters", "pyproject.toml", "setup.py", "README.md", "LICENSE"):
        assert f"!{name}" in taken
        assert (ROOT / name).exists()


@pytest.mark.parametrize(
    "name", [name for name, service in SERVICES.items() if "build" not in service]
)
def test_image_is_pinned(name: str) -> None:
    """Every image that is pulled has a tag with a whole version: tomorrow's start is today's."""
    assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+[\w.-]*", SERVICES[name]["image"])


@pytest.mark.parametrize("name", ["prometheus", "alertmanager"])
def test_configuration_is_mounted(name: str) -> None:
    """The file that a service is started with is in a folder of this repository that is mounted there."""
    [config] = [
        flag.removeprefix("--config.file=")
        for flag in SERVICES[name]["command"]
        if flag.startswith("--config.file=")
    ]

    assert (ROOT / source_of(name, config)).is_file()


def source_of(name: str, path: str) -> str:
    """Return which file of this repository a path in a container is."""
    [found] = [
        source + path.removeprefix(target)
        for source, target in mounts(SERVICES[name])
        if path.startswith(f"{target}/")
    ]
    return found


def test_alerts_go_to_alertmanager() -> None:
    """Prometheus sends alerts to the address that Alertmanager listens on."""
    config = yaml.safe_load((MONITORING / "prometheus" / "prometheus.yml").read_text())
    targets = [
        target
        for manager in config["alerting"]["alertmanagers"]
        for static in manager["static_configs"]
        for target in static["targets"]
    ]

    assert targets == [listening(SERVICES["alertmanager"])]


def test_readme_shows_how_prometheus_loads_the_rules() -> None:
    """The README's settings of Prometheus name the folder of the rules, and the job that they refer to."""
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    [shown] = [yaml.safe_load(block) for block in blocks if "rule_files:" in block]
    config = yaml.safe_load((MONITORING / "prometheus" / "prometheus.yml").read_text())

    assert shown["rule_files"] == config["rule_files"]
    assert {job["job_name"] for job in shown["scrape_configs"]} <= {
        job["job_name"] for job in config["scrape_configs"]
    }


def test_grafana_opens_the_pipeline_dashboard() -> None:
    """Grafana's home page is the committed dashboard, and is among those that it loads."""
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    providers = source_of("grafana", "/etc/grafana/provisioning/dashboards/bts-exporter.yml")
    [provider] = yaml.safe_load((ROOT / providers).read_text())["providers"]

    assert json.loads((ROOT / source_of("grafana", home)).read_text())["uid"] == "bts-pipeline"
    assert provider["options"]["path"] == str(PurePosixPath(home).parent)


def test_grafana_asks_prometheus() -> None:
    """The data source has the address that Prometheus listens on."""
    sources = source_of("grafana", "/etc/grafana/provisioning/datasources/prometheus.yml")
    [source] = yaml.safe_load((ROOT / sources).read_text())["datasources"]

    assert source["url"] == f"http://{listening(SERVICES['prometheus'])}"


def test_visitors_of_grafana_only_look() -> None:
    """Logins are disabled, and anonymous visitors are viewers."""
    environment = SERVICES["grafana"]["environment"]

    assert environment["GF_AUTH_ANONYMOUS_ENABLED"] == "true"
    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert environment["GF_AUTH_DISABLE_LOGIN_FORM"] == "true"
    assert environment["GF_AUTH_BASIC_ENABLED"] == "false"


@pytest.mark.live
def test_promtool_accepts_prometheus_yml() -> None:
    """Prometheus' own checker has nothing against the configuration and its rules."""
    done = run(
        need("promtool", "prometheus"),
        "check",
        "config",
        str(MONITORING / "prometheus" / "prometheus.yml"),
    )

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.live
def test_mosquitto_accepts_its_configuration(tmp_path: Path) -> None:
    """The broker starts with mosquitto.conf; only port and folder differ here."""
    port = free_port()
    config = (MONITORING / "mosquitto.conf").read_text()
    config = config.replace("listener 1883", f"listener {port} 127.0.0.1")
    config = config.replace("/mosquitto/data/", f"{tmp_path}/")
    # Started by root it would become a user who cannot write here.
    (tmp_path / "mosquitto.conf").write_text(f"{config}user root\n")

    broker = Process([need("mosquitto", "mosquitto"), "-c", "mosquitto.conf"], tmp_path)
    try:
        broker.ready(lambda: listens(port))
    finally:
        broker.kill()


def settings() -> dict[str, Any]:
    """Return the exporter's settings of the scene, one block a collector."""
    config: dict[str, dict[str, Any]] = yaml.safe_load((MONITORING / "compose.yaml").read_text())
    return config["collectors"]


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    """Return how a command ended, and what it said."""
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
