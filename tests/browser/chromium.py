"""A real browser: Chromium as the distribution has it, driven by Playwright."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import BrowserContext, Page, async_playwright

from tests import capabilities

_FLAGS = (
    "--headless",
    "--no-first-run",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Its own sandbox is not what is tested, and root has none.
    "--no-sandbox",
)
_START = 60_000
"""Milliseconds in which it has to start."""


@asynccontextmanager
async def browsing(home: Path) -> AsyncIterator[BrowserContext]:
    """Run a browser that keeps its things below `home`; its tabs share one jar of cookies."""
    program = capabilities.find_browser()
    assert program is not None
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=program,
            args=_FLAGS,
            env={**os.environ, "HOME": str(home)},
            downloads_path=home,
            timeout=_START,
        )
        async with browser, await browser.new_context() as context:
            yield context


async def open_page(context: BrowserContext, url: str) -> Page:
    """Return a new tab, when its page has loaded."""
    page = await context.new_page()
    await page.goto(url)
    return page


async def run(page: Page, script: str) -> Any:
    """Return what the body of an asynchronous function returns in the page."""
    return await page.evaluate(f"async () => {{ {script} }}")
