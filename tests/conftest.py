from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_dir(repository: Path) -> Path:
    """The reference material that may lie beside the checkout; tests skip where it is absent."""
    folder = repository.parent / "shared"
    if not folder.is_dir():
        pytest.skip("reference material is not beside this checkout")
    return folder
