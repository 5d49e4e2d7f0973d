"""A real browser, driven over its own protocol: Chromium as the distribution has it."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from tests import capabilities

_FLAGS = (
    "--headless=new",
    "--remote-debugging-port=0",
    "--no-first-run",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Its own sandbox is not what is tested, and root has none.
    "--no-sandbox",
)


class Page:
    """One tab."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session

    async def run(self, script: str) -> Any:
        """Return what the body of an asynchronous function returns in the page."""
        answer = await self._browser.call(
            "Runtime.evaluate",
            {
                "expression": f"(async () => {{ {script} }})()",
                "awaitPromise": True,
                "returnByValue": True,
                "userGesture": True,
            },
            self._session,
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")


class Browser:
    """A running browser."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._events: list[dict[str, Any]] = []
        self._heard = asyncio.Event()

    async def call(
        self, method: str, parameters: dict[str, Any] | None = None, session: str | None = None
    ) -> dict[str, Any]:
        """Call a method of the browser's protocol."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters or {}}
        if session is not None:
            message["sessionId"] = session
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        await self._socket.send(json.dumps(message))
        return await answer

    async def event(self, method: str, session: str | None = None, **fields: str) -> dict[str, Any]:
        """Wait for an event that has these fields, or return one that has come before."""
        while True:
            for event in self._events:
                if event["method"] != method or event.get("sessionId") != session:
                    continue
                found: dict[str, Any] = event["params"]
                if fields.items() <= found.items():
                    return found
            self._heard.clear()
            await self._heard.wait()

    async def open(self, url: str) -> Page:
        """Return a new tab, when its page has loaded."""
        target = (await self.call("Target.createTarget", {"url": "about:blank"}))["targetId"]
        attached = await self.call("Target.attachToTarget", {"targetId": target, "flatten": True})
        session: str = attached["sessionId"]
        await self.call("Page.enable", session=session)
        await self.call("Page.navigate", {"url": url}, session)
        await self.event("Page.loadEventFired", session)
        return Page(self, session)

    async def listen(self) -> None:
        """Take what the browser says until it ends."""
        async for message in self._socket:
            told = json.loads(message)
            answer = self._answers.pop(told.get("id"), None)
            if answer is None:
                self._events.append(told)
                self._heard.set()
            elif "error" in told:
                answer.set_exception(RuntimeError(told["error"]["message"]))
            else:
                answer.set_result(told["result"])


@asynccontextmanager
async def browsing(home: Path) -> AsyncIterator[Browser]:
    """Run a browser that keeps its things, and its downloads, below `home`."""
    program = capabilities.find_browser()
    assert program is not None
    process = await asyncio.create_subprocess_exec(
        program,
        *_FLAGS,
        f"--user-data-dir={home / 'profile'}",
        env={**os.environ, "HOME": str(home)},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with connect(await _address(process), max_size=None) as socket:
            browser = Browser(socket)
            listening = asyncio.create_task(browser.listen())
            try:
                await browser.call(
                    "Browser.setDownloadBehavior",
                    {
                        "behavior": "allow",
                        "downloadPath": str(home / "downloads"),
                        "eventsEnabled": True,
                    },
                )
                yield browser
            finally:
                listening.cancel()
    finally:
        # Cancel: its many processes are one group.
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def _address(process: asyncio.subprocess.Process) -> str:
    """Return where the browser listens, which is the one thing that it says on standard error."""
    assert process.stderr is not None
    async for line in process.stderr:
        before, found, address = line.decode().strip().partition("DevTools listening on ")
        if found and not before:
            return address
    raise RuntimeError("the browser did not start")
