"""A service that is slow to start: a kernel behind HTTP that keeps what its cells define.

It takes two seconds to load, as those that import half a data scientist's library do.  The pool has
that behind it before the first client comes: the pool looks at `/status` until it is answered, and
a claim is given a kernel that is up.
"""

import asyncio
import json
from typing import Any
from urllib.request import urlopen

from sandpool import HealthCheck, LocalSandboxManager, PoolSpec
from sandpool.deployment import deploy

PORT = 8888

KERNEL = f"""
import contextlib, io, json, time, traceback
from http.server import BaseHTTPRequestHandler, HTTPServer

state = {{}}
count = 0


def run(code):
    global count
    count += 1
    out = io.StringIO()
    error = None
    with contextlib.redirect_stdout(out):
        try:
            exec(compile(code, f"<cell {{count}}>", "exec"), state)
        except Exception as caught:
            error = traceback.format_exception_only(caught)[-1].strip()
    return {{"count": count, "stdout": out.getvalue(), "error": error}}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(200 if self.path == "/status" else 404, {{"cells": count}})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(200, run(json.loads(body)["code"]))

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


time.sleep(2)  # stands for what takes so long to import
HTTPServer(("127.0.0.1", {PORT}), Handler).serve_forever()
"""

KERNELS = PoolSpec(
    name="kernels",
    files={"kernel.py": KERNEL},
    entrypoint=("python3", "kernel.py"),
    ports=(PORT,),
    health_check=HealthCheck(kind="http", path="/status", start_timeout=60),
    lifetime=3600,
    min_remaining=600,
    warm=2,
)

CELLS = ["x = 20", "x += 22\nprint(x)", "x / 0", "print('still', x)"]


def run_cell(url: str, code: str) -> dict[str, Any]:
    """Have a kernel run a cell, and return what came of it."""
    body = json.dumps({"code": code}).encode()
    with urlopen(f"{url}cells", body) as answer:  # noqa: S310 (an address of our own)
        found: dict[str, Any] = json.load(answer)
    return found


async def main() -> None:
    """Claim two kernels, and run cells in both of them."""
    async with LocalSandboxManager() as manager:
        await deploy(manager, KERNELS)
        first, second = [await manager.claim("kernels") for _ in range(2)]
        info = await manager.get_pool("kernels")
        print(f"claimed {info.hits} that were up, waited for {info.misses}")
        url = await first.url(PORT)
        for code in CELLS:
            cell = await asyncio.to_thread(run_cell, url, code)
            print(f"[{cell['count']}] {cell['error'] or cell['stdout'].strip() or '-'}")
        cell = await asyncio.to_thread(run_cell, await second.url(PORT), "print(x)")
        print(f"[{cell['count']}] {cell['error']}")


if __name__ == "__main__":
    asyncio.run(main())
