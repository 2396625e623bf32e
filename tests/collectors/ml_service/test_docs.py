from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import yaml

from bts_collectors.ml_service import COLLECTOR
from bts_collectors.ml_service.config import MlServiceConfig, ProbeConfig
from bts_exporter import Metric
from servers.exporter import Exporter
from servers.management import FakeManagement, answer, send

DOCS = (
    (Path(__file__).parents[3] / "docs/collectors/ml_service.md")
    .read_text()
    .partition("<!-- begin")[0]
)
ROW = re.compile(r"^\| `(\w+)(?:\{([\w,]+)\})?` \| (gauge) \| .+ \|$", re.MULTILINE)
EXAMPLES = re.findall(r"```yaml\n(collectors:.*?)```", DOCS, re.DOTALL)
MLFLOW = json.loads((Path(__file__).parent / "responses" / "mlflow-3.17.2.json").read_text())


def rows(first_cell: str) -> dict[str, str]:
    """Return the defaults by key of the table that begins with this cell."""
    table = DOCS.partition(f"| {first_cell} |")[2].partition("\n\n")[0]
    return dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", table, re.MULTILINE))


def test_every_metric_is_documented_with_its_labels_and_no_other() -> None:
    """Authors of queries rely on the table."""
    declared = {(m.name, ",".join(m.labels)) for m in COLLECTOR.declared() if isinstance(m, Metric)}

    assert {(name, labels) for name, labels, _ in ROW.findall(DOCS)} == declared


@pytest.mark.parametrize(
    ("cell", "settings"), [("key", MlServiceConfig), ("key of a probe", ProbeConfig)]
)
def test_every_setting_is_documented_with_its_default(
    cell: str, settings: type[msgspec.Struct]
) -> None:
    """In the table, and no other keys."""
    documented = rows(cell)

    assert set(documented) == {field.name for field in msgspec.structs.fields(settings)}
    for field in msgspec.structs.fields(settings):
        expected = "required" if field.required else "`[]`" if field.default == () else "none"
        assert documented[field.name] == expected


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_is_accepted(example: str, tmp_path: Path) -> None:
    """Every example can be copied without changes."""
    (tmp_path / "config.yaml").write_text(example)
    for secret in re.findall(r"!credential (\w+)", example):
        (tmp_path / secret).write_text("s3cret")
    checked = subprocess.run(
        [
            sys.executable,
            "-m",
            "bts_exporter",
            f"--config.file={tmp_path / 'config.yaml'}",
            "check",
        ],
        check=False,
        env=os.environ | {"CREDENTIALS_DIRECTORY": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (checked.returncode, checked.stderr) == (0, "")


#: What the services of the examples answer; that of MLflow was recorded, see its file.
SERVICES = {
    "bts": {"/health": send(b"live"), "/prediction": answer({"prediction_result": "12.5"})},
    "mlflow": {
        "/ping": send(MLFLOW["ping"]["body"].encode()),
        "/invocations": send(MLFLOW["predict"]["body"].encode()),
    },
    "triton": {
        "/v2/health/ready": send(b""),
        "/v2/models/load": answer({"name": "load", "versions": ["3"], "platform": "onnx"}),
        "/v2/models/load/infer": answer({"outputs": [{"name": "y", "data": [12.5]}]}),
    },
    "kserve": {
        "/v1/models/load": answer({"name": "load", "ready": "True"}),
        "/v1/models/load:predict": answer({"predictions": [[12.5]]}),
    },
}


@pytest.mark.parametrize("name", SERVICES)
def test_example_works(name: str, exporter: Callable[..., Exporter]) -> None:
    """With a service that answers as the product does, each probe is valid and the model is known."""
    [example] = [text for text in EXAMPLES if f"name: {name}\n" in text]
    with FakeManagement() as fake:
        fake.routes = SERVICES[name]
        text = re.sub(r"url: \S+", f"url: {fake.url}", example)
        text = text.replace("!credential kserve", "t0ken")
        server = exporter(text)
        samples = server.samples()

    probes = yaml.safe_load(text)["collectors"]["ml_service"]["probes"]
    valid = {
        dict(labels)["probe"]: v
        for (n, labels), v in samples.items()
        if n == "ml_service_response_valid"
    }
    assert valid == dict.fromkeys(probes, 1)
    assert [v for (n, _), v in samples.items() if n == "ml_service_prediction_value"] == [
        13.0 if name == "mlflow" else 12.5
    ]
    [model] = [dict(labels) for n, labels in samples if n == "ml_service_model_info"]
    assert model["model"] == ("lstm" if name == "bts" else "load")
    if name == "kserve":
        assert {h["Host"] for h in fake.headers} == {"load.models.example.com"}
