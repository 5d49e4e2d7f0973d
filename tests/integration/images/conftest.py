"""A store for each test, and a registry on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sandpool.images import ImageStore
from tests import registries


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "store")


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    with registries.running(tmp_path) as address:
        yield address
