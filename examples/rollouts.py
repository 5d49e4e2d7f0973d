"""Rewards for a trainer: what a policy wrote runs at once, many at a time, each in a fresh sandbox.

A fault of the infrastructure is no reward: such a sample is left out, so that the policy does not
learn from it.
"""

import asyncio

from sandpool import LocalSandboxManager, PoolSpec, SandpoolError

PROMPTS = 40
MASKED = None


def policy(prompt: int) -> str:
    """Stand in for a model: every fourth program is wrong."""
    return f"print({prompt} * {prompt})" if prompt % 4 else f"print({prompt} * 2 + 1)"


async def reward(manager: LocalSandboxManager, prompt: int) -> float | None:
    """Return what one program earns; None if nobody can say."""
    try:
        async with manager.lease("rl", timeout=30) as sandbox:
            result = await sandbox.run_code(policy(prompt), timeout=5, max_output=10_000)
    except SandpoolError as error:
        if error.blame == "infrastructure":
            return MASKED
        raise
    return float(result.ok and result.stdout == f"{prompt * prompt}\n")


async def main() -> None:
    """Score a batch."""
    async with LocalSandboxManager() as manager:
        await manager.create_pool(PoolSpec(name="rl", warm=4, max=8))
        rewards = await asyncio.gather(*(reward(manager, prompt) for prompt in range(PROMPTS)))
    scored = [one for one in rewards if one is not MASKED]
    print(f"{len(scored)} scored, mean reward {sum(scored) / len(scored):.2f}")


if __name__ == "__main__":
    asyncio.run(main())
