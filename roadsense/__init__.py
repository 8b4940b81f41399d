"""Convoy driving on what other cars tell you by radio: a Gymnasium library.

``import roadsense`` registers ``roadsense/Convoy-v0`` and its alias ``Convoy-v0``; everything heavy
(numba, libsumo, torch) is imported when it is first used.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import gymnasium as gym

try:
    __version__ = version("roadsense")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+unknown"

for _env_id in ("roadsense/Convoy-v0", "Convoy-v0"):
    if _env_id not in gym.registry:
        gym.register(
            id=_env_id,
            entry_point="roadsense.convoy.env:ConvoyEnv",
            vector_entry_point="roadsense.convoy.vector:ConvoyVectorEnv",
        )

__all__ = ["__version__"]
