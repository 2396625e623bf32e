"""Prometheus' settings for Kubernetes: a real Prometheus relabels targets with the labels that Kubernetes gives them.

Debian's Prometheus is built without service discovery for Kubernetes: `static_configs` take its place here, and
`make chart` compares `kubernetes_sd_configs` with a schema.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import yaml

from servers import Process, free_port, need, wait_until

SETTINGS = Path(__file__).parents[2] / "monitoring" / "prometheus" / "kubernetes.yml"
META = "__meta_kubernetes_"

CADVISOR = """\
container_cpu_usage_seconds_total{container="",pod="",id="/"} 9
container_cpu_usage_seconds_total{container="worker",pod="worker-1",id="/kubepods/x"} 1
container_network_receive_bytes_total{container="",pod="worker-1",interface="eth0"} 2
container_tasks_state{container="worker",pod="worker-1",state="running"} 0
machine_cpu_cores 4
"""


def pod(address: str, *, port_name: str = "metrics", **labels: str) -> dict[str, Any]:
    """Return a target as service discovery finds a pod."""
    common = {
        "namespace": "shop",
        "pod_name": "pod-1",
        "pod_node_name": "node-1",
        "pod_ip": address.rpartition(":")[0].strip("[]"),
        "pod_phase": "Running",
        "pod_container_port_name": port_name,
    }
    found = {f"{META}{name}": value for name, value in (common | labels).items()}
    return {"targets": [address], "labels": found}


NAME = "pod_label_app_kubernetes_io_name"
COMPONENT = "pod_label_app_kubernetes_io_component"
SHARD = "pod_label_bts_exporter_shard"
SCRAPE, PORT, PATH = (f"pod_annotation_prometheus_io_{it}" for it in ("scrape", "port", "path"))
WORKER = {SCRAPE: "true", PORT: "8000", PATH: "/own"}


@pytest.fixture(scope="module")
def cadvisor() -> Iterator[str]:
    """Serve a page of cAdvisor; return its address."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(CADVISOR.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class Cluster:
    """A Prometheus with the settings for Kubernetes, and the targets of a small cluster."""

    def __init__(self, folder: Path, cadvisor: str) -> None:
        discovered = {
            "bts-exporter": [
                pod("10.0.0.1:19100", **{COMPONENT: "host"}),
                pod("10.0.0.2:19100", **{COMPONENT: "brokers", SHARD: "2"}),
                pod("10.0.0.3:19100", port_name="other", **{COMPONENT: "host"}),
                pod("10.0.0.4:19100", pod_phase="Failed", **{COMPONENT: "host"}),
            ],
            "kube-state-metrics": [
                pod("10.0.0.5:8080", port_name="http"),
                pod("10.0.0.5:8081", port_name="telemetry"),
            ],
            "cadvisor": [{"targets": [cadvisor], "labels": {f"{META}node_name": "node-1"}}],
            "kubelet": [{"targets": ["10.0.0.6:10250"], "labels": {f"{META}node_name": "node-1"}}],
            "pods": [
                pod("10.0.0.7:9999", **WORKER),
                pod("[fd00::7]:9999", **WORKER),
                pod("10.0.0.8:8000", **{SCRAPE: "false"}),
                pod("10.0.0.1:19100", **WORKER, **{NAME: "bts-exporter"}),
                pod("10.0.0.9:8000", pod_phase="Succeeded", **WORKER),
            ],
        }
        settings = yaml.safe_load(SETTINGS.read_text())
        settings |= {"rule_files": [], "alerting": {}, "global": {"scrape_interval": "1s"}}
        for job in settings["scrape_configs"]:
            del job["kubernetes_sd_configs"]
            job["static_configs"] = discovered[job["job_name"]]
            for key in ("scheme", "authorization", "tls_config"):
                job.pop(key, None)
        config = folder / "prometheus.yml"
        config.write_text(json.dumps(settings))
        self.port = free_port()
        argv = [need("prometheus", "prometheus"), f"--config.file={config}"]
        argv += [f"--storage.tsdb.path={folder / 'tsdb'}"]
        self.process = Process([*argv, f"--web.listen-address=127.0.0.1:{self.port}"], folder)
        wait_until(lambda: len(self.urls()) == 7, "the targets are known", 60)

    def targets(self) -> list[dict[str, Any]]:
        """Return the targets after relabeling."""
        return list(self._get("targets?state=active")["activeTargets"])

    def urls(self) -> dict[tuple[str, str], dict[str, str]]:
        """Return the labels of each target by job and URL; empty until Prometheus answers."""
        try:
            return {(it["labels"]["job"], it["scrapeUrl"]): it["labels"] for it in self.targets()}
        except OSError:
            return {}

    def series(self, job: str) -> list[str]:
        """Return the names of the series of a job, without those of Prometheus itself."""
        names = [it["__name__"] for it in self._get(f'series?match[]={{job="{job}"}}')]
        return sorted(it for it in names if it != "up" and not it.startswith("scrape_"))

    def _get(self, path: str) -> Any:
        with urlopen(f"http://127.0.0.1:{self.port}/api/v1/{path}", timeout=10) as response:
            return json.load(response)["data"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, cadvisor: str) -> Iterator[Cluster]:
    """Return a Prometheus with the targets of a cluster."""
    found = Cluster(tmp_path_factory.mktemp("kubernetes"), cadvisor)
    yield found
    found.process.kill()


@pytest.mark.live
def test_targets_of_exporters_have_lasting_names(cluster: Cluster) -> None:
    """The instance is the node, or the shard; ports and pods that are not the exporter's are left out."""
    found = {url: labels for (job, url), labels in cluster.urls().items() if job == "bts-exporter"}

    assert found == {
        "http://10.0.0.1:19100/metrics": {
            "job": "bts-exporter",
            "instance": "node-1",
            "namespace": "shop",
        },
        "http://10.0.0.2:19100/metrics": {
            "job": "bts-exporter",
            "instance": "brokers-2",
            "namespace": "shop",
        },
    }


@pytest.mark.live
def test_pods_with_annotations_are_scraped_at_their_port_and_path(cluster: Cluster) -> None:
    """One target for each pod that asks for it, also with IPv6; exporters have a job of their own."""
    assert sorted(url for job, url in cluster.urls() if job == "pods") == [
        "http://10.0.0.7:8000/own",
        "http://[fd00::7]:8000/own",
    ]


@pytest.mark.live
def test_nodes_and_objects(cluster: Cluster) -> None:
    """The kubelet and cAdvisor are one target each for a node, and kube-state-metrics one for the cluster."""
    found = {
        job: (url.rpartition(":")[2], labels["instance"])
        for (job, url), labels in cluster.urls().items()
        if job in ("kubelet", "kube-state-metrics")
    }

    assert found == {
        "kubelet": ("10250/metrics", "node-1"),
        "kube-state-metrics": ("8080/metrics", "kube-state-metrics"),
    }
    assert next(url for job, url in cluster.urls() if job == "cadvisor").endswith(
        "/metrics/cadvisor"
    )


@pytest.mark.live
def test_series_of_containers_and_not_of_slices(cluster: Cluster) -> None:
    """Sums above the pods are dropped; a pod's network, which has no container, and the machine are kept."""
    wait_until(lambda: cluster.series("cadvisor"), "cAdvisor's page is scraped", 60)

    assert cluster.series("cadvisor") == [
        "container_cpu_usage_seconds_total",
        "container_network_receive_bytes_total",
        "machine_cpu_cores",
    ]
