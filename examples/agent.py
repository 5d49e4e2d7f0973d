"""An agent's loop: the model is told of tools, asks for calls, and is given what they answer.

Requests and messages have the form of OpenAI's chat completions, which most models are served by:
`complete` stands for the call to one, and is the only thing to replace.
"""

import asyncio
import json
from typing import Any

from sandpool import LocalSandboxManager, NativeSandboxConfig, SandboxType

Message = dict[str, Any]

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
"""What the model asks for, one call after the other."""


def complete(messages: list[Message], tools: list[dict[str, Any]]) -> Message:
    """Stand in for a model: return its next message."""
    known = {tool["function"]["name"] for tool in tools if tool["type"] == "function"}
    turn = sum(message["role"] == "assistant" for message in messages)
    if turn == len(SCRIPT):
        return {"role": "assistant", "content": f"It is {messages[-1]['content']}."}
    name, arguments = SCRIPT[turn]
    assert name in known
    # Models write their arguments as text, and sometimes not as JSON.
    function = {"name": name, "arguments": json.dumps(arguments)}
    call = {"id": f"call-{turn}", "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


async def answer(manager: LocalSandboxManager, sandbox_id: str, call: dict[str, Any]) -> Message:
    """Do what the model asks for; what it did wrong is told to it, as it can mend that."""
    name, text = call["function"]["name"], call["function"]["arguments"]
    try:
        result = await manager.execute_tool(sandbox_id, name, json.loads(text))
    except json.JSONDecodeError as error:
        return {"role": "tool", "tool_call_id": call["id"], "content": f"not JSON: {error}"}
    said = str(result.error or result.output).strip()
    print(f"{name}: {result.status.value}: {said.splitlines()[-1] if said else ''}")
    return {"role": "tool", "tool_call_id": call["id"], "content": said}


async def main() -> None:
    """Let the model work until it has nothing more to ask for."""
    async with LocalSandboxManager() as manager:
        config = NativeSandboxConfig(tools_config=TOOLS)
        sandbox_id = await manager.create_sandbox(SandboxType.NATIVE, config)
        tools = list((await manager.get_sandbox_tools(sandbox_id)).values())
        messages: list[Message] = [{"role": "user", "content": "Multiply the numbers in n.txt."}]
        while calls := (message := complete(messages, tools)).get("tool_calls"):
            messages.append(message)
            messages += [await answer(manager, sandbox_id, call) for call in calls]
        print(message["content"])


if __name__ == "__main__":
    asyncio.run(main())
