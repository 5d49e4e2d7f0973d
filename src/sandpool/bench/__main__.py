"""`python -m sandpool.bench KEY`: one benchmark, at the scale that is on standard input as JSON.

What `runner` starts.  The outcome is the last line of the output.
"""

from __future__ import annotations

import sys

from sandpool.bench.runner import run_here
from sandpool.bench.scale import Scale
from sandpool.bench.suite import find

if __name__ == "__main__":
    outcome = run_here(find(sys.argv[1]), Scale.model_validate_json(sys.stdin.read()))
    sys.stdout.write(outcome.model_dump_json() + "\n")
