"""`signal.signal` without the enumerations around it, which cost each new process twenty pages."""

from __future__ import annotations

import importlib
import signal
from typing import Any

handle: Any = importlib.import_module("_signal").signal
"""Set what a signal does: a function, `DEFAULT` or `IGNORE`."""

DEFAULT = int(signal.SIG_DFL)
IGNORE = int(signal.SIG_IGN)
SIGCHLD, SIGHUP, SIGINT, SIGTERM = map(
    int, (signal.SIGCHLD, signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
)
