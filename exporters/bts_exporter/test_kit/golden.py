"""Pages in files, compared as a whole."""

from __future__ import annotations

import difflib
from pathlib import Path

from bts_exporter.test_kit.samples import Samples

#: The flag of pytest that writes the files.
UPDATE = "--bts-update-golden"


class Golden:
    """Compares texts with the files of a folder, or writes the files."""

    def __init__(self, folder: Path, *, update: bool = False) -> None:
        """Take the folder; it is created when the first file is written."""
        self._folder = folder
        self._update = update

    def check(self, found: Samples | str, name: str) -> None:
        """Compare a page with the file `name`; AssertionError with the difference."""
        page = found if isinstance(found, str) else found.page()
        path = self._folder / name
        if self._update:
            self._folder.mkdir(parents=True, exist_ok=True)
            path.write_text(page, encoding="utf-8")
        expected = path.read_text(encoding="utf-8") if path.is_file() else ""
        if page != expected:
            lines = difflib.unified_diff(
                expected.splitlines(), page.splitlines(), str(path), "found", lineterm=""
            )
            msg = f"the page is not that of {path}; if it is right: pytest {UPDATE}"
            raise AssertionError("\n".join([msg, *lines]))
