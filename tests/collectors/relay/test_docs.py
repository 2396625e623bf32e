from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from bts_collectors.relay import COLLECTOR
from bts_collectors.relay.config import RelayConfig
from bts_collectors.relay.families import MAX_LABELS
from bts_exporter import Metric, prometheus_text
from servers.certificates import Certificates

DOCS = (
    (Path(__file__).parents[3] / "docs/collectors/relay.md").read_text().partition("<!-- begin")[0]
)


def test_every_metric_is_documented() -> None:
    """All others are the application's."""
    documented = re.findall(r"^\| `(\w+)` \| gauge \|", DOCS, re.MULTILINE)

    assert documented == [m.name for m in COLLECTOR.declared() if isinstance(m, Metric)]


def test_every_setting_is_documented_with_its_default() -> None:
    """In the table, and no other keys."""
    table = DOCS.partition("| key | default |")[2].partition("\n\n")[0]
    documented = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", table, re.MULTILINE))

    fields = msgspec.structs.fields(RelayConfig)
    assert set(documented) == {field.name for field in fields}
    for field in fields:
        expected = f"`{field.default}`" if isinstance(field.default, int) else "none"
        assert documented[field.name] == ("required" if field.required else expected)


def test_limits_are_documented() -> None:
    """The numbers are those of the code."""
    assert f"more than {MAX_LABELS} different labels" in DOCS
    assert f"more than {prometheus_text.MAX_LINE:,} characters" in DOCS
    for what in ("families", "samples", "lost_lines", "lines"):
        limit = getattr(prometheus_text, f"MAX_{what.upper()}")
        assert f"{limit:,} {what.replace('_', ' ')}" in DOCS


@pytest.mark.parametrize("example", re.findall(r"```yaml\n(collectors:.*?)```", DOCS, re.DOTALL))
def test_example_is_accepted(example: str, certificates: Certificates, tmp_path: Path) -> None:
    """Every example can be copied without changes, if the files that it names are there."""
    (tmp_path / "config.yaml").write_text(example)
    (tmp_path / "ca.pem").write_bytes(certificates.ca.read_bytes())
    (tmp_path / "api").write_text("s3cret")
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
