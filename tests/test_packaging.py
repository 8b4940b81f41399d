"""What is installed is what was meant: metadata, shipped data, and an import that loads nothing heavy."""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
HEAVY = ("libsumo", "matplotlib", "numba", "onnx", "onnxruntime", "ray", "stable_baselines3", "torch", "traci")
SHIPPED = {"roadsense": "roadsense", "scenarios": "roadsense/_data/scenarios", "params": "roadsense/_data/params"}


@pytest.fixture(scope="module")
def setup_cfg() -> configparser.ConfigParser:
    config = configparser.ConfigParser()
    config.read(REPO / "setup.cfg")
    return config


def lines(value: str) -> list[str]:
    return [line.strip() for line in value.splitlines() if line.strip()]


def canonical(requirement: str) -> str:
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name, f"no project name in {requirement!r}"
    return re.sub(r"[-_.]+", "-", name[0]).lower()


def python_elsewhere(code: str, cwd: Path, **env: str) -> str:
    """Runs ``code`` in a fresh interpreter whose working folder is not the source tree."""
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_import_loads_nothing_heavy(tmp_path: Path) -> None:
    code = f"import sys, roadsense; print([m for m in {HEAVY!r} if m in sys.modules])"
    assert python_elsewhere(code, tmp_path, PYTHONPATH=str(REPO)).strip() == "[]"


def test_shipped_folders_are_found_from_another_folder(tmp_path: Path) -> None:
    code = (
        "from roadsense._data import params_dir, scenarios_dir\n"
        "print((scenarios_dir() / 'base').is_dir(), any((params_dir() / 'espnow').glob('*.json')))"
    )
    assert python_elsewhere(code, tmp_path).split() == ["True", "True"]


def test_every_package_of_the_source_tree_is_listed(setup_cfg: configparser.ConfigParser) -> None:
    found = {p.parent.relative_to(REPO).as_posix().replace("/", ".") for p in REPO.glob("roadsense/**/__init__.py")}
    mapped = {"roadsense._data.scenarios", "roadsense._data.params"}
    assert set(lines(setup_cfg["options"]["packages"])) == found | mapped


def test_constraints_pin_every_requirement_exactly(setup_cfg: configparser.ConfigParser) -> None:
    pins = [line for line in lines((REPO / "constraints.txt").read_text()) if not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[^\s+;]+", pin)] == []
    wanted = lines(setup_cfg["options"]["install_requires"])
    for extra in setup_cfg["options.extras_require"].values():
        wanted += lines(extra)
    missing = {canonical(line) for line in wanted} - {canonical(pin) for pin in pins} - {"roadsense"}
    assert missing <= {"tensorrt"}, "tensorrt alone is unpinned: its version follows the GPU's driver"


@pytest.fixture(scope="module")
def source_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy to build in, with a generated dataset lying in it that must not be shipped."""
    tree = tmp_path_factory.mktemp("source") / "roadsense"
    skip = shutil.ignore_patterns(".*", "runs", "build", "dist", "*.egg-info", "__pycache__")
    shutil.copytree(REPO, tree, ignore=skip)
    shutil.rmtree(tree / "scenarios" / "datasets", ignore_errors=True)
    dataset = tree / "scenarios" / "datasets" / "d0"
    dataset.mkdir(parents=True)
    (dataset / "manifest.json").write_text("{}")
    return tree


@pytest.fixture(scope="module")
def built(source_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--sdist", "--wheel", "--outdir", str(out), "."]
    subprocess.run(command, cwd=source_tree, check=True, capture_output=True)
    return {"wheel": next(out.glob("*.whl")), "sdist": next(out.glob("*.tar.gz"))}


def expected_data_files(tree: Path) -> Iterator[str]:
    for path in sorted([*tree.glob("scenarios/base/**/*"), *tree.glob("params/**/*"), *tree.glob("roadsense/**/*")]):
        if path.is_file() and "__pycache__" not in path.parts:
            source = path.relative_to(tree)
            yield f"{SHIPPED[source.parts[0]]}/{source.relative_to(source.parts[0]).as_posix()}"


@pytest.mark.proof
def test_wheel_holds_every_source_and_data_file_but_no_dataset(source_tree: Path, built: dict[str, Path]) -> None:
    with zipfile.ZipFile(built["wheel"]) as wheel:
        names = set(wheel.namelist())
    assert set(expected_data_files(source_tree)) - names == set()
    assert [name for name in names if "datasets/d0" in name or name.startswith(("tests/", "scenarios/"))] == []
    assert any(name.endswith("scenarios/base/straight/network.net.xml") for name in names)


@pytest.mark.proof
def test_sdist_holds_what_the_wheel_is_built_from_but_no_dataset(built: dict[str, Path]) -> None:
    with tarfile.open(built["sdist"]) as sdist:
        names = {name.split("/", 1)[-1] for name in sdist.getnames()}
    assert {"constraints.txt", "pyproject.toml", "setup.cfg", "scenarios/base/straight/network.net.xml"} <= names
    assert [name for name in names if name.startswith("scenarios/datasets")] == []


@pytest.mark.proof
@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_installed_copy_finds_its_own_data(built: dict[str, Path], kind: str, tmp_path: Path) -> None:
    target = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(target), str(built[kind])], check=True, capture_output=True)
    code = (
        "import json, roadsense, roadsense._data as d\n"
        "print(json.dumps([roadsense.__file__, str(d.scenarios_dir() / 'base'), str(d.params_dir() / 'espnow')]))"
    )
    for place in map(Path, json.loads(python_elsewhere(code, tmp_path, PYTHONPATH=str(target)))):
        assert place.is_relative_to(target)
        assert place.exists()
