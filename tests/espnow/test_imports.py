"""The radio stands alone: it knows nothing of traffic, environment or learning."""

import ast
import re
from pathlib import Path

import pytest

import roadsense.espnow

ALLOWED = {"_data", "errors", "espnow", "jit", "philox", "prefetch", "randomness"}
OUTSIDE = {"numpy", "pydantic", "scipy"}
MEASURING = {"errors", "espnow", "extras", "files", "progress", "statistics"}
"""What calibration and verification may use: they write files and reports beside knowing the radio."""


@pytest.mark.parametrize("folder", ["calibration", "verification"])
def test_who_measures_knows_nothing_of_traffic_environment_or_learning(folder):
    modules = list((Path(roadsense.espnow.__file__).parent / folder).glob("*.py"))
    assert len(modules) > 3
    sources = "\n".join(path.read_text() for path in modules)
    assert set(re.findall(r"^\s*(?:from|import) roadsense\.(\w+)", sources, re.MULTILINE)) <= MEASURING


def test_espnow_imports_only_what_lies_below_it():
    folder = Path(roadsense.espnow.__file__).parent
    seen = set()
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                seen |= {name.name for name in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0
                seen.add(str(node.module))
    own = {name.split(".")[1] for name in seen if name.startswith("roadsense")}
    other = {name.split(".")[0] for name in seen if not name.startswith("roadsense")}
    standard = {
        "__future__",
        "collections",
        "functools",
        "hashlib",
        "itertools",
        "json",
        "math",
        "pathlib",
        "typing",
        "struct",
        "dataclasses",
    }
    assert own == ALLOWED
    assert other <= OUTSIDE | standard
