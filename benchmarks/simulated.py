"""Simulates pools of up to 100,000 sandboxes; prints the tables of docs/benchmarks/simulated.md.

python benchmarks/simulated.py                     all of it, ten minutes
python benchmarks/simulated.py --most 10000        smaller, a few minutes
python benchmarks/simulated.py --json              plain results instead of tables
python benchmarks/simulated.py --into docs/benchmarks/simulated.md
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from sandpool.testing import scaling

BEGIN, END = "<!-- figures -->\n", "<!-- end of figures -->\n"


@dataclass(frozen=True)
class Report:
    """What was found."""

    growth: list[scaling.Growth]
    memory: list[scaling.Memory]
    misses: list[scaling.Misses]
    burst: list[scaling.BurstWait]


def measure(most: int, say: Callable[[str], None]) -> Report:
    """Run everything, with pools of up to `most` sandboxes."""
    sizes = [size for size in (100, 1_000, 10_000, 100_000) if size <= most]
    growth: list[scaling.Growth] = []
    missed = scaling.misses(300.0)
    for lifetime in (None, 60.0):
        for size in sizes:
            say(f"{size} sandboxes, lifetime {lifetime}")
            leases = 20_000 if size < 100_000 else 40_000
            found, _ = scaling.growth(size, leases=leases, warm_up=4.0, lifetime=lifetime)
            growth.append(found)
    say(f"{most} sandboxes in {most // scaling.PER_NODE} pools")
    found, by_node = scaling.growth(
        most, leases=40_000, warm_up=4.0, pools=most // scaling.PER_NODE
    )
    growth.append(found)
    missed.append(by_node)
    memory = []
    for size in sizes[1:]:
        say(f"memory of {size}")
        memory.append(scaling.memory(size))
    return Report(growth, memory, missed, scaling.burst(100, 32, 545.0, 2))


def tables(report: Report) -> str:
    """Return the report as Markdown."""
    parts = [
        f"Made on Linux {platform.release()}, Python {platform.python_version()}.\n",
        "**What a lease costs** (measured: processor time)\n",
        _table(
            ("sandboxes", "pools", "lifetime", "leases", "µs a lease", "of it planning", "plans"),
            (
                (
                    f"{row.sandboxes:,}",
                    f"{row.pools:,}",
                    "60 s" if row.has_lifetime else "none",
                    f"{row.leases:,}",
                    f"{row.cpu_us:.0f}",
                    f"{row.planning_us:.0f}",
                    f"{row.plans:.1f}",
                )
                for row in report.growth
            ),
        ),
        "**What an idle item takes in the pool's process** (measured: memory of Python's)\n",
        _table(
            ("sandboxes", "bytes each"),
            ((f"{row.sandboxes:,}", f"{row.bytes_each:,.0f}") for row in report.memory),
        ),
        "**Callers that found nothing ready** (simulated)\n",
        _table(
            ("arrivals", "callers", "stock", "theory", "simulated"),
            (
                (
                    row.arrivals,
                    f"{row.callers:,}",
                    str(row.stock),
                    f"{row.theory:.2%}",
                    f"{row.simulated:.2%}",
                )
                for row in report.misses
            ),
        ),
        "**A burst of 100 on a stock of 32, two builders, 545 made a second** (simulated)\n",
        _table(
            ("caller", "theory", "simulated"),
            (
                (f"{row.place}.", f"{row.theory * 1e3:.1f} ms", f"{row.simulated * 1e3:.1f} ms")
                for row in report.burst
                if row.place in (33, 50, 75, 100)
            ),
        ),
    ]
    return "\n".join(parts)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description="Simulate large pools.")
    parser.add_argument("--most", type=int, default=100_000, choices=(1_000, 10_000, 100_000))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--into", type=Path, help="the page whose figures are to be replaced")
    options = parser.parse_args()
    report = measure(options.most, lambda line: sys.stderr.write(line + "\n") and None)
    text = tables(report)
    if options.into is not None:
        page = options.into.read_text(encoding="utf-8")
        before, rest = page.split(BEGIN)
        _, after = rest.split(END)
        options.into.write_text(before + BEGIN + text + END + after, encoding="utf-8")
    sys.stdout.write(json.dumps(asdict(report), indent=1) + "\n" if options.json else text)


if __name__ == "__main__":
    main()
