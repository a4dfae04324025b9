"""The built book, and a browser that cannot reach any other machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
# Another built book can be looked at by naming its folder.
HTML = Path(os.environ.get("EXITWAVE_BOOK", ROOT / "_build" / "html"))
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDTHS = (1280, 390)
LOCAL = ("file:", "data:", "blob:", "about:")


def pages() -> list[str]:
    """Return the addresses of all pages in the book, without the theme's own templates."""
    found = (path.relative_to(HTML) for path in HTML.rglob("*.html"))
    return sorted(path.as_posix() for path in found if path.parts[0] not in ("_static", "_sources"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if {"address", "width"} <= set(metafunc.fixturenames):
        metafunc.parametrize("address", pages() or [pytest.param("", id="no-book")])
        metafunc.parametrize("width", WIDTHS)


@dataclass
class Tab:
    """One browser tab of a given width, and what went wrong in it since it last opened a page."""

    page: Any
    width: int
    faults: list[str] = field(default_factory=list)

    def open(self, address: str) -> None:
        if not (HTML / address).is_file():
            pytest.fail(f"no book in {HTML}: build it first (make book)", pytrace=False)
        self.page.goto("about:blank")  # what the last page still loads is not this one's fault
        self.faults.clear()
        self.page.goto((HTML / address).absolute().as_uri(), wait_until="load")
        if 'http-equiv="Refresh"' in (HTML / address).read_text(encoding="utf-8")[:1000]:
            self.page.wait_for_url(lambda url: not url.endswith(address), wait_until="load")

    def watch(self) -> None:
        def console(message: Any) -> None:
            if message.type == "error":
                self.faults.append(f"console: {message.text} {message.location.get('url', '')}")

        def route(handler: Any) -> None:
            url = handler.request.url
            if url.startswith(LOCAL):
                handler.continue_()
            else:
                self.faults.append(f"asks another machine: {url}")
                handler.abort()

        def failed(request: Any) -> None:
            if request.failure != "net::ERR_ABORTED":  # the page was left before it arrived
                self.faults.append(f"not loaded: {request.url}")

        self.page.on("console", console)
        self.page.on("pageerror", lambda error: self.faults.append(f"script: {error}"))
        self.page.on("requestfailed", failed)
        self.page.route("**/*", route)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        pytest.fail("no Chromium on the PATH: install the Debian package chromium", pytrace=False)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def tabs(browser: Any) -> Iterator[dict[int, Tab]]:
    opened = {}
    for width in WIDTHS:
        context = browser.new_context(viewport={"width": width, "height": 900}, offline=True)
        opened[width] = Tab(context.new_page(), width)
        opened[width].watch()
    yield opened
    for tab in opened.values():
        tab.page.context.close()
