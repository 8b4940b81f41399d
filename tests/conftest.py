"""What all tests share: a missing engine skips for users and fails where it has to be there."""

from __future__ import annotations

import os

import pytest


def _missing(reason: str) -> None:
    if os.environ.get("ROADSENSE_REQUIRE_SUMO") == "1":
        pytest.fail(f"{reason}, and ROADSENSE_REQUIRE_SUMO=1 asks for it", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def require_sumo() -> None:
    """For tests that run SUMO: ``pytestmark = pytest.mark.usefixtures("require_sumo")``, or asked for by a fixture."""
    try:
        import libsumo  # noqa: F401
    except ImportError as error:
        _missing(f"libsumo cannot be imported ({error})")
