from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from html import unescape
from html.parser import HTMLParser

import bts_exporter
from bts_exporter import NotPresent, Scrape, TargetError
from bts_exporter.exposition.formats import Format
from bts_exporter.page_service import Exporter
from bts_exporter.reload_state import ReloadState
from bts_exporter.web import status_page
from bts_exporter.web.protocol import SECURITY_FIELDS
from bts_exporter.web.status_page import render
from stubs import Stub, collectors

_DATE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC")


class Page(HTMLParser):
    """Parses the page, and checks that every tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.links: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        """Note rows, cells and links."""
        if tag == "meta":
            return
        self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in {"td", "th"}:
            self.rows[-1].append("")
        elif tag == "a":
            self.links.append(dict(attrs)["href"] or "")

    def handle_endtag(self, tag: str) -> None:
        """Check a closing tag."""
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Record the text of a cell."""
        if {"td", "th"} & set(self._open):
            self.rows[-1][-1] += data


def fail(_: Scrape) -> None:
    """Raise ConnectionRefusedError."""
    reason = "auth"
    raise TargetError(reason, 'redis://cache refuses <b>"us"</b> & others')


def absent(_: Scrape) -> None:
    """Raise NotPresent."""
    message = "no /proc/mdstat"
    raise NotPresent(message)


def test_states_of_collectors() -> None:
    """Each collector has a row with its state, duration and error."""
    exporter = Exporter()
    members = [
        ("works", Stub()),
        ("fails", Stub(fail), {"name": "cache"}),
        ("absent", Stub(absent)),
    ]
    with collectors(*members) as (together, runners):
        exporter.collectors = together
        before = Page(render(exporter, ReloadState(), "/metrics"))
        exporter.page(runners, Format.TEXT)
        after = Page(render(exporter, ReloadState(), "/metrics"))

    assert [row[:3] for row in before.rows[1:]] == [
        ["works", "", "waiting for the first scrape"],
        ["fails", "cache", "waiting for the first scrape"],
        ["absent", "", "waiting for the first scrape"],
    ]
    assert after.rows[0] == [
        "Collector",
        "Target",
        "State",
        "Duration",
        "Series",
        "Last success",
        "Message",
    ]
    works, fails, nothing = after.rows[1:]
    assert works[:3] == ["works", "", "ok"]
    assert re.fullmatch(r"\d+\.\d ms", works[3])
    assert works[4] == "1"
    assert _DATE.fullmatch(works[5])
    assert works[6] == ""
    assert fails[:3] == ["fails", "cache", "failing (auth)"]
    assert fails[4:] == ["0", "never", 'redis://cache refuses <b>"us"</b> & others']
    assert nothing[:3] == ["absent", "", "absent"]
    assert nothing[6] == "no /proc/mdstat"


def test_nothing_is_collected_for_the_page() -> None:
    """The status page causes no collection."""
    exporter, stub = Exporter(), Stub()
    with collectors(("one", stub)) as (together, _):
        exporter.collectors = together
        render(exporter, ReloadState(), "/metrics")

    assert stub.collections == 0


def test_links() -> None:
    """The page links to all paths, whatever the names of the collectors are."""
    exporter = Exporter()
    with collectors(("a&b", Stub(), {"name": 'x "y"/z'})) as (together, _):
        exporter.collectors = together
        links = Page(render(exporter, ReloadState(), "/my?metrics")).links

    assert links == [
        "/my?metrics",
        "/-/healthy",
        "/-/ready",
        "/my?metrics?collect[]=a%26b",
        "/probe?target=x%20%22y%22/z",
    ]


def test_version_and_settings() -> None:
    """The page says which version runs and when its settings were loaded."""
    state = ReloadState(successful=True, loaded_at=1_700_000_000)

    text = unescape(render(Exporter(), state, "/metrics"))

    assert (
        f"Version {bts_exporter.__version__}. Settings loaded 2023-11-14 22:13:20 UTC.</p>" in text
    )


def test_reload_that_failed() -> None:
    """The page says that the settings in use are not those in the file, and why."""
    state = ReloadState(successful=False, problem="c.yaml:3: <key>: unknown")

    page = render(Exporter(), state, "/metrics")

    assert "The last reload failed:" in page
    assert "c.yaml:3: &lt;key&gt;: unknown" in page


def test_style_is_the_one_that_browsers_may_use() -> None:
    """The content security policy allows only the style of this page, by its hash."""
    digest = hashlib.sha256(status_page._STYLE.encode()).digest()

    assert f"style-src 'sha256-{base64.b64encode(digest).decode()}'" in SECURITY_FIELDS
