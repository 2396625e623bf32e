"""The files of the live page: scripts, style, icon. They are read when they are requested."""

from __future__ import annotations

from pathlib import Path

from bts_exporter.exposition.page import compress
from bts_exporter.web.accept import accepts_gzip
from bts_exporter.web.server import Request, Response

FOLDER = Path(__file__).parent / "static"
#: Every file that is served, and its type.
TYPES = {
    "main.js": "text/javascript",
    "destinations.js": "text/javascript",
    "collectors.js": "text/javascript",
    "plots.js": "text/javascript",
    "units.js": "text/javascript",
    "style.css": "text/css",
    "icon.svg": "image/svg+xml",
    "uplot/uPlot.iife.min.js": "text/javascript",
    "uplot/uPlot.min.css": "text/css",
    "uplot/LICENSE": "text/plain",
}
_PREFIX = "/assets/"


def respond(request: Request) -> Response | None:
    """Answer a request for a file; None if there is no such file."""
    name = request.path.removeprefix(_PREFIX)
    kind = TYPES.get(name)
    if kind is None or not request.path.startswith(_PREFIX):
        return None
    # Not from the browser's cache, so that an upgrade is seen at once: with gzip it is 35 kB in all.
    headers = [("Cache-Control", "no-cache"), ("Vary", "Accept-Encoding")]
    body = (FOLDER / name).read_bytes()
    if accepts_gzip(", ".join(request.headers.get_all("Accept-Encoding", []))):
        body = compress([body])
        headers.append(("Content-Encoding", "gzip"))
    return Response(200, body, f"{kind}; charset=utf-8", tuple(headers))
