from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from bts_exporter.access.tls_names import CURVES, VERSIONS
from bts_exporter.access.watched_files import WatchedFiles
from bts_exporter.access.web_config import load
from bts_exporter.access.web_settings import TLSServer
from servers import need

PAGE = (Path(__file__).parents[3] / "docs" / "web-config.md").read_text()


def test_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands and the file of the example work as they are, and with the key as a credential of systemd."""
    need("openssl", "openssl")
    commands = next(block for block in blocks("sh") if "openssl" in block)
    script = commands.replace("cd /etc/bts-exporter", "set -e").replace("$(hostname -f)", "server")
    subprocess.run(["/bin/sh", "-c", script], cwd=tmp_path, check=True, capture_output=True)
    file = tmp_path / "web.yml"
    file.write_text(next(block for block in blocks("yaml") if "tls_server_config" in block))
    loaded = load(file, WatchedFiles())
    assert loaded.tls is not None
    assert (list(loaded.users), loaded.warnings) == ([b"prometheus"], ())

    [(name, key)] = re.findall(r"^LoadCredential=(.*):/etc/bts-exporter/(.*)$", PAGE, re.MULTILINE)
    [setting] = re.findall(r"`(key: !credential .*?)`", PAGE)
    (tmp_path / key).rename(tmp_path / name)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    file.write_text(re.sub(r"key_file: .*", setting, file.read_text()))
    assert load(file, WatchedFiles()).tls is not None


def blocks(language: str) -> list[str]:
    """Return the blocks of code."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_every_setting_is_documented() -> None:
    """Every setting and every value that it can have is on the page."""
    names = (*TLSServer.__struct_fields__, *CURVES, min(VERSIONS), max(VERSIONS))
    assert [name for name in names if f"`{name}`" not in PAGE] == []
