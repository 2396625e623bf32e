"""The host's pod: with the mounts and settings of the DaemonSet, an unprivileged exporter sees the whole machine."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from servers.namespaces import MakeNamespace, namespace

__all__ = ["namespace"]  # a fixture

MANIFESTS = Path(__file__).parents[2] / "deploy" / "kubernetes" / "bts-exporter.yaml"
#: Without capabilities, in a PID namespace of its own with its own /proc, as in a pod without hostPID.
IN_A_POD = ["unshare", "--pid", "--fork", "--mount-proc", "setpriv", "--no-new-privs"]
IN_A_POD += ["--inh-caps=-all", "--bounding-set=-all"]
NAME = "bts-exporter-host"


@pytest.fixture(scope="module")
def objects() -> dict[str, Any]:
    """Return the DaemonSet and the ConfigMap by their kinds."""
    documents = yaml.safe_load_all(MANIFESTS.read_text())
    return {it["kind"]: it for it in documents if it and it["metadata"]["name"] == NAME}


def mounts_of(daemon_set: Any) -> dict[str, str]:
    """Return the paths of the node by the place where the container has them."""
    spec = daemon_set["spec"]["template"]["spec"]
    paths = {it["name"]: it["hostPath"]["path"] for it in spec["volumes"] if "hostPath" in it}
    mounts = spec["containers"][0]["volumeMounts"]
    return {it["mountPath"]: paths[it["name"]] for it in mounts if it["name"] in paths}


def metrics(config: Path, enter: tuple[str, ...] = ()) -> set[str]:
    """Return the names of the machine's metrics that an exporter with these settings collects."""
    argv = [*enter, sys.executable, "-m", "bts_exporter", f"--config.file={config}", "once"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=True)
    return set(re.findall(r"^node_\w+", done.stdout, re.MULTILINE))


@pytest.mark.live
def test_pod_sees_what_the_machine_has(
    objects: dict[str, Any], namespace: MakeNamespace, tmp_path: Path
) -> None:
    """The metrics are the same as those of an exporter that runs on the machine itself."""
    mounts = mounts_of(objects["DaemonSet"])
    steps = ["mount -t tmpfs none /mnt"]
    for place, path in mounts.items():
        steps += [f"mkdir -p /mnt{place}", f"mount --rbind {path} /mnt{place}"]
    in_pod, on_machine = tmp_path / "pod.yaml", tmp_path / "machine.yaml"
    in_pod.write_text(objects["ConfigMap"]["data"]["config.yaml"].replace("/host/", "/mnt/host/"))
    on_machine.write_text("collectors: {host: }")
    pod = namespace("\n".join(steps))
    if subprocess.run([*pod.enter, *IN_A_POD, "true"], capture_output=True, check=False).returncode:
        pytest.skip("not everywhere: a container that may not mount another /proc")

    found = metrics(in_pod, (*pod.enter, *IN_A_POD))

    assert set(mounts.values()) == {"/proc", "/sys", "/"}
    assert found == metrics(on_machine)
    assert {"node_filesystem_size_bytes", "node_network_up", "node_processes_pids"} <= found
