"""Takes the screenshots of the live page in docs/: `make screenshots`."""

from __future__ import annotations

import base64
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests"))

from servers.browser import Browser  # noqa: E402  # needs the path
from servers.live_page import PAST_SECONDS, Queue, Script, refuse, served  # noqa: E402  # as above

FOLDER = ROOT / "docs" / "screenshots"


def orders(moment: float) -> Sequence[Queue]:
    """Return the queues of a shop whose billing stopped 12 minutes ago."""
    seconds = moment + PAST_SECONDS
    stopped = max(seconds - 180, 0)
    return [
        Queue(
            "rabbitmq",
            "billing",
            "",
            40 + 8 * stopped,
            stopped,
            "message_time",
            0 if stopped else 2,
            float("inf") if stopped else 5,
            8 * seconds,
            8 * min(seconds, 180),
        ),
        Queue(
            "rabbitmq",
            "orders",
            "",
            12 + seconds % 45,
            1.4,
            "message_time",
            4,
            2.1,
            32 * seconds,
            32 * seconds,
        ),
        Queue(
            "rabbitmq",
            "invoices.pdf",
            "",
            max(900 - seconds, 40),
            75,
            "message_time",
            1,
            310,
            2 * seconds,
            3 * seconds,
        ),
        Queue("rabbitmq", "mail", "", 0, 0, "message_time", 2, 0, 0.3 * seconds, 0.3 * seconds),
        Queue("rabbitmq", "dead-letters", "", 3, None, "message_time", 0, float("inf"), 3, 0),
    ]


def streams(moment: float) -> Sequence[Queue]:
    """Return the consumer groups of a cache."""
    seconds = moment + PAST_SECONDS
    return [
        Queue(
            "redis",
            "bts:readings",
            "predictors",
            150 + 100 * (seconds // 60 % 3),
            4.2,
            "message_time",
            3,
            2.5,
            60 * seconds,
            60 * seconds,
        ),
        Queue(
            "redis",
            "bts:readings",
            "archive",
            2600 + seconds,
            64,
            "message_time",
            1,
            120,
            None,
            41 * seconds,
        ),
        Queue("redis", "celery", "", 7, 0.8, "interpolation", 2, 1, 9 * seconds, 9 * seconds),
    ]


def stop_after(end: float, script: Script) -> Script:
    """Return a script of a target that refuses connections since `end`."""
    refused = refuse("redis://cache:6379")
    return lambda moment: (script if moment < end else refused)(moment)


def clients(_: float) -> Sequence[Queue]:
    """Return the clients and pipelines of an MQTT broker."""
    return [
        Queue("mqtt", "", "dashboard", 0, None, "message_time"),
        Queue("mqtt", "sensors/+/state", "enrich", 4, 2.0, "message_time"),
    ]


def main() -> None:
    """Take them all."""
    FOLDER.mkdir(exist_ok=True)
    healthy = {"rabbitmq:shop": orders, "redis:cache": streams, "mqtt:": clients}
    failing = {**healthy, "redis:cache": stop_after(-120, streams)}
    with tempfile.TemporaryDirectory() as folder:
        browser = Browser(Path(folder))
        try:
            with served(healthy, past=True) as page:
                for name, options in {
                    "light": {},
                    "dark": {"dark": True},
                    "phone": {"phone": True},
                }.items():
                    _take(browser, page.address, name, **options)
                _take(
                    browser,
                    f"{page.address}?view=destination&collector=rabbitmq%5Bshop%5D&system=rabbitmq&destination=billing",
                    "destination",
                )
                _take(browser, f"{page.address}?collector=redis%5Bcache%5D", "collector")
            with served(failing, past=True) as page:
                _take(browser, page.address, "failing-broker")
        finally:
            browser.close()


def _take(browser: Browser, address: str, name: str, **options: bool) -> None:
    """Write a screenshot of the page at `address`, when it has its plots."""
    browser.emulate(**options)
    browser.open(address)
    drawn = "return document.querySelectorAll('.uplot').length || document.querySelectorAll('.family').length"
    browser.wait(lambda: browser.run(drawn), f"plots of {name}")
    image = browser.call(
        "Page.captureScreenshot", format="png", captureBeyondViewport=name == "failing-broker"
    )
    (FOLDER / f"{name}.png").write_bytes(base64.b64decode(image["data"]))


if __name__ == "__main__":
    main()
