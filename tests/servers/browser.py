"""Debian's chromium without a window, one for all tests of a module."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from servers import need, wait_until

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1400,1000",
    # Results must not depend on the machine's settings.
    "--lang=en-US",
    "--force-device-scale-factor=1",
)


class Browser:
    """A browser window."""

    def __init__(self, folder: Path) -> None:
        """Start it, with a new profile in `folder`."""
        from selenium import webdriver  # noqa: PLC0415  # few tests need it
        from selenium.webdriver.chrome.service import Service  # noqa: PLC0415  # as above

        options = webdriver.ChromeOptions()
        options.binary_location = need("chromium", "chromium")
        for flag in (*FLAGS, f"--user-data-dir={folder}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        driver = need("chromedriver", "chromium-driver")
        self.driver = webdriver.Chrome(options, Service(driver))
        self.driver.set_script_timeout(60)

    def open(self, address: str) -> None:
        """Load a page."""
        self.driver.get(address)

    def run(self, script: str, *arguments: object) -> Any:
        """Return what a script returns."""
        return self.driver.execute_script(script, *arguments)

    def call(self, command: str, **parameters: object) -> Any:
        """Call a method of the DevTools protocol."""
        return self.driver.execute_cdp_cmd(command, parameters)

    def text(self, selector: str) -> str:
        """Return the text of the first element that matches; empty if none does."""
        found: str = self.run(
            "return document.querySelector(arguments[0])?.textContent ?? ''", selector
        )
        return found

    def texts(self, selector: str) -> list[str]:
        """Return the texts of all elements that match."""
        found: list[str] = self.run(
            "return [...document.querySelectorAll(arguments[0])].map((it) => it.textContent)",
            selector,
        )
        return found

    def wait(self, condition: Callable[[], object], what: str, seconds: float = 60.0) -> None:
        """Wait until `condition` holds."""
        wait_until(condition, what, seconds)

    def errors(self) -> list[str]:
        """Return what the console has shown since the last call, warnings and errors only."""
        return [
            json.dumps(entry)
            for entry in self.driver.get_log("browser")
            if entry["level"] in {"SEVERE", "WARNING"}
        ]

    def emulate(self, *, dark: bool = False, phone: bool = False, scripts: bool = True) -> None:
        """Set the preferred colours, the size of the window, and whether scripts run."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        motion = {"name": "prefers-reduced-motion", "value": "reduce"}
        self.call("Emulation.setEmulatedMedia", features=[scheme, motion])
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        width, height = (390, 844) if phone else (1400, 1000)
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=phone,
        )

    def close(self) -> None:
        """End it."""
        self.driver.quit()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Return a browser with a new profile."""
    running = Browser(tmp_path_factory.mktemp("browser"))
    yield running
    running.close()
