"""The Helm chart, rendered by Helm: settings, shards, security of pods, rules and dashboards. `make chart` installs Helm."""

from __future__ import annotations

import copy
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from bts_exporter import __version__, cli
from chartlint import helm

ROOT = Path(__file__).parents[2]
VALUES = helm.CHART / "ci" / "everything-values.yaml"

pytestmark = pytest.mark.skipif(helm.find_helm() is None, reason="there is no helm: make chart")


class SettingsLoader(yaml.SafeLoader):
    """Reads config.yaml; a value with a tag such as !file becomes the text with its tag."""


SettingsLoader.add_multi_constructor("!", lambda _, tag, node: f"!{tag} {node.value}")


def settings_of(config_map: Mapping[str, Any]) -> Any:
    """Return the settings in a ConfigMap."""
    return yaml.load(config_map["data"]["config.yaml"], SettingsLoader)


def of_kind(objects: list[helm.Manifest], kind: str) -> dict[str, helm.Manifest]:
    """Return the objects of a kind by their names."""
    return {found["metadata"]["name"]: found for found in objects if found["kind"] == kind}


def render(tmp_path: Path, values: Mapping[str, Any]) -> list[helm.Manifest]:
    """Return the objects for these values."""
    file = tmp_path / "values.yaml"
    file.write_text(json.dumps(values))
    return helm.render(f"--values={file}")


def shards(tmp_path: Path, count: int, names: list[str]) -> dict[str, set[str]]:
    """Return the names of the targets in each shard's settings; each target occurs once."""
    targets = {name: {"type": "redis", "settings": f"url: redis://{name}:6379"} for name in names}
    objects = render(tmp_path, {"brokers": {"shards": count, "targets": targets}})
    maps = of_kind(objects, "ConfigMap")
    found = {
        name: [target["name"] for target in settings_of(maps[name])["collectors"]["redis"]]
        for name in of_kind(objects, "Deployment")
    }
    assert Counter(name for entries in found.values() for name in entries) == Counter(names)
    return {shard: set(entries) for shard, entries in found.items()}


@pytest.fixture(scope="module")
def everything() -> list[helm.Manifest]:
    """Return the objects if everything is enabled."""
    return helm.render(f"--values={VALUES}")


@pytest.fixture
def pods(everything: list[helm.Manifest]) -> dict[str, Any]:
    """Return the specs of all pods."""
    return {
        name: found["spec"]["template"]["spec"]
        for kind in ("DaemonSet", "Deployment")
        for name, found in of_kind(everything, kind).items()
    }


# Shards

NAMES = [f"broker-{index}" for index in range(40)]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_each_target_is_in_one_shard(tmp_path: Path, count: int) -> None:
    """The shards are disjoint and complete, and with many targets none is empty."""
    found = shards(tmp_path, count, NAMES)

    assert sorted(found) == [f"bts-exporter-brokers-{index}" for index in range(count)]


def test_one_more_target_moves_no_other(tmp_path: Path) -> None:
    """The shard of a target does not depend on the other targets."""
    before = shards(tmp_path, 3, NAMES)
    after = shards(tmp_path, 3, [*NAMES, "another"])

    assert {shard: names - {"another"} for shard, names in after.items()} == before


def test_one_more_shard_only_takes_targets(tmp_path: Path) -> None:
    """No target moves from one of the old shards to another of them."""
    before, after = shards(tmp_path, 3, NAMES), shards(tmp_path, 4, NAMES)

    assert [shard for shard, names in before.items() if not after[shard] <= names] == []
    assert after["bts-exporter-brokers-3"]


def test_shard_without_targets_has_no_pod(tmp_path: Path) -> None:
    """With more shards than targets, the empty ones are not rendered."""
    assert len(shards(tmp_path, 4, ["only"])) == 1


def test_brokers_never_run_twice(everything: list[helm.Manifest]) -> None:
    """A Deployment of brokers has one replica, and its old pod ends before the new one starts."""
    found = of_kind(everything, "Deployment").values()

    assert [(it["spec"]["replicas"], it["spec"]["strategy"]) for it in found] == [
        (1, {"type": "Recreate"})
    ] * 2


# Settings and Secrets


def test_settings_are_those_of_the_values(everything: list[helm.Manifest]) -> None:
    """Tags, nulls and the settings beside the collectors arrive as they were written."""
    settings = [
        settings_of(found)
        for name, found in of_kind(everything, "ConfigMap").items()
        if "-brokers-" in name
    ]
    targets = {
        target["name"]: target
        for found in settings
        for of_type in found["collectors"].values()
        for target in of_type
    }
    written = yaml.safe_load(VALUES.read_text())["brokers"]["targets"]

    assert targets == {
        name: {"name": name, **yaml.load(target["settings"], SettingsLoader)}
        for name, target in written.items()
    }
    assert [found["scrape_timeout"] for found in settings] == ["5s", "5s"]


def test_exporter_accepts_the_settings(
    everything: list[helm.Manifest], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`bts-exporter check` finds no mistake in any ConfigMap, with the Secrets in place."""
    checked = []
    for name, found in of_kind(everything, "ConfigMap").items():
        if "config.yaml" in found["data"]:
            text = found["data"]["config.yaml"].replace("/run/secrets", str(tmp_path))
            for secret in re.findall(rf"{tmp_path}/\S+/password", text):
                Path(secret).parent.mkdir(exist_ok=True)
                Path(secret).write_text("secret")
            config = tmp_path / f"{name}.yaml"
            config.write_text(without_tls(text))
            with pytest.raises(SystemExit) as end:
                cli.main([f"--config.file={config}", "check"])
            checked.append(end.value.code)

    assert checked == [0, 0, 0], capsys.readouterr()


def without_tls(text: str) -> str:
    """Return settings without the line of a CA's file, which does not exist here."""
    return re.sub(r"\n *tls: .*", "", text)


def test_pod_has_the_secrets_of_its_own_targets(everything: list[helm.Manifest]) -> None:
    """Every path below /run/secrets in a shard's settings is mounted there, and no other Secret."""
    maps = of_kind(everything, "ConfigMap")
    named, mounted = {}, {}
    for name, deployment in of_kind(everything, "Deployment").items():
        spec = deployment["spec"]["template"]["spec"]
        volumes = {it["name"]: it.get("secret", {}).get("secretName") for it in spec["volumes"]}
        mounted[name] = {
            (mount["mountPath"], volumes[mount["name"]])
            for mount in spec["containers"][0]["volumeMounts"]
            if mount["mountPath"].startswith("/run/secrets")
        }
        text = maps[name]["data"]["config.yaml"]
        named[name] = {
            (f"/run/secrets/{secret}", secret)
            for secret in re.findall("/run/secrets/([^/]+)/", text)
        }

    assert mounted == named
    assert set().union(*(secrets for secrets in named.values())) == {
        ("/run/secrets/jobs", "jobs"),
        ("/run/secrets/mqtt", "mqtt"),
        ("/run/secrets/rabbitmq.shop", "rabbitmq.shop"),
    }


@pytest.mark.parametrize(
    "settings",
    [
        "password: secret",
        "{url: 'redis://a', password: secret}",
        "'password': secret",
        "sentinel:\n  sentinel_password: secret",
        "token: secret",
        "headers: {Authorization: Bearer secret}",
        "url: http://guest:guest@rabbitmq:15672",
        "canary: {url: 'amqp://user:word@rabbitmq'}",
    ],
)
def test_password_in_the_values_is_refused(tmp_path: Path, settings: str) -> None:
    """A password would be readable in the ConfigMap; the error names the target and the cure."""
    values = {"brokers": {"targets": {"cache": {"type": "redis", "settings": settings}}}}

    with pytest.raises(helm.HelmError, match=r"targets\.cache\.settings contains a password"):
        render(tmp_path, values)


def test_names_of_keys_are_no_passwords(tmp_path: Path) -> None:
    """A password from a file, and a pattern of Redis keys that contains one of these words, are permitted."""
    settings = (
        "password: !file /run/secrets/cache/password\nqueues: ['reset-password:*', \"token:*\"]"
    )
    values = {"brokers": {"targets": {"cache": {"type": "redis", "settings": settings}}}}

    assert render(tmp_path, values)


@pytest.mark.parametrize(
    "values",
    [
        {"brokers": {"target": {}}},
        {"brokers": {"shards": 0}},
        {"brokers": {"shards": "2"}},
        {"brokers": {"targets": {"cache": {"type": "redis", "settings": {"url": "redis://a"}}}}},
        {"brokers": {"targets": {"cache": {"type": "host", "settings": "x: 1"}}}},
        {"brokers": {"targets": {"a b": {"type": "redis", "settings": "x: 1"}}}},
        {"brokers": {"replicas": 2}},
        {"host": {"resources": {"limit": {}}}},
        {"prometheusOperator": {"monitor": "Servicemonitor"}},
        {"image": {"repository": ""}},
    ],
    ids=json.dumps,
)
def test_misspelt_values_are_refused(tmp_path: Path, values: dict[str, Any]) -> None:
    """The schema of the values knows every key and type."""
    with pytest.raises(helm.HelmError, match="values don't meet the specifications"):
        render(tmp_path, values)


# Pods


def test_pods_have_no_privileges(pods: dict[str, Any]) -> None:
    """No pod runs as root, writes to its file system, keeps a capability, or has a token of the API."""
    assert len(pods) == 3
    for spec in pods.values():
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["containers"][0]["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        mounts = spec["containers"][0]["volumeMounts"]
        assert [mount for mount in mounts if not mount.get("readOnly")] == []


def test_only_the_host_sees_the_node(pods: dict[str, Any]) -> None:
    """The DaemonSet mounts /proc, /sys and /, where its settings expect them; brokers mount nothing of the node."""
    paths = {
        name: [it["hostPath"]["path"] for it in spec["volumes"] if "hostPath" in it]
        for name, spec in pods.items()
    }
    mounts = pods["bts-exporter-host"]["containers"][0]["volumeMounts"]

    assert paths.pop("bts-exporter-host") == ["/proc", "/sys", "/"]
    assert set(map(tuple, paths.values())) == {()}
    assert {"/host/proc", "/host/sys", "/host/root"} <= {mount["mountPath"] for mount in mounts}
    assert [name for name, spec in pods.items() if spec.get("hostNetwork")] == ["bts-exporter-host"]


def test_settings_apply_without_a_restart(pods: dict[str, Any], tmp_path: Path) -> None:
    """New settings do not change the pods; the exporter loads them, from a folder that Kubernetes updates."""
    for spec in pods.values():
        container = spec["containers"][0]
        assert "--config.auto-reload" in container["args"]
        assert not [mount for mount in container["volumeMounts"] if "subPath" in mount]

    values = yaml.safe_load(VALUES.read_text()) | {"prometheusOperator": {}, "dashboards": {}}
    changed = copy.deepcopy(values)
    changed["brokers"]["targets"]["cache"]["settings"] += "\nstreams: [orders]"
    before, after = render(tmp_path, values), render(tmp_path, changed)
    assert of_kind(before, "Deployment") == of_kind(after, "Deployment")
    assert of_kind(before, "ConfigMap") != of_kind(after, "ConfigMap")


# Prometheus and Grafana


def test_rules_are_those_of_the_repository(everything: list[helm.Manifest]) -> None:
    """Each PrometheusRule has the groups of its file in monitoring/, unchanged."""
    files = {
        f"bts-exporter-{path.stem}": yaml.safe_load(path.read_text())
        for path in (ROOT / "monitoring" / "prometheus" / "rules").glob("*.yml")
    }
    found = of_kind(everything, "PrometheusRule")

    assert {name: rule["spec"] for name, rule in found.items()} == {
        name: files[name] for name in found
    }
    assert len(found) == 5


def test_dashboards_are_those_of_the_repository(everything: list[helm.Manifest]) -> None:
    """Each dashboard in monitoring/ has a ConfigMap with its text and the label of Grafana's sidecar."""
    files = {
        path.name: path.read_text()
        for path in (ROOT / "monitoring" / "grafana" / "dashboards").glob("*.json")
    }
    maps = of_kind(everything, "ConfigMap")
    found = [it for name, it in maps.items() if "-dashboard-" in name]

    assert {name: text for it in found for name, text in it["data"].items()} == files
    assert {it["metadata"]["labels"]["grafana_dashboard"] for it in found} == {"1"}


@pytest.mark.parametrize("kind", ["PodMonitor", "ServiceMonitor", "ScrapeConfig"])
def test_monitors_select_the_pods(kind: str) -> None:
    """Each monitor selects the pods of its component, with the job that the rules expect."""
    objects = helm.render(
        f"--values={VALUES}",
        f"--set=prometheusOperator.monitor={kind},prometheusOperator.rules=null",
        "--set=dashboards.enabled=false",
    )
    labels = [
        found["spec"]["template"]["metadata"]["labels"]
        for of_this in ("DaemonSet", "Deployment")
        for found in of_kind(objects, of_this).values()
    ]
    monitors = of_kind(objects, kind).values()
    selected = [
        sum(selector.items() <= pod.items() for pod in labels)
        for monitor in monitors
        for selector in selectors_of(monitor)
    ]

    assert sorted(selected) == [1, 2]
    for monitor in monitors:
        assert {"targetLabel": "job", "replacement": "bts-exporter"} in relabelings_of(monitor)


def selectors_of(monitor: helm.Manifest) -> Iterator[dict[str, str]]:
    """Yield the labels that a monitor selects pods, or their Service, by."""
    spec = monitor["spec"]
    if "selector" in spec:
        yield spec["selector"]["matchLabels"]
    for discovery in spec.get("kubernetesSDConfigs", []):
        label = discovery["selectors"][0]["label"]
        yield dict(pair.split("=") for pair in label.split(","))


def relabelings_of(monitor: helm.Manifest) -> list[dict[str, Any]]:
    """Return the relabelings of a monitor."""
    spec = monitor["spec"]
    endpoints = spec.get("endpoints") or spec.get("podMetricsEndpoints") or [spec]
    return list(endpoints[0]["relabelings"])


def test_version_of_the_chart() -> None:
    """The chart is the version of the exporter that it installs."""
    chart = yaml.safe_load((helm.CHART / "Chart.yaml").read_text())

    assert (chart["version"], chart["appVersion"]) == (__version__, __version__)
