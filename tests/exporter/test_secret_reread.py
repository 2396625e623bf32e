from __future__ import annotations

from pathlib import Path

import pytest

from bts_exporter import Secret
from bts_exporter.settings.yaml_document import Document


def secret_of(folder: Path, value: str) -> Secret:
    """Return the secret that a settings file in `folder` gives as `value`."""
    document = Document(str(folder / "c.yaml"), f"password: {value}\n")
    assert document.problems == []
    return Secret.from_setting(document.value["password"])


def test_secret_of_a_file_is_read_again(tmp_path: Path) -> None:
    """`reread` returns the current password of the file."""
    (tmp_path / "password").write_text("old\n")
    secret = secret_of(tmp_path, "!file password")

    (tmp_path / "password").write_text("new\n")

    assert secret.reveal() == "old"
    assert secret.reread().reveal() == "new"
    assert secret.reread().reread().reveal() == "new"


def test_credential_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`reread` returns the current credential of systemd."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "redis").write_text("old")
    secret = secret_of(tmp_path, "!credential redis")

    (tmp_path / "redis").write_text("new")

    assert secret.reread().reveal() == "new"


def test_file_that_is_being_written_leaves_the_secret_as_it_was(tmp_path: Path) -> None:
    """With an empty file, the previous password stays."""
    (tmp_path / "password").write_text("old")
    secret = secret_of(tmp_path, "!file password")

    (tmp_path / "password").write_text("\n")

    assert secret.reread().reveal() == "old"


def test_file_that_is_gone_leaves_the_secret_as_it_was(tmp_path: Path) -> None:
    """If the file cannot be read, the previous password stays."""
    (tmp_path / "password").write_text("old")
    secret = secret_of(tmp_path, "!file password")

    (tmp_path / "password").unlink()

    assert secret.reread().reveal() == "old"


def test_secret_in_the_settings_stays(tmp_path: Path) -> None:
    """A password in the settings changes only with a reload."""
    secret = secret_of(tmp_path, "plain")

    assert secret.reread() is secret


def test_source_of_a_secret_does_not_make_settings_differ(tmp_path: Path) -> None:
    """The same password from the same file is equal, so that a reload keeps its collector."""
    (tmp_path / "password").write_text("same")

    assert secret_of(tmp_path, "!file password") == secret_of(tmp_path, "!file password")
