"""A pool whose setup installs a package: it is there before anybody asks for a sandbox.

The package comes from a directory of wheels that the definition carries in, so no network is
needed, and none is there.  To have more of them, fill the directory with `pip download`.
"""

import asyncio
import io
from zipfile import ZipFile

from sandpool import LocalSandboxManager, PoolDegraded, PoolSpec
from sandpool.models import Base64Data

WHEEL = "greeting-1.0-py3-none-any.whl"
CONTENT = {
    "greeting.py": "def greet(name):\n    return f'hello, {name}'\n",
    "greeting-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n",
    "greeting-1.0.dist-info/WHEEL": (
        "Wheel-Version: 1.0\nGenerator: by hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    ),
}


def build_wheel() -> bytes:
    """Return a package as the tools that make packages would build it."""
    buffer = io.BytesIO()
    with ZipFile(buffer, "w") as archive:
        for path, text in CONTENT.items():
            archive.writestr(path, text)
        record = "greeting-1.0.dist-info/RECORD"
        archive.writestr(record, "".join(f"{path},,\n" for path in (*CONTENT, record)))
    return buffer.getvalue()


def pool(name: str, package: str) -> PoolSpec:
    """Return the definition of a pool whose sandboxes have a package."""
    return PoolSpec(
        name=name,
        files={f"index/{WHEEL}": Base64Data.of(build_wheel())},
        setup=(f"python3 -m pip install --no-index --find-links index --target lib {package}",),
        # Where Python looks for what was installed there.
        env={"PYTHONPATH": "/sandbox/lib"},
        warm=1,
        max=1,
        create_retries=0,
    )


CODE = """
from importlib.metadata import version
from greeting import greet
print(greet("world"), version("greeting"))
"""


async def main() -> None:
    """Use the package, and show what becomes of a pool whose package is not there."""
    async with LocalSandboxManager() as manager:
        await manager.create_pool(pool("greeters", "greeting"))
        sandbox = await manager.claim("greeters")
        print((await sandbox.run_code(CODE)).stdout.strip())
        await manager.create_pool(pool("others", "farewell"))
        try:
            await manager.claim("others")
        except PoolDegraded as error:
            print(str(error).strip().splitlines()[-1])


if __name__ == "__main__":
    asyncio.run(main())
