from __future__ import annotations

from collections.abc import Iterator

import pytest

from .metadata import MetadataServer


@pytest.fixture
def metadata() -> Iterator[MetadataServer]:
    """A metadata service without a notice."""
    server = MetadataServer()
    yield server
    server.stop()
