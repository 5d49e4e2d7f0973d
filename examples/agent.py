"""An agent's loop: the model is told of tools, asks for calls, and is given what they answer."""

import asyncio
import json
from typing import Any

from sandpool import LocalSandboxManager, NativeSandboxConfig, SandboxType

TOOLS: dict[str, dict[str, Any]] = {
    "python_executor": {"timeout": 10},
    "file_operation": {"allowed_paths": ["/sandbox"]},
}

SCRIPT = [
    ("file_operation", {"operation": "write", "file_path": "/sandbox/n.txt", "content": "6 7"}),
    ("python_executor", {"code": "a, b = open('/sandbox/n.txt').read().split()\nprint(a * b)"}),
    (
        "python_executor",
        {"code": "a, b = map(int, open('/sandbox/n.txt').read().split())\nprint(a * b)"},
    ),
]
"""What the model would ask for, one call after the other."""


def model(schemas: dict[str, Any], transcript: list[str]) -> tuple[str, str] | None:
    """Stand in for a model: return a call, its arguments as JSON, or None when it is done."""
    assert set(schemas) == set(TOOLS)
    if len(transcript) == len(SCRIPT):
        return None
    name, arguments = SCRIPT[len(transcript)]
    return name, json.dumps(arguments)


async def main() -> None:
    """Let the model work until it is done."""
    async with LocalSandboxManager() as manager:
        config = NativeSandboxConfig(tools_config=TOOLS)
        sandbox_id = await manager.create_sandbox(SandboxType.NATIVE, config)
        schemas = await manager.get_sandbox_tools(sandbox_id)
        transcript: list[str] = []
        while (call := model(schemas, transcript)) is not None:
            name, arguments = call
            result = await manager.execute_tool(sandbox_id, name, json.loads(arguments))
            said = str(result.error or result.output).strip().splitlines()
            transcript.append(f"{name}: {result.status.value}: {said[-1] if said else ''}")
            print(transcript[-1])


if __name__ == "__main__":
    asyncio.run(main())
