"""A real prediction server, where there is one."""

from __future__ import annotations

import os
import re
import shutil
import signal
from pathlib import Path

import pytest

from servers import Process, free_port, wait_until
from servers.exporter import Exporter, StartExporter

pytestmark = pytest.mark.live

DOCS = Path(__file__).parents[2] / "docs/collectors/ml_service.md"
#: Saves a model that predicts the mean of its inputs.
MODEL = """
import sys

import mlflow.pyfunc


class Mean(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return [float(sum(row) / len(row)) for row in model_input]


mlflow.pyfunc.save_model(sys.argv[1], python_model=Mean())
"""


@pytest.fixture
def mlflow() -> str:
    """Return the folder of an installed MLflow's programs; it takes 300 MB, so no test extra installs it."""
    # BTS_MLFLOW is that of a virtual environment: pip install mlflow-skinny pandas.
    found = shutil.which("mlflow", path=os.environ.get("BTS_MLFLOW", os.environ["PATH"]))
    if found is None:
        pytest.skip("not everywhere: no mlflow; BTS_MLFLOW is the folder of its programs")
    return str(Path(found).parent)


def test_example_for_mlflow_works(mlflow: str, exporter: StartExporter, tmp_path: Path) -> None:
    """`mlflow models serve` is up, and its prediction is read, with the settings in the documentation."""
    (tmp_path / "save.py").write_text(MODEL)
    env = {**os.environ, "PATH": f"{mlflow}:{os.environ['PATH']}"}
    model, port = str(tmp_path / "model"), free_port()
    saving = Process([f"{mlflow}/python", "save.py", model], tmp_path, env)
    assert saving.popen.wait(120) == 0, saving.log.read_text()
    serve = ("models", "serve", "--env-manager=local", "--host=127.0.0.1")
    serving = Process(
        [f"{mlflow}/mlflow", *serve, f"--port={port}", f"--model-uri={model}"], tmp_path, env
    )
    try:
        [example] = re.findall(
            r"```yaml\n(collectors:\n  ml_service:\n    name: mlflow\n.*?)```",
            DOCS.read_text(),
            re.DOTALL,
        )
        server = exporter(example.replace(":8888", f":{port}"))
        wait_until(lambda: valid(server, "predict"), "a prediction", 120)

        assert valid(server, "ping")
        labels = {"probe": "predict", "target": "mlflow"}
        assert server.value("ml_service_prediction_value", **labels) == 13
        assert server.value("ml_service_http_status_code", **labels) == 200
    finally:
        # With the processes that it started.
        os.killpg(serving.popen.pid, signal.SIGKILL)
        serving.popen.wait()


def valid(server: Exporter, probe: str) -> bool:
    """Return whether the response to a probe is valid."""
    return server.value("ml_service_response_valid", probe=probe, target="mlflow") == 1
