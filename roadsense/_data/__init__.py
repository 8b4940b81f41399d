"""Where the shipped base scenarios and parameter files lie on disk.

``setup.cfg`` maps the top-level folders ``scenarios/`` and ``params/`` to packages below this one. An installed wheel
(an sdist becomes one) has them here; a source tree, editable install included, has them beside ``roadsense/``.
"""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).resolve().parent


def _shipped(name: str) -> Path:
    candidates = (_HERE / name, _HERE.parents[1] / name)
    for folder in candidates:
        if (folder / "__init__.py").is_file():
            return folder
    tried = " and ".join(map(str, candidates))
    raise FileNotFoundError(f"roadsense's folder {name!r} is missing (looked for {tried}): install roadsense again.")


def scenarios_dir() -> Path:
    """The folder whose ``base/`` holds one directory per base scenario."""
    return _shipped("scenarios")


def params_dir() -> Path:
    """The folder of parameter files: ``espnow/*.json`` and, by topic, YAML configs."""
    return _shipped("params")
