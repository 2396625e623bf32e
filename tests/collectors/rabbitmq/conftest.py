from __future__ import annotations

from collections.abc import Iterator

import pytest

from servers.management import FakeManagement


@pytest.fixture
def management() -> Iterator[FakeManagement]:
    """Return a fake management API of a small and healthy broker."""
    with FakeManagement() as fake:
        yield fake
