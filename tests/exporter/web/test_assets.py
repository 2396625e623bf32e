from __future__ import annotations

import gzip
import re

import pytest

from bts_exporter.page_service import Exporter
from bts_exporter.web.assets import FOLDER, TYPES
from bts_exporter.web.protocol import Headers, Request
from bts_exporter.web.routes import Routes

#: Of everything that a browser loads for the page, not compressed.
MOST_BYTES = 150_000


def request(path: str, fields: str = "") -> Request:
    """Return a GET request."""
    return Request("GET", path, {}, Headers(fields.encode()))


def test_page_is_small() -> None:
    """All files together, with the plotting library, weigh less than 150 kB."""
    files = [path for path in FOLDER.rglob("*") if path.is_file()]

    assert sum(path.stat().st_size for path in files) < MOST_BYTES


def test_every_file_is_served() -> None:
    """Each file but the template has a type and an address; other addresses are 404."""
    names = {str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*") if path.is_file()}
    routes = Routes(Exporter())

    assert names - {"page.html"} == set(TYPES)
    for name, kind in TYPES.items():
        response = routes(request(f"/assets/{name}"))
        assert (response.status, response.content_type) == (200, f"{kind}; charset=utf-8")
        assert response.body == (FOLDER / name).read_bytes()


@pytest.mark.parametrize(
    "path",
    ["/assets/", "/assets/page.html", "/assets/../assets.py", "/assets//etc/passwd", "/assets/x"],
)
def test_nothing_else_is_served(path: str) -> None:
    """No path leads out of the folder."""
    assert Routes(Exporter())(request(path)).status == 404


def test_compressed() -> None:
    """A browser gets the files compressed."""
    response = Routes(Exporter())(request("/assets/main.js", "Accept-Encoding: gzip\n"))

    assert ("Content-Encoding", "gzip") in response.headers
    assert gzip.decompress(response.body) == (FOLDER / "main.js").read_bytes()


def test_files_name_no_other_host() -> None:
    """Nothing is loaded from elsewhere: the only addresses are names of XML and of the library's home."""
    found = {
        address
        for path in FOLDER.rglob("*")
        if path.suffix in {".js", ".css", ".html", ".svg"}
        for address in re.findall(r"https?://[^\s\"')]+", path.read_text())
    }

    assert found <= {"http://www.w3.org/2000/svg", "https://github.com/leeoniya/uPlot"}


def test_licence_of_the_library_comes_along() -> None:
    """UPlot is under the MIT licence, whose text is next to it."""
    assert "MIT License" in (FOLDER / "uplot" / "LICENSE").read_text()
