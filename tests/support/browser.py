"""A real Chromium for tests: the distribution's, headless, driven by playwright.

``CALLMETER_CHROMIUM`` names another one. ``CALLMETER_REQUIRE_BROWSER=1`` turns "there is none" into
a failure, so that CI never passes by skipping.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Dialog,
    Page,
    Request,
    expect,
    sync_playwright,
)

_NAMES = ("chromium", "chromium-browser", "google-chrome")
#: Generous: two cores are shared by everything that CI does.
PATIENCE_MS = 60_000.0
expect.set_options(timeout=PATIENCE_MS)


def chromium_path() -> str | None:
    """Where a Chromium is, None without one."""
    told = os.environ.get("CALLMETER_CHROMIUM")
    if told:
        return told
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser a module: playwright keeps an event loop in this thread while it runs."""
    path = chromium_path()
    if path is None:
        if os.environ.get("CALLMETER_REQUIRE_BROWSER", "") not in ("", "0"):
            pytest.fail("CALLMETER_REQUIRE_BROWSER is set and there is no Chromium")
        pytest.skip("needs a Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        # No sandbox: containers rarely allow one, and only pages of this repository are opened.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Watched:
    """What a page did beside what it showed."""

    host: str
    errors: list[str] = field(default_factory=list)
    abroad: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)

    def assert_quiet(self) -> None:
        """No error on the console, no request to another host, nothing that a script popped up."""
        assert self.errors == []
        assert self.abroad == []
        assert self.dialogs == []


@contextmanager
def watched_page(
    browser: Browser, url: str, *, dark: bool = False
) -> Iterator[tuple[Page, Watched]]:
    """A page in a context of its own; at the end it must have been quiet."""
    context = browser.new_context(
        base_url=url,
        viewport={"width": 1360, "height": 900},
        color_scheme="dark" if dark else "light",
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    watched = Watched(urlsplit(url).netloc)

    def console(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            watched.errors.append(f"{message.type}: {message.text}")

    def requested(request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob") and parts.netloc != watched.host:
            watched.abroad.append(request.url)

    page.on("console", console)
    page.on("pageerror", lambda error: watched.errors.append(f"page error: {error}"))
    page.on("request", requested)

    def popped(dialog: Dialog) -> None:
        watched.dialogs.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", popped)
    try:
        yield page, watched
        watched.assert_quiet()
    finally:
        context.close()
