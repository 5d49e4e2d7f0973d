"""An example of each body that a native call takes, for the server's description of itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from sandpool.models import PoolSpec
from sandpool.wire.contexts import Cell, NewContext
from sandpool.wire.files import Move, NewDirectory
from sandpool.wire.requests import (
    ClaimRequest,
    Extension,
    InitializePool,
    LeaseRequest,
    NewSandbox,
    PooledToolCall,
    ToolCall,
)
from sandpool.wire.runs import CodeRun, CommandRun

EXAMPLES: Mapping[type[BaseModel], Mapping[str, Any]] = {
    PoolSpec: {
        "name": "web",
        "files": {"index.html": "hello\n"},
        "entrypoint": ["python3", "-m", "http.server", "8080"],
        "ports": [8080],
        "health_check": {"kind": "http", "path": "/index.html"},
        "warm": 3,
        "lifetime": 300,
        "min_remaining": 120,
    },
    ClaimRequest: {"timeout": 30, "min_remaining": 120, "env": {"TENANT": "ann"}},
    LeaseRequest: {"timeout": 30, "keep_alive": 60, "limits": {"memory_mb": 256}},
    InitializePool: {
        "pool_size": 2,
        "type": "native",
        "config": {"tools_config": {"python_executor": {}}},
    },
    PooledToolCall: {"parameters": {"code": "print(6 * 7)"}, "timeout": 30},
    NewSandbox: {
        "type": "native",
        "config": {"image": "host", "tools_config": {"python_executor": {}}},
    },
    Extension: {"lifetime": 600},
    ToolCall: {"parameters": {"code": "print(6 * 7)"}},
    CodeRun: {"code": "import sys; print(sys.stdin.read())", "stdin": "hello", "timeout": 10},
    CommandRun: {"command": ["ls", "-l"], "cwd": "results", "timeout": 10},
    NewDirectory: {"path": "results/today"},
    Move: {"source": "draft.txt", "target": "results/final.txt"},
    NewContext: {"env": {"MPLBACKEND": "agg"}},
    Cell: {"code": "x = 6 * 7\nx", "timeout": 10},
}


def add_examples(document: dict[str, Any]) -> dict[str, Any]:
    """Return an OpenAPI document, with the examples where the bodies are described."""
    schemas: dict[str, Any] = document["components"]["schemas"]
    for model, example in EXAMPLES.items():
        schemas[model.__name__]["examples"] = [example]
    return document
