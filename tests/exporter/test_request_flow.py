"""The modules that a scrape passes from the HTTP request to the page, as ARCHITECTURE.md lists them."""

from __future__ import annotations

import re
import sys
import threading
from http.client import HTTPConnection
from pathlib import Path
from types import FrameType

import pytest

from bts_exporter import Scrape
from bts_exporter.exposition import page as page_module
from bts_exporter.page_service import Exporter
from bts_exporter.reload_state import ReloadState
from bts_exporter.web.routes import Routes
from servers.listener import listening
from stubs import Stub, collectors

ARCHITECTURE = (Path(__file__).parents[2] / "ARCHITECTURE.md").read_text()
#: From the parsed request on; `web.server` gives the connection a thread before.
MAX_MODULES = 8


def modules_of(frame: FrameType | None) -> set[str]:
    """Return the engine's modules on a stack."""
    found = set()
    while frame is not None:
        name = str(frame.f_globals.get("__name__"))
        if name.startswith("bts_exporter."):
            found.add(name.removeprefix("bts_exporter."))
        frame = frame.f_back
    return found


def test_a_scrape_passes_the_modules_that_the_architecture_lists(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The stacks of the collecting thread, of the waiting request and of the rendering have the listed modules."""
    passed: set[str] = set()
    others = set(threading.enumerate())  # of other tests, which may be about to end
    encode = page_module._encoded

    def behave(scrape: Scrape) -> None:
        names = {it.ident: it.name for it in threading.enumerate() if it not in others}
        for ident, frame in sys._current_frames().items():
            name = names.get(ident, "")
            if name.startswith(("http-", "bts-")) and name != "http-accept":
                passed.update(modules_of(frame))
        scrape.emit(Stub.value, 1)

    def encoded(texts: list[str]) -> bytes:
        passed.update(modules_of(sys._getframe()))
        return encode(texts)

    monkeypatch.setattr(page_module, "_encoded", encoded)
    with collectors(("stub", Stub(behave))) as (together, _):
        exporter = Exporter()
        exporter.collectors = together
        with listening(Routes(exporter, ReloadState())) as listener:
            connection = HTTPConnection(*listener.places[0][:2], timeout=30)
            connection.request("GET", "/metrics")
            assert b"\nstub_value 1\n" in connection.getresponse().read()
            connection.close()

    flow = ARCHITECTURE.partition("## Request flow")[2].partition("\n#")[0]
    listed = {
        path.replace("/", ".") for path in re.findall(r"^\d\..*?`([\w/]+)\.py`", flow, re.MULTILINE)
    }
    assert passed == listed
    assert len(listed - {"web.server"}) <= MAX_MODULES
