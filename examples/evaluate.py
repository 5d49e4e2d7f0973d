"""Grade answers of a model: each runs against its tests in a fresh sandbox of its own."""

import asyncio
from dataclasses import dataclass

from sandpool import LocalSandboxManager, PoolSpec


@dataclass(frozen=True)
class Task:
    """One problem, an answer to it, and what the answer has to pass."""

    name: str
    answer: str
    tests: str


TASKS = [
    Task("right", "def double(x):\n    return 2 * x", "assert double(21) == 42"),
    Task("wrong", "def double(x):\n    return x + 2", "assert double(21) == 42"),
    Task("endless", "def double(x):\n    while True: pass", "assert double(21) == 42"),
    Task("greedy", "def double(x):\n    return ' ' * (1 << 40)", "assert double(21) == 42"),
    Task("broken", "def double(x)\n    return 2 * x", "assert double(21) == 42"),
]


async def grade(manager: LocalSandboxManager, task: Task) -> str:
    """Return how one answer did."""
    async with manager.lease("grading") as sandbox:
        result = await sandbox.run_code(f"{task.answer}\n{task.tests}", timeout=2)
    if result.ok:
        return "passed"
    if result.timed_out:
        return "took too long"
    return result.stderr.strip().splitlines()[-1].partition(":")[0] if result.stderr else "killed"


async def main() -> None:
    """Grade all of them at the same time."""
    async with LocalSandboxManager() as manager:
        await manager.create_pool(PoolSpec(name="grading", warm=2, max=4, memory_mb=128))
        grades = await asyncio.gather(*(grade(manager, task) for task in TASKS))
    for task, given in zip(TASKS, grades, strict=True):
        print(f"{task.name:8} {given}")


if __name__ == "__main__":
    asyncio.run(main())
