"""Programs of tenants that use as much of something as they get, and print how much that was."""

from __future__ import annotations

HOARD = "x = bytearray({} << 20); print(len(x) >> 20)"
"""MiB of memory, to be formatted with how many it wants."""
FORK = """
import os
made = 0
try:
    while made < 100:
        if os.fork() == 0:
            import time; time.sleep(60)
        made += 1
except OSError:
    pass
print(made)
"""
"""Processes."""
FILL = """
written = 0
try:
    with open('/tmp/fill', 'wb', buffering=0) as file:
        while written < 64 << 20: written += file.write(bytes(1 << 20))
except OSError:
    pass
print(written >> 20)
"""
"""MiB of one file."""
LITTER = """
made = 0
try:
    while made < 2000:
        open(f'/tmp/{made}', 'w').close()
        made += 1
except OSError as error:
    assert error.errno == 28, error
print(made)
"""
"""Files."""
OPEN = """
import os
last = -1
try:
    while last < 2000: last = os.open('/dev/null', 0)
except OSError as error:
    assert error.errno == 24, error
print(last + 1)
"""
"""One more than the highest descriptor."""
