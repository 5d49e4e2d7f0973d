"""What every test shares: the event loops, hypothesis' profiles, and what a host must have."""

from __future__ import annotations

import gc
import importlib.util
import os
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from hypothesis import settings

from sandpool.backends.native import NativeBackend
from sandpool.config import IMAGE_STORE
from sandpool.manager.backends import BackendFactory
from tests import capabilities
from tests.tenancy import Tenancy

# Deadlines would measure the machine's other work, not ours.
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, database=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

Loop = tuple[str, dict[str, Any]]
ASYNCIO: Loop = ("asyncio", {"use_uvloop": False})
UVLOOP: Loop = ("asyncio", {"use_uvloop": True})


def pytest_configure(config: pytest.Config) -> None:
    """Refuse a misspelt requirement at once: it would require nothing."""
    try:
        capabilities.required()
    except ValueError as error:
        raise pytest.UsageError(str(error)) from error


def pytest_collection_finish() -> None:
    """Spare later garbage collections what lasts to the end: modules, and thousands of tests.

    Many tests collect garbage, to count what is left; each time took half a second.
    """
    gc.collect()
    gc.freeze()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test marked `uvloop` on both loops; all the others run on asyncio's, to save time."""
    if "anyio_backend" not in metafunc.fixturenames:
        return
    if metafunc.definition.get_closest_marker("uvloop") and importlib.util.find_spec("uvloop"):
        loops = [ASYNCIO, UVLOOP]
        metafunc.parametrize("anyio_backend", loops, indirect=True, ids=["asyncio", "uvloop"])


@pytest.fixture(autouse=True, scope="session")
def _image_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep every test, and the programs that it starts, off the images of whoever runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(IMAGE_STORE, str(tmp_path_factory.getbasetemp() / "images"))
        yield


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> Loop:
    """Choose the event loop for anyio's pytest plugin."""
    loop: Loop = getattr(request, "param", ASYNCIO)
    return loop


@pytest.fixture(scope="session")
def templates() -> Iterator[NativeBackend]:
    """One backend for the whole run, whose templates outlive the loops that they are used on."""
    backend = NativeBackend()
    yield backend
    anyio.run(backend.aclose)


@pytest.fixture
def native_backend(templates: NativeBackend) -> BackendFactory:
    """Make backends of real sandboxes, whose templates run already."""
    return lambda: Tenancy(templates)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this host cannot run; fail it where the run was promised a host that can."""
    for marker, capability in capabilities.BY_MARKER.items():
        if item.get_closest_marker(marker) is None:
            continue
        missing = capability.missing()
        if missing is None:
            continue
        if capability.name in capabilities.required():
            pytest.fail(f"{capabilities.VARIABLE} promises {capability.name}: {missing}", False)
        pytest.skip(f"this host lacks {capability.name}: {missing}")
