"""The live page in a real browser: Debian's chromium."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

import bcrypt
import pytest

from bts_exporter import human_units
from bts_exporter.web import status_page
from servers import wait_until
from servers.browser import Browser
from servers.exporter import Exporter, StartExporter
from servers.live_page import Page, Queue, Script, number, refuse, served
from servers.redis import MakeRedis

pytestmark = pytest.mark.live

AXE = Path(__file__).parent / "axe-core" / "axe.min.js"
#: Names that try to be HTML, to end an attribute, or to change the direction of the text.
HOSTILE = (
    "<script>window.broken = 1</script>",
    '"><img src=x onerror="window.broken = 1">',
    "it's {{host_name}} & &lt;co&gt;",
    "annual\u202egpj.exe",
    "\u200f\u05d0\u05d1",
    "line\nbreak",
)
MANY = 2000

#: Has the page ask for a report now, and ends in the task after the one that shows it.
REFRESH = """
const done = arguments[0], original = window.fetch;
window.fetch = async (...request) => {
  const response = await original(...request);
  const content = await response.json();
  response.json = async () => { setTimeout(done); return content; };
  return response;
};
document.dispatchEvent(new Event('visibilitychange'));
window.fetch = original;
"""
#: Has the page ask twice; the first answer, with another host name, comes after the second. Returns the name that is shown.
OVERTAKEN = """
const done = arguments[0], original = window.fetch;
let release;
const second = new Promise((resolve) => { release = resolve; });
const answering = (json) => async (...request) => {
  const response = await original(...request), content = await response.json();
  return Object.defineProperty(response, 'json', { value: () => json(content) });
};
window.fetch = answering(async (content) => {
  await second;
  setTimeout(() => done(document.querySelector('#host-name').textContent));
  return { ...content, host_name: 'overtaken' };
});
document.dispatchEvent(new Event('visibilitychange'));
window.fetch = answering(async (content) => { setTimeout(release); return content; });
document.dispatchEvent(new Event('visibilitychange'));
window.fetch = original;
"""
ADDRESS = "return location.href"
IS_LIVE = "return document.querySelector('#destinations').hasAttribute('aria-rowcount')"
STATES = """return Object.fromEntries([...document.querySelectorAll('#collectors tbody tr')].map(
    (row) => [row.cells[1].textContent, row.querySelector('.state').className]))"""
#: The rows of the table of destinations: name -> exact values of lag, backlog and consumers.
VALUES = """return Object.fromEntries([...document.querySelectorAll('#destinations tbody tr')].map((row) =>
    [row.querySelector('.name').textContent, [2, 3, 6].map((i) => Number(row.cells[i].querySelector('data').value))]))"""


def refresh(browser: Browser) -> None:
    """Have the page ask for a report now, and wait until it shows it."""
    browser.driver.execute_async_script(REFRESH)


def opened(browser: Browser, address: str) -> None:
    """Load a page and wait until it shows its first report."""
    browser.open(address)
    browser.wait(lambda: browser.run(IS_LIVE), "the page is live")


@pytest.fixture(autouse=True)
def _defaults(browser: Browser) -> None:
    browser.open("about:blank")  # the page before asks no more
    browser.errors()
    browser.emulate()


def late_orders(moment: float) -> Sequence[Queue]:
    """Return a queue that nothing has consumed for an hour."""
    return [Queue("rabbitmq", "orders", "", 7000 + moment, 4000 + moment, consumers=0)]


@pytest.fixture(scope="module")
def shop() -> Iterator[Page]:
    """Return the page of a late, a failing and a hostile broker, with a past."""
    names = [Queue("redis", name, name, 5, 1.0, "interpolation", 1) for name in HOSTILE]
    scripts: dict[str, Script] = {
        "rabbitmq:shop": late_orders,
        "redis:cache": lambda _: names,
        "redis:gone": refuse("redis://gone"),
    }
    with served(scripts, past=True) as page:
        yield page


def test_values_and_states_follow_the_broker(
    browser: Browser, exporter: StartExporter, make_redis: MakeRedis
) -> None:
    """The page has the values of /metrics; it is red at the second refresh after a broker stops, and green after its return."""
    redis = make_redis()
    fill(redis)
    server = exporter(
        f"collectors: {{redis: {{name: cache, url: '{redis.url}', streams: [orders]}}}}\n"
    )
    before = lag_of(server)
    opened(browser, f"http://{server.address}/")

    lag, *others = browser.run(VALUES)["orders"]
    assert others == [
        server.value("messaging_backlog_messages", **LABELS),
        server.value("messaging_consumers", **LABELS),
    ]
    assert before <= lag <= lag_of(server)
    assert browser.run(STATES)["redis[cache]"] == "state good"
    redis.kill()
    assert server.value("redis_up", target="cache") == 0
    refresh(browser)
    assert browser.run(STATES)["redis[cache]"] == "state bad"
    assert "connection refused" in browser.text("#failing")
    assert browser.texts("#destinations tbody .state") == ["✕ outdated"]
    redis.restart()
    fill(redis)
    assert server.value("redis_up", target="cache") == 1
    refresh(browser)
    assert browser.run(STATES)["redis[cache]"] == "state good"
    assert browser.text("#failing") == ""
    assert "over now" in browser.text("#collectors tbody")
    assert browser.errors() == []


LABELS = {"system": "redis", "destination": "orders", "group": "billing", "target": "cache"}


def fill(redis: object) -> None:
    """Put seven entries into a stream, of which a group has not read any."""
    client = redis.client  # type: ignore[attr-defined]
    client.xgroup_create("orders", "billing", id="0", mkstream=True)
    client.xgroup_createconsumer("orders", "billing", "one")
    for i in range(7):
        client.xadd("orders", {"i": i})


def lag_of(server: Exporter) -> float:
    """Return the lag in a new scrape."""
    lag = server.value("messaging_lag_seconds", **LABELS)
    assert lag is not None
    return lag


def test_broker_that_stops_is_noticed_without_scrapes(
    exporter: StartExporter, make_redis: MakeRedis
) -> None:
    """While somebody looks, the exporter collects itself, so that a stopped broker is reported."""
    redis = make_redis()
    server = exporter(f"collectors: {{redis: {{name: cache, url: '{redis.url}'}}}}\n")
    wait_until(lambda: '"state":"ok"' in server.get("/api/v1/live")[1], "it works")

    redis.kill()

    wait_until(lambda: '"state":"failing"' in server.get("/api/v1/live")[1], "it fails", 120)


def test_many_destinations(browser: Browser) -> None:
    """Of 2,000 rows only those in sight are in the document; in every frame of a scroll they fill the box."""
    with served({"redis:big": number(MANY)}) as page:
        opened(browser, page.address)
        rows = browser.run(
            "return document.querySelector('#destinations').getAttribute('aria-rowcount')"
        )
        frames = browser.driver.execute_async_script(SCROLL)
        last = browser.texts("#destinations tbody .name")[-1]
        errors = browser.errors()

    assert rows == str(MANY + 1)
    assert len(frames) == 31
    assert max(frame["rows"] for frame in frames) < 100
    assert [frame for frame in frames if not frame["filled"]] == []
    assert last == f"queue-{MANY - 1:04d}"
    assert errors == []


#: Scrolls to the end in 30 frames; of each frame, how many rows there are and whether they fill the box.
SCROLL = """
const done = arguments[0], box = document.querySelector('#destination-box'), frames = [];
const end = box.scrollHeight - box.clientHeight;
function isRow(y) {
  const { left, top } = box.getBoundingClientRect();
  const row = document.elementFromPoint(left + 300, top + y)?.closest('tr');
  return Boolean(row && !row.classList.contains('space'));
}
box.scrollIntoView();
function step(i) {
  box.scrollTop = end * i / 30;
  requestAnimationFrame(() => requestAnimationFrame(() => {
    frames.push({ rows: box.querySelectorAll('tbody tr').length,
      filled: [40, box.clientHeight / 2, box.clientHeight - 8].every(isRow) });
    if (i < 30) step(i + 1); else done(frames);
  }));
}
step(0);
"""


def test_hostile_names_are_text(browser: Browser, shop: Page) -> None:
    """Names with tags, quotes and marks of direction are shown as text, in the table, the views and without scripts."""
    opened(browser, shop.address)
    live = browser.texts("#destinations tbody .name")
    browser.open(f"{shop.address}?collector={quote('redis[cache]')}")
    browser.wait(lambda: browser.texts(".family"), "the metrics")
    view = browser.text("#detail")
    broken = browser.run(
        "return window.broken ?? document.querySelectorAll('main img, main script').length"
    )
    browser.emulate(scripts=False)
    browser.open(shop.address)
    browser.emulate()  # the document stays
    plain = browser.texts("#destinations tbody .name")

    shown = [
        name.replace("\u202e", "\\u202e").replace("\u200f", "\\u200f").replace("\n", "\\n")
        for name in HOSTILE
    ]
    assert sorted(live) == sorted(["orders", *shown])
    assert sorted(plain) == sorted(live)
    assert [name for name in shown if name not in view] == []
    assert broken == 0
    assert browser.errors() == []


def test_states_are_in_the_address(browser: Browser, shop: Page) -> None:
    """Search, order and views are in the address, which shows the same when it is opened; Back goes back."""
    opened(browser, shop.address)
    search = browser.driver.find_element("id", "q")
    search.send_keys("rabbit")
    browser.wait(lambda: len(browser.texts("#destinations tbody tr")) == 1, "the search")
    browser.driver.find_element("css selector", "[data-sort=backlog]").click()
    address = browser.run(ADDRESS)
    opened(browser, address)
    again = browser.texts("#destinations tbody .name")
    browser.driver.find_element("css selector", "#destinations tbody .name a").click()
    browser.wait(
        lambda: browser.run("return document.querySelectorAll('#detail .uplot').length == 3"),
        "plots of the destination",
    )
    facts = browser.text("#detail .facts")
    browser.driver.back()
    browser.wait(
        lambda: browser.run("return !document.querySelector('#overview').hidden"), "the overview"
    )

    assert address == f"{shop.address}?q=rabbit&sort=backlog"
    assert again == ["orders"]
    assert "late" in facts
    assert "never" not in facts
    assert browser.run(ADDRESS) == address
    assert browser.run("return document.querySelector('th[aria-sort] a').dataset.sort") == "backlog"
    assert browser.errors() == []


def test_metrics_of_a_collector_can_be_searched(browser: Browser, shop: Page) -> None:
    """The view of a collector lists its metrics, and the search looks into names and help."""
    browser.open(f"{shop.address}?collector={quote('rabbitmq[shop]')}&m=oldest")
    browser.wait(lambda: browser.texts(".family code"), "the metrics")

    assert browser.texts(".family code") == ["messaging_lag_seconds"]
    assert "4000" in browser.text(".family td.n, .family .value")
    assert "Age of the oldest message" in browser.text(".family .help")


def test_answer_that_was_overtaken(browser: Browser, shop: Page) -> None:
    """An answer that comes after that of a later request does not replace it."""
    opened(browser, shop.address)
    name = browser.text("#host-name")

    assert browser.driver.execute_async_script(OVERTAKEN) == name


def test_rows_stay_in_place(browser: Browser, shop: Page) -> None:
    """A refresh changes the texts of rows and replaces no element that is in sight."""
    opened(browser, shop.address)
    browser.run(
        "for (const it of document.querySelectorAll('main tr, main figure, main canvas')) it.known = true"
    )
    browser.run("document.querySelector('#destinations tbody a').focus()")

    refresh(browser)

    new = "return [...document.querySelectorAll('main tr, main figure, main canvas')].filter((it) => !it.known).length"
    assert browser.run(new) == 0
    assert browser.run("return document.activeElement.closest('#destinations') !== null")


@pytest.mark.parametrize(
    ("query", "options"),
    [("", {}), ("", {"dark": True}), ("", {"phone": True}), ("?collector=redis%5Bcache%5D", {}),
     ("?view=destination&collector=rabbitmq%5Bshop%5D&system=rabbitmq&destination=orders", {"dark": True})],
    ids=["light", "dark", "phone", "collector", "destination"],
)  # fmt: skip
def test_accessible(browser: Browser, shop: Page, query: str, options: dict[str, bool]) -> None:
    """axe-core finds no violation, in any view."""
    browser.emulate(**options)
    opened(browser, shop.address + query)
    browser.wait(lambda: not query or browser.texts("#detail .family, #detail .uplot"), "the view")
    browser.run(AXE.read_text())

    found = browser.driver.execute_async_script(
        "axe.run().then((it) => arguments[0](it.violations.map((v) => [v.id, v.nodes.map((n) => n.html + n.failureSummary)])))"
    )

    assert found == []


def test_page_without_scripts(browser: Browser, shop: Page) -> None:
    """Without scripts the table is there, and search and order work as links and a form."""
    browser.emulate(scripts=False)
    browser.open(f"{shop.address}?sort=backlog&order=asc")
    names = browser.texts("#destinations tbody .name")
    browser.driver.find_element("id", "q").send_keys("orders")
    browser.driver.find_element("css selector", "form button").click()
    # The click returns before the new page is there; each of these calls reads one document only.
    browser.wait(lambda: browser.driver.current_url.endswith("?q=orders"), "another page")
    browser.wait(lambda: browser.run("return document.readyState") == "complete", "all of it")
    found = browser.texts("#destinations tbody .name")

    assert names[-1] == "orders"
    assert found == ["orders"]


def test_units_are_those_of_the_page_without_scripts(browser: Browser, shop: Page) -> None:
    """Both pages spell numbers in the same way."""
    values = [
        None,
        0,
        0.004,
        0.1,
        0.27,
        3,
        9.99,
        12.34,
        59.6,
        61,
        999.4,
        3599,
        7322,
        99_999,
        123_456,
        2e6,
        9.9996e8,
        3e9,
        5e13,
    ]
    browser.open(shop.address)

    shown = browser.driver.execute_async_script(
        """import('./assets/units.js').then((it) => arguments[1](arguments[0].map((value) =>
        [it.count(value), it.rate(value), it.duration(value), it.bytesPerSecond(value), it.share(value)])))""",
        values,
    )

    for value, texts in zip(values, shown, strict=True):
        expected = [
            human_units.count(value),
            human_units.rate(value),
            human_units.duration(value),
            human_units.bytes_per_second(value),
            human_units.share(value),
        ]
        assert texts == expected, value


def test_order_is_that_of_the_page_without_scripts(browser: Browser, shop: Page) -> None:
    """Each address with an order shows the same rows with and without scripts."""
    opened(browser, shop.address)

    found = browser.driver.execute_async_script(ORDERS)

    assert len(found) == 8 * 3
    assert [address for address, (live, plain) in found.items() if live != plain] == []


#: Of each address with an order, the names with scripts and without.
ORDERS = """
const done = arguments[0], found = {};
const names = (root) => [...root.querySelectorAll('#destinations tbody .name')].map((it) => it.textContent);
const columns = [...document.querySelectorAll('[data-sort]')].map((it) => it.dataset.sort);
async function compare() {
  for (const sort of columns) for (const order of ['', 'asc', 'desc']) {
    const address = `?sort=${sort}&order=${order}`;
    history.replaceState(null, '', address);
    dispatchEvent(new PopStateEvent('popstate'));
    const page = new DOMParser().parseFromString(await (await fetch(address)).text(), 'text/html');
    found[address] = [names(document), names(page)];
  }
  done(found);
}
compare();
"""


def test_words_are_those_of_the_page_without_scripts(browser: Browser, shop: Page) -> None:
    """Both pages have the same signs and words for states, methods and systems."""
    browser.open(shop.address)

    states, methods, systems = browser.driver.execute_async_script(
        "import('./assets/units.js').then((it) => arguments[0]([it.STATES, it.METHODS, it.SYSTEMS].map(Object.entries)))"
    )

    # The order of the states is that of the column.
    assert states == [[name, list(words)] for name, words in status_page._STATES.items()]
    assert dict(methods) == {name: list(words) for name, words in status_page._METHODS.items()}
    assert dict(systems) == status_page._SYSTEMS


def test_password_and_own_policy(browser: Browser, exporter: StartExporter, tmp_path: Path) -> None:
    """With a password in the address and a policy of the web config, the page is live, and asks no other host."""
    hashed = bcrypt.hashpw(b"horse", bcrypt.gensalt(4)).decode()
    file = tmp_path / "web.yml"
    policy = "default-src 'self'"
    file.write_text(
        f"basic_auth_users: {{me: {hashed}}}\n"
        f'http_server_config: {{headers: {{Content-Security-Policy: "{policy}"}}}}\n'
    )
    server = exporter("collectors: {host: }\n", f"--web.config.file={file}")

    opened(browser, f"http://me:horse@{server.address}/")
    hosts = browser.run(
        "return [...new Set(performance.getEntriesByType('resource').map((it) => new URL(it.name).host))]"
    )

    assert hosts == [server.address]
    assert browser.errors() == []


def test_flags(browser: Browser, exporter: StartExporter) -> None:
    """--web.disable-api leaves a page without scripts; --web.disable-background-scrape, values of scrapes only."""
    server = exporter(
        "collectors: {host: }\n", "--web.disable-api", "--web.disable-background-scrape"
    )

    browser.open(f"http://{server.address}/")

    assert server.get("/api/v1/live")[0] == server.get("/api/lag")[0] == 404
    assert browser.run("return document.scripts.length") == 0
    assert "Data is" in browser.text("#freshness") or "No data" in browser.text("#freshness")
    assert browser.errors() == []


def test_exporter_that_ends(browser: Browser, exporter: StartExporter) -> None:
    """The page says since when the exporter does not answer, and that its numbers are old."""
    server = exporter("collectors: {host: }\n")
    opened(browser, f"http://{server.address}/")
    browser.wait(lambda: "Data is current" in browser.text("#freshness"), "the first data")

    server.kill()

    browser.run("document.dispatchEvent(new Event('visibilitychange'))")
    browser.wait(lambda: "does not answer" in browser.text("#alert"), "the alert")
    assert "Data is stale" in browser.text("#freshness")
    assert browser.run("return document.body.classList.contains('stale')")
