"""./config.yaml is used only if it belongs to us or root."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

#: A user other than root and the one that runs the tests.
STRANGER = 12345


def check(folder: Path) -> tuple[str, str]:
    """Return what `bts-exporter check` prints in `folder`: which settings it uses, and errors."""
    done = subprocess.run(
        [sys.executable, "-m", "bts_exporter", "check"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.partition(":")[0], done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of ours with settings."""
    folder = tmp_path / "here"
    folder.mkdir(mode=0o755)
    (folder / "config.yaml").write_text("collectors: {host: }\n")
    (folder / "config.yaml").chmod(0o644)
    return folder


def behind_a_link(folder: Path) -> None:
    """Put the settings into a folder that others can write, with a link in their place."""
    target = folder.parent / "shared"
    target.mkdir()
    target.chmod(0o777)
    (folder / "config.yaml").rename(target / "config.yaml")
    (folder / "config.yaml").symlink_to("../shared/config.yaml")


def give_away(path: Path) -> None:
    """Give `path` to another user."""
    if os.geteuid():
        pytest.skip("not everywhere: only root can give files away")
    os.chown(path, STRANGER, STRANGER, follow_symlinks=False)


def link_of_a_stranger(folder: Path) -> None:
    """Replace the settings by another user's link to them."""
    (folder / "config.yaml").rename(folder / "ours.yaml")
    (folder / "config.yaml").symlink_to("ours.yaml")
    give_away(folder / "config.yaml")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda folder: (folder / "config.yaml").chmod(0o666), "is writable by other users"),
        (lambda folder: (folder / "config.yaml").chmod(0o664), "is writable by other users"),
        (lambda folder: folder.chmod(0o777), "is writable by other users (mode 0777)"),
        (lambda folder: folder.chmod(0o1777), "is writable by other users (mode 1777)"),
        (lambda folder: folder.parent.chmod(0o777), "is writable by other users"),
        (behind_a_link, "shared is writable by other users"),
        (lambda folder: give_away(folder / "config.yaml"), f"belongs to user {STRANGER}"),
        (give_away, f"belongs to user {STRANGER}"),
        (link_of_a_stranger, f"belongs to user {STRANGER}"),
    ],
)
def test_settings_that_others_can_write_are_not_used(
    spoil: Callable[[Path], None], reason: str, folder: Path
) -> None:
    """A file that another user can write, or replace, is left out; one message says why, with the cure."""
    spoil(folder)

    used, message = check(folder)

    assert used != "config.yaml"
    assert message.count("config.yaml is not used: ") == 1
    assert reason in message
    assert "--config.file=config.yaml" in message


def test_settings_of_ours_are_used(folder: Path) -> None:
    """A file that only we can write is used, also behind a link, and below a folder such as /tmp."""
    (folder / "config.yaml").rename(folder / "mine.yaml")
    (folder / "config.yaml").symlink_to("mine.yaml")
    folder.parent.chmod(0o1777)

    assert check(folder) == ("config.yaml", "")
