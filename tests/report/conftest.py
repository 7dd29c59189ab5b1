"""A real headless Chromium for pages: the system's, or Playwright's own. No browser, no such tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest


@dataclass
class Watched:
    """A page with all that it said and asked for."""

    page: Any
    said: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    @property
    def foreign(self) -> list[str]:
        """Requests for anything but the page's own file and what is made of it."""
        return [url for url in self.requests[1:] if not url.startswith(("blob:", "data:"))]


def chromium_path() -> str | None:
    named = os.environ.get("TR0N_BENCH_CHROMIUM")
    return (
        named or shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    )


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=chromium_path(), args=["--no-sandbox"])
        except sync_api.Error as error:
            pytest.skip(
                f"no browser: {str(error).splitlines()[0]}. Install chromium, or set TR0N_BENCH_CHROMIUM"
            )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def open_page(chromium: Any) -> Iterator[Callable[..., Watched]]:
    """Opens a file with the network refused, and notes console messages, errors and requests."""
    contexts = []

    def open_it(path: Path, *, dark: bool = False, width: int = 1200) -> Watched:
        context = chromium.new_context(
            color_scheme="dark" if dark else "light", viewport={"width": width, "height": 900}, offline=True
        )
        contexts.append(context)
        watched = Watched(context.new_page())
        watched.page.on("console", lambda message: watched.said.append(message.text))
        watched.page.on("pageerror", lambda error: watched.said.append(str(error)))
        watched.page.on("dialog", lambda dialog: (watched.said.append("dialog"), dialog.dismiss()))
        watched.page.on("request", lambda request: watched.requests.append(request.url))
        watched.page.goto(path.resolve().as_uri(), wait_until="load")
        return watched

    yield open_it
    for context in contexts:
        context.close()
