"""Headless Chromium, driven by Playwright, where the machine has one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def browser_page(**options: Any) -> Iterator[Any]:
    """A page that can reach no network; its errors fail the test.

    Args:
        options: Of Playwright's `new_context`: `viewport`, `color_scheme`.
    """
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no Chromium here; install Debian's package chromium")
    from playwright.sync_api import sync_playwright

    quiet = ["--no-sandbox", "--disable-quic", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=quiet)
        context = browser.new_context(offline=True, **options)
        page = context.new_page()
        errors: list[str] = []
        asked: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: asked.append(request.url))
        yield page
        assert not errors, errors
        assert all(url.startswith(("file:", "data:")) for url in asked), asked
        browser.close()


def opened(page: Any, file: Path) -> Any:
    page.goto(file.as_uri())
    return page
