"""A pool of web servers: each is up and healthy before anybody asks, and is claimed by its URL.

A sandbox lives for five minutes.  Whoever claims one needs it for two, so one that has less left is
replaced ahead of time and is never handed out.
"""

import asyncio
from urllib.request import urlopen

from sandpool import HealthCheck, LocalSandboxManager, PoolSpec
from sandpool.deployment import deploy

WEB = PoolSpec(
    name="web",
    files={"hello.txt": "hello\n", "notes/today.txt": "warm\n"},
    entrypoint=("python3", "-m", "http.server", "8080"),
    ports=(8080,),
    health_check=HealthCheck(kind="http", timeout=10),
    lifetime=5 * 60,
    min_remaining=2 * 60,
    warm=3,
)


async def check(manager: LocalSandboxManager) -> None:
    """Show what is in the pool, taking nothing."""
    entries = await manager.check_pool(WEB.name, check_health=True)
    healthy = sum(entry.healthy is True for entry in entries)
    print(f"{len(entries)} in the pool, {healthy} healthy")


def get(url: str) -> list[str]:
    """Call a server, as any client may, and return the names in the directory that it lists."""
    with urlopen(url) as answer:  # noqa: S310 (an address of our own)
        lines = answer.read().decode().splitlines()
    return [line.split('"')[1] for line in lines if line.startswith("<li>")]


async def main() -> None:
    """Deploy, check, claim twice; the pool is full again after each."""
    async with LocalSandboxManager() as manager:
        await deploy(manager, WEB)
        await check(manager)
        claimed: list[str] = []
        for _ in range(2):
            sandbox = await manager.claim(WEB.name)
            url = await sandbox.url(8080)
            claimed.append(url)
            print(await asyncio.to_thread(get, url))
            print("time enough:", (sandbox.remaining or 0) >= WEB.min_remaining)
            await manager.wait_pool_warm(WEB.name)
            await check(manager)
        print("two servers:", len(set(claimed)) == 2)


if __name__ == "__main__":
    asyncio.run(main())
