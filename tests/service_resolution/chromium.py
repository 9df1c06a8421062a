"""Chromium for the tests of pages: given by its path, or the local one; nothing stands in for it.

Debian packages it as ``chromium`` and what drives it as ``chromium-driver``.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

CHROMIUM = "RISKHUB_TEST_CHROMIUM"
CHROMEDRIVER = "RISKHUB_TEST_CHROMEDRIVER"

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_QUIET = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--no-default-browser-check"),
)


class NoChromium(LookupError):
    """This machine has no Chromium, or nothing to drive it with."""


@contextmanager
def chromium(environ: Mapping[str, str] = os.environ) -> Iterator[webdriver.Chrome]:
    """A Chromium with a profile of its own, closed at the end. Raises `NoChromium`."""
    browser, driver = _found(environ)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = browser
        for argument in (*_QUIET, f"--user-data-dir={profile}"):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        opened = webdriver.Chrome(options=options, service=Service(driver))
        try:
            yield opened
        finally:
            opened.quit()


def look_like(browser: webdriver.Chrome, width: int, *, dark: bool = False, **screen: Any) -> None:
    """Be a phone or a desk, by day or by night."""
    phone = width < 500
    metrics = {"width": width, "height": 844 if phone else 900, "deviceScaleFactor": 1}
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", metrics | {"mobile": phone} | screen
    )
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


def _found(environ: Mapping[str, str]) -> tuple[str, str]:
    browser = environ.get(CHROMIUM) or next(filter(None, map(shutil.which, _BROWSERS)), None)
    driver = environ.get(CHROMEDRIVER) or shutil.which("chromedriver")
    if browser is None or driver is None:
        raise NoChromium(
            "this needs a real browser: install chromium and chromium-driver, or set "
            f"{CHROMIUM} and {CHROMEDRIVER}"
        )
    return browser, driver
