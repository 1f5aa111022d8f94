"""The page as a person uses it: by the names of its buttons, fields and links."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

from selenium.common.exceptions import StaleElementReferenceException, TimeoutException
from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

PATIENCE = 60
"""Seconds: the guest's processor is emulated."""
PICTURES = os.environ.get("QGA_PICTURES", "")
"""A directory to save pictures in for the documentation, or nothing."""
NOT_OURS = ("task queue exceeded allotted deadline", "/shell/assets/", "/system/assets/")
"""What xterm.js says when the machine is busy, and fonts that Cockpit 337 has elsewhere."""
ON_LOAD = "Page.{}ScriptToEvaluateOnNewDocument"
HURRIED = "const slow = setInterval; window.setInterval = (work, time) => slow(work, time / 10);"
WIDE, NARROW = (1280, 860), (420, 860)

T = TypeVar("T")


class Page:
    """One browser with the page open, without Cockpit's menu around it.

    cockpit: its address. guest, name: of a guest, as qgactl lists it.
    """

    def __init__(
        self, browser: WebDriver, cockpit: str, guest: str = "", name: str = "web"
    ) -> None:
        self.browser = browser
        self.cockpit = cockpit
        self.guest = guest
        self.name = name
        self.url = f"{cockpit}/cockpit/@localhost/qga/index.html"

    def open_list(self) -> None:
        self._open(self.url)

    def open_guest(self, part: str = "overview") -> None:
        """Go to a part of the page of the guest, by its bookmark."""
        self._open(f"{self.url}#/{part}?{urlencode({'name': self.name, 'address': self.guest})}")

    def turn_to(self, part: str) -> None:
        """Go to a part such as `Doctor`, without loading the page again if the guest's is open."""
        if self.browser.current_url.startswith(f"{self.url}#/") and self.guest:
            self.link(part).click()
        else:
            self.open_guest(part.lower().partition(" ")[0])

    @contextmanager
    def hurried(self) -> Iterator[None]:
        """What a page that is opened meanwhile does at intervals, it does ten times as often."""
        added = self.browser.execute_cdp_cmd(ON_LOAD.format("add"), {"source": HURRIED})
        try:
            yield
        finally:
            self.browser.execute_cdp_cmd(ON_LOAD.format("remove"), added)

    def _open(self, url: str) -> None:
        self.browser.get("about:blank")  # otherwise a change after # loads nothing
        self.browser.get(url)

    def link(self, name: str) -> WebElement:
        return self.find(f"//a[normalize-space()='{name}']")

    def button(self, name: str, within: str = "") -> WebElement:
        """A button that can be pressed."""
        return self.find(f"{within}//button[not(@disabled)][normalize-space()='{name}']")

    def find(self, xpath: str) -> WebElement:
        """The first visible element; waits for it."""
        return self.wait(lambda: next(iter(self.all(xpath)), None), xpath)

    def all(self, xpath: str) -> list[WebElement]:
        return [each for each in self.browser.find_elements(By.XPATH, xpath) if each.is_displayed()]

    def text(self, xpath: str = "//main") -> str:
        return self.wait(lambda: [each.text for each in self.all(xpath)[:1]], xpath)[0]

    def fact(self, term: str) -> str:
        """What the page says about something, such as `Host name`."""
        return self.text(f"//dl/div[dt[normalize-space()='{term}']]/dd")

    def wait(self, look: Callable[[], T | None], what: str = "") -> T:
        """Wait until `look` returns something, while the page may replace its elements."""
        waiting = WebDriverWait(self.browser, PATIENCE, 0.1, [StaleElementReferenceException])
        try:
            found: T = waiting.until(lambda _: look())  # type: ignore[assignment]
            return found
        except TimeoutException:
            source = self.browser.page_source[:20_000]
            raise AssertionError(f"no {what or 'such thing'} in: {source}") from None

    def script(self, expression: str) -> Any:
        return self.browser.execute_script(f"return {expression}")

    def complaints(self) -> list[str]:
        """What the browser has complained of since it was last asked: errors, and the policy."""
        entries = self.browser.get_log("browser")  # type: ignore[no-untyped-call]
        bad = (each for each in entries if each["level"] == "SEVERE" or "/qga/" in each["message"])
        messages = (each["message"] for each in bad)
        return [each for each in messages if not any(part in each for part in NOT_OURS)]

    def resize(self, size: tuple[int, int]) -> None:
        self.browser.set_window_size(*size)

    def prefer(self, theme: str) -> None:
        """Have the system prefer a `dark` or a `light` theme."""
        feature = {"name": "prefers-color-scheme", "value": theme}
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def picture(self, name: str) -> None:
        """Save a picture for the documentation, on request."""
        if PICTURES:
            self.browser.save_screenshot(str(Path(PICTURES) / f"cockpit-{name}.png"))
