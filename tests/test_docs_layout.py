"""Pages of docs/ that name folders and tests: each name exists, and no folder is missing."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import pytest

from servers import need

ROOT = Path(__file__).parents[1]
PAGE = "docs/where-is-what.md"
#: Folders of tests, and the sources whose folders are repeated in them.
MIRRORS = {
    PurePosixPath("tests/exporter"): ROOT / "exporters" / "bts_exporter",
    PurePosixPath("tests/collectors"): ROOT / "collectors" / "bts_collectors",
}


@pytest.fixture(scope="module")
def files() -> list[PurePosixPath]:
    """Return the files of the repository: what git has or would take."""
    argv = [need("git", "git"), "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    return [PurePosixPath(name) for name in done.stdout.splitlines() if (ROOT / name).is_file()]


def folders(files: Iterable[PurePosixPath]) -> set[PurePosixPath]:
    """Return the top-level folders, and every folder that holds a Python file."""
    top = {PurePosixPath(file.parts[0]) for file in files if len(file.parts) > 1}
    return top | {file.parent for file in files if file.suffix == ".py" and len(file.parts) > 1}


def mirror_of(folder: PurePosixPath) -> PurePosixPath | None:
    """Return the folder of MIRRORS that `folder` is in."""
    return next((mirror for mirror in MIRRORS if folder.is_relative_to(mirror)), None)


def test_page_has_a_line_for_every_folder_and_no_other(files: list[PurePosixPath]) -> None:
    """The page names the top-level folders and those with Python; tests that mirror them share a line."""
    lines = re.findall(r"^\| `([^`]+)/` \| \S", (ROOT / PAGE).read_text(), re.MULTILINE)

    expected = {mirror_of(folder) or folder for folder in folders(files)}
    assert sorted(lines) == sorted(map(str, expected))


def test_folders_of_tests_mirror_those_of_the_sources(files: list[PurePosixPath]) -> None:
    """A folder of unit tests has the name and the place of the folder that it tests."""
    tests = {folder: mirror_of(folder) for folder in folders(files)}

    assert [
        str(folder)
        for folder, mirror in tests.items()
        if mirror is not None and not (MIRRORS[mirror] / folder.relative_to(mirror)).is_dir()
    ] == []


@pytest.mark.parametrize("page", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_page_is_linked(page: str) -> None:
    """Each page that a newcomer opens first leads to the list of folders."""
    assert f"]({PAGE})" in (ROOT / page).read_text()


def test_reliability_names_tests_that_exist() -> None:
    """Every test that docs/reliability.md gives as its evidence is there."""
    named = set(re.findall(r"`([\w/]+\.py)`", (ROOT / "docs" / "reliability.md").read_text()))

    assert named
    assert [name for name in sorted(named) if not (ROOT / "tests" / name).is_file()] == []


def test_links_between_pages_lead_somewhere() -> None:
    """Every link of a page to a file or a heading of the repository leads to one."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    links = [
        (page, *link.partition("#")[::2])
        for page in pages
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text())
        if "://" not in link
    ]

    assert [
        f"{page.relative_to(ROOT)}: {target}#{heading}"
        for page, target, heading in links
        if not (found := page.parent / target if target else page).exists()
        or (heading and heading not in anchors(found))
    ] == []


def anchors(page: Path) -> set[str]:
    """Return what links to parts of a page can name: its headings, as GitHub spells them, and anchors."""
    text = page.read_text()
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    spelled = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return spelled | set(re.findall(r'<a (?:name|id)="([^"]+)"', text))
