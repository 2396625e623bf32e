from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import unescape
from html.parser import HTMLParser
from typing import get_args, get_type_hints

import pytest

import bts_exporter
from bts_exporter import NotPresent, Scrape, TargetError, backlog
from bts_exporter.exposition.formats import Format
from bts_exporter.live.report import live_report
from bts_exporter.page_service import Exporter
from bts_exporter.reload_state import ReloadState
from bts_exporter.web import status_page
from bts_exporter.web.protocol import SECURITY_FIELDS
from servers.live_page import Queue, number, refuse, served
from stubs import LocalStub, Stub, collectors

_TIME = r"\d\d:\d\d:\d\d UTC"
_WITHOUT_END = {"meta", "link", "input"}


class Page(HTMLParser):
    """Parses the page, and checks that every tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.links: list[str] = []
        self.tags: list[str] = []
        self.paths: list[str] = []
        self._rows: list[list[str]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        """Note rows, cells and links."""
        self.tags.append(tag)
        if tag == "path":
            self.paths.append(dict(attrs)["d"] or "")
        if tag in _WITHOUT_END:
            return
        self._open.append(tag)
        if tag == "table":
            self._rows = self.tables[dict(attrs)["id"] or ""] = []
        elif tag == "tr":
            self._rows.append([])
        elif tag in {"td", "th"}:
            self._rows[-1].append("")
        elif tag == "a":
            self.links.append(dict(attrs)["href"] or "")

    def handle_endtag(self, tag: str) -> None:
        """Check a closing tag."""
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Record the text of a cell."""
        if {"td", "th"} & set(self._open):
            self._rows[-1][-1] += data


def render(
    exporter: Exporter,
    state: ReloadState | None = None,
    path: str = "/metrics",
    query: Mapping[str, Sequence[str]] | None = None,
) -> str:
    """Return the page."""
    report = live_report(exporter, state or ReloadState())
    return status_page.render(report, path, query or {}, live=True)


def fail(_: Scrape) -> None:
    """Raise TargetError."""
    reason = "auth"
    raise TargetError(reason, 'redis://cache refuses <b>"us"</b> & others')


def absent(_: Scrape) -> None:
    """Raise NotPresent."""
    message = "no /proc/mdstat"
    raise NotPresent(message)


def test_states_of_collectors() -> None:
    """Failing collectors come first with their error and its fix, and those of the host share a row."""
    exporter = Exporter()
    members = [
        ("works", Stub()),
        ("fails", Stub(fail), {"name": "cache"}),
        ("cpu", LocalStub()),
        ("mdadm", LocalStub(absent)),
    ]
    with collectors(*members) as (together, runners):
        exporter.collectors = together
        before = Page(render(exporter)).tables["collectors"]
        exporter.page(runners, Format.TEXT)
        after = Page(render(exporter)).tables["collectors"]

    assert [row[:2] for row in before[1:]] == [
        ["… waiting", "works"],
        ["… waiting", "fails[cache]"],
        ["… waiting", "host: 2 subsystemscpu, mdadm"],
    ]
    assert after[0] == ["State", "Collector", "Duration", "Series", "Last success", "Last error"]
    fails, works, host = after[1:]
    assert re.fullmatch(rf"✕ failing \(auth\)since {_TIME}", fails[0])
    assert fails[1] == "fails[cache]"
    assert fails[3:5] == ["0", "never"]
    assert fails[5] == (
        'redis://cache refuses <b>"us"</b> & othersCorrect the user name or password in the settings.'
    )
    assert works[:2] == ["✓ ok", "works"]
    assert re.fullmatch(r"\d+\.\d ms", works[2])
    assert re.fullmatch(_TIME, works[4])
    assert works[5] == ""
    assert host[:2] == ["✓ ok", "host: 2 subsystems, 1 of them absentcpu, mdadm"]


def test_last_error_after_recovery() -> None:
    """The last error of a collector that works again is there with its time."""
    exporter, stub = Exporter(), Stub(fail)
    with collectors(("fails", stub)) as (together, runners):
        exporter.collectors = together
        exporter.page(runners, Format.TEXT)
        stub.behave = stub.emit_value
        exporter.page(runners, Format.TEXT)
        [_, row] = Page(render(exporter)).tables["collectors"]

    assert row[0] == "✓ ok"
    assert re.fullmatch(
        rf'{_TIME}, over now: redis://cache refuses <b>"us"</b> & others \(auth\)', row[5]
    )


def test_nothing_is_collected_for_the_page() -> None:
    """The page causes no collection."""
    exporter, stub = Exporter(), Stub()
    with collectors(("one", stub)) as (together, _):
        exporter.collectors = together
        render(exporter)

    assert stub.collections == 0


def test_links() -> None:
    """The page links to everything, whatever the names of the collectors are, relative to its address."""
    exporter = Exporter()
    with collectors(("a&b", Stub(), {"name": 'x "y"/z'})) as (together, _):
        exporter.collectors = together
        links = Page(render(exporter, path="/my?metrics")).links

    assert [link for link in links if "sort=" not in link] == [
        "#content",
        "./",
        "?collector=a%26b%5Bx%20%22y%22/z%5D",
        "my?metrics",
        "api/v1/live",
        "-/healthy",
        "-/ready",
    ]


def test_version_and_settings() -> None:
    """The page says which version runs and when its settings were loaded."""
    state = ReloadState(successful=True, loaded_at=1_700_000_000)

    text = unescape(re.sub("<.*?>", "", render(Exporter(), state)))

    assert f"bts-exporter {bts_exporter.__version__}" in text
    assert "Settings loaded 2023-11-14 22:13 UTC" in text


def test_reload_that_failed() -> None:
    """The page says that the settings in use are not those in the file, and why."""
    state = ReloadState(successful=False, problem="c.yaml:3: <key>: unknown")

    page = render(Exporter(), state)

    assert "The last reload failed" in page
    assert "c.yaml:3: &lt;key&gt;: unknown" in page


def script(moment: float) -> Sequence[Queue]:
    """Return one destination of each kind."""
    return [
        Queue("rabbitmq", "orders", "", 7000, 4000, "lower_bound", 0, float("inf")),
        Queue("redis", "mail", "smtp", 3, 1.5, "interpolation", 2, 4),
        Queue("mqtt", "", "dash<board>", 12),
    ]


def test_destinations() -> None:
    """The latest destination comes first; each has its lag, how it is known, and its other numbers."""
    with served({"broker:x": script}) as made:
        page = Page(render(made.exporter))

    _, orders, mail, dashboard = page.tables["destinations"]
    assert orders[:2] == ["▲ late", "ordersRabbitMQ · x"]
    assert re.fullmatch(rf"≥ 1 h 6 minsince {_TIME} · at least", orders[2])
    assert orders[3:8] == ["7,000", "–", "–", "0", "never"]  # noqa: RUF001  # a dash
    assert mail[:2] == ["✓ ok", "mailRedis · x · smtp"]
    assert mail[2:] == ["≈ 1.5 sinterpolated", "3", "–", "–", "2", "4.0 s", ""]  # noqa: RUF001
    assert dashboard[1] == "dash<board>MQTT · x"


def test_lag_that_no_calendar_has() -> None:
    """A plug-in that emits nanoseconds in place of seconds costs its own row, not the page."""
    wrong = Queue("rabbitmq", "wrong", backlog=1, lag=1.8e18)
    with served({"broker:x": lambda _: [wrong]}) as made:
        page = Page(render(made.exporter))

    assert page.tables["destinations"][1][2].startswith(">1,000,000 dsince before 1970")


def test_history_of_a_destination() -> None:
    """The recent backlog is a line, as high as the most messages."""
    backlogs = {-30: 0, -15: 10, 0: 5}

    def emptied(moment: float) -> Sequence[Queue]:
        return [Queue("redis", "a", "", backlogs[int(moment)])] if moment in backlogs else []

    with served({"redis:x": emptied}, past=True) as made:
        line = Page(render(made.exporter)).paths[1]

    assert [point.split()[1] for point in line.split("L")] == ["23.0", "1.0", "12.0"]


@pytest.mark.parametrize(
    ("history", "times", "line"),
    [
        ([0, 10, 5], [970, 985, 1000], "M116.0 23.0L118.0 1.0L120.0 12.0"),
        ([0, 10, 5], [880, 940, 1000], "M104.0 23.0L112.0 1.0L120.0 12.0"),
        ([0, None, 10], [100, 500, 880], "M0.0 23.0L104.0 1.0"),
        ([None], [1000], None),
        ([5], [], None),
    ],
)
def test_sparkline(history: list[float | None], times: list[float], line: str | None) -> None:
    """The line covers 15 minutes and ends at the right, however often scrapes come; unknown values are left out."""
    paths = re.findall('class="line" d="(.*?)"', status_page._spark(history, times, 1000.0))

    assert paths == ([line] if line else [])


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({"q": "MAIL"}, ["mail"]),
        ({"q": "late"}, ["orders"]),
        ({"q": "mail orders"}, []),
        ({"sort": "backlog"}, ["orders", "dash<board>", "mail"]),
        ({"sort": "backlog", "order": "asc"}, ["mail", "dash<board>", "orders"]),
        ({"sort": "lag", "order": "asc"}, ["mail", "orders", "dash<board>"]),
        ({"sort": "name"}, ["dash<board>", "mail", "orders"]),
        ({"sort": "state"}, ["orders", "dash<board>", "mail"]),
        ({"sort": "state", "order": "asc"}, ["mail", "dash<board>", "orders"]),
        ({"sort": "consumers"}, ["mail", "orders", "dash<board>"]),
        ({"sort": "drain"}, ["orders", "mail", "dash<board>"]),
        ({"sort": "nonsense"}, ["orders", "mail", "dash<board>"]),
    ],
)
def test_search_and_order(query: dict[str, str], names: list[str]) -> None:
    """Search and order are in the address, as with scripts; unknown values come last."""
    with served({"broker:x": script}) as made:
        page = render(made.exporter, query={name: [value] for name, value in query.items()})

    rows = Page(page).tables["destinations"][1:]
    assert [re.split("RabbitMQ|Redis|MQTT", row[1])[0] for row in rows] == names


def test_every_method_has_a_name() -> None:
    """However a lag is known, the page says so."""
    methods = get_args(get_type_hints(backlog.Age)["method"])

    assert set(status_page._METHODS) == {*methods} - {"delivery_time"}  # of held messages


def test_many_destinations() -> None:
    """Without scripts 200 destinations are shown, and all of them at a second address."""
    with served({"redis:big": number(450)}) as made:
        some, everything = (render(made.exporter, query=query) for query in ({}, {"all": ["1"]}))

    assert len(Page(some).tables["destinations"]) == 201
    assert '<a href="?all=1">Show 250 more</a>' in some
    assert len(Page(everything).tables["destinations"]) == 451


def test_view_of_a_collector() -> None:
    """The address of a collector shows its state, and links to its metrics."""
    with served({"redis:gone": refuse("redis://gone")}) as made:
        page = render(made.exporter, query={"collector": ["redis[gone]"]})

    assert '<div id="overview" hidden>' in page
    assert '<div id="detail">' in page
    assert "probe?target=gone" in Page(page).links


def test_page_has_nothing_inline() -> None:
    """The content security policy allows files of the exporter only: the page has no style and no script in it."""
    with served({"broker:x": script}, past=True) as made:
        text = render(made.exporter)

    page = Page(text)
    assert "style" not in page.tags
    assert not re.search(r"<script(?! src=)|\sstyle=|\son\w+=", text)
    [policy] = re.findall("Content-Security-Policy: (.*)\r", SECURITY_FIELDS)
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
    assert "unsafe" not in policy
