"""A code interpreter: cells share their state, and show values as a notebook does."""

import asyncio

from sandpool import LocalSandboxManager, PoolSpec

CELLS = [
    "import statistics\ndata = [3, 1, 4, 1, 5, 9, 2, 6]",
    "statistics.mean(data)",
    "print('sorted:', sorted(data))\nmax(data)",
    "data / 2",
    "len(data)",
]


async def main() -> None:
    """Run the cells and show what a user would see."""
    async with LocalSandboxManager() as manager:
        await manager.create_pool(PoolSpec(name="cells", warm=1, max=2))
        async with manager.lease("cells") as sandbox:
            context = await sandbox.contexts.open()
            for cell in CELLS:
                outcome = await context.run(cell, timeout=5)
                print(f"[{outcome.count}]", outcome.stdout.strip() or "-", end=" | ")
                if outcome.error is not None:
                    print(outcome.error.name, outcome.error.value)
                else:
                    print(outcome.result)


if __name__ == "__main__":
    asyncio.run(main())
