"""What is installed is what was meant: metadata, shipped data, and an import that loads nothing heavy."""

from __future__ import annotations

import configparser
import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution, distributions
from pathlib import Path

import gymnasium as gym
import pytest
from packaging.requirements import Requirement

import roadsense
from roadsense.export.c import export_c
from roadsense.export.onnx import export_onnx
from roadsense.export.quantised import export_fp16, export_int8
from roadsense.extras import MODULES
from roadsense.jit import cache_dir
from roadsense.policies.runtime import Policy

from .policies.networks import random_actor, random_observations, write_run

REPO = Path(__file__).resolve().parents[1]
HEAVY = ("boto3", "libsumo", "matplotlib", "numba", "onnx", "onnxruntime", "ray", "stable_baselines3", "torch", "traci")
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
    assert missing <= {"tensorrt", "cuda-bindings"}, "these alone are unpinned: their versions follow the GPU's driver"


def test_a_missing_module_is_said_to_come_with_an_extra_that_brings_it(setup_cfg: configparser.ConfigParser) -> None:
    brought = {
        extra: {canonical(line) for line in lines(text)} for extra, text in setup_cfg["options.extras_require"].items()
    }
    core = {canonical(line) for line in lines(setup_cfg["options"]["install_requires"])}
    for extra, modules in MODULES.items():
        for module in map(canonical, modules):
            assert any(name == module or name.startswith(f"{module}-") for name in brought[extra]), module
            assert module not in core
    assert brought["onnx"] <= brought["train"], "who trains has what runs a policy"


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
    assert {
        "cluster/aws.yaml",
        "constraints.txt",
        "pyproject.toml",
        "setup.cfg",
        "scenarios/base/straight/network.net.xml",
    } <= names
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


README = (REPO / "README.md").read_text(encoding="utf-8")
TRAINING = (
    "matplotlib", "onnx", "onnxscript", "pandas", "ray", "sb3_contrib", "stable_baselines3", "tensorboard", "torch"
)  # fmt: skip
WITHOUT_TORCH = ["", "model.onnx", "model.fp16.onnx", "model.int8.onnx", "model.c"]


def brought_by(requires: list[str], extras: set[str], found: dict[tuple[str, str], Distribution]) -> None:
    """Adds what these requirements of a distribution, with these extras of it, bring in the end, as it lies here."""
    for requirement in map(Requirement, requires):
        marker = requirement.marker
        if marker is not None and not any(marker.evaluate({"extra": extra}) for extra in {"", *extras}):
            continue
        for extra in sorted({"", *requirement.extras}):
            key = canonical(requirement.name), extra
            if key not in found:
                found[key] = distribution(requirement.name)
                brought_by(found[key].requires or [], {extra}, found)


class Machine:
    """An environment with the wheel, what it brings with an extra, and nothing else."""

    def __init__(self, folder: Path, wheel: Path, extra: str) -> None:
        self.folder = folder
        venv.create(folder, symlinks=True)
        (self.site,) = folder.glob("lib/python*/site-packages")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(self.site)]
        subprocess.run([*pip, str(wheel)], check=True, capture_output=True)
        found: dict[tuple[str, str], Distribution] = {}
        (own,) = distributions(name="roadsense", path=[str(self.site)])
        brought_by(own.requires or [], {extra}, found)
        self.names = {name for name, _ in found}
        for one in found.values():
            for top in {file.parts[0] for file in one.files or []} - {"..", "__pycache__"}:
                if not (self.site / top).is_symlink():
                    (self.site / top).symlink_to(Path(str(one.locate_file(top))))
        self._take_kernels()

    def _take_kernels(self) -> None:
        """Saves half a minute of compiling: kernels of the same source, which numba keeps by the source's folder."""
        here, there, kept = Path(roadsense.__file__).parent, self.site / "roadsense", cache_dir()
        for package in (here, *(path for path in here.rglob("*") if path.is_dir())) if kept else ():
            compiled = kept / _cache_name(package)
            if compiled.is_dir():
                shutil.copytree(compiled, self.cache / kept.name / _cache_name(there / package.relative_to(here)))

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Runs a line of the shell there."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        env |= {"PATH": f"{self.folder / 'bin'}:{env['PATH']}", "NUMBA_CACHE_DIR": str(self.cache)}
        return subprocess.run(
            command, shell=True, cwd=self.folder, env=env, capture_output=True, text=True, timeout=300, check=False
        )


def _cache_name(package: Path) -> str:
    return f"{package.name}_{hashlib.sha1(str(package).encode()).hexdigest()}"


def line_of_readme(path: Path) -> str:
    (line,) = re.findall(r'^python -c ".+"$', README, re.MULTILINE)
    assert line.count("runs/<run id>/model.onnx") == 1
    return line.replace("runs/<run id>/model.onnx", str(path))


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a random policy in every format."""
    folder = tmp_path_factory.mktemp("run")
    write_run(folder, random_actor())
    export_onnx(folder)
    export_fp16(folder)
    export_int8(folder, random_observations(300, 5))
    export_c(folder)
    return folder


@pytest.fixture(scope="module")
def first_observation(require_sumo: None) -> dict[str, object]:
    with contextlib.closing(gym.make("Convoy-v0")) as env:
        return env.reset(seed=7)[0]


@pytest.fixture(scope="module")
def with_onnx(
    built: dict[str, Path], first_observation: dict[str, object], tmp_path_factory: pytest.TempPathFactory
) -> Machine:
    """With the extra ``onnx``; made after kernels were compiled here."""
    return Machine(tmp_path_factory.mktemp("onnx"), built["wheel"], "onnx")


@pytest.fixture(scope="module")
def with_nothing(built: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(tmp_path_factory.mktemp("bare"), built["wheel"], "")


@pytest.mark.parametrize("file", WITHOUT_TORCH)
def test_the_line_of_the_readme_decides_with_the_extra_onnx_alone(
    with_onnx: Machine,
    run_dir: Path,
    first_observation: dict[str, object],
    file: str,
    request: pytest.FixtureRequest,
) -> None:
    if file == "model.c":
        request.getfixturevalue("require_compilers")
    expected = Policy.load(run_dir / file).act(first_observation)
    told = with_onnx.run(line_of_readme(run_dir / file))
    assert told.stdout == f"{expected}\n", told.stderr
    assert 0.0 < expected[0] < 1.0


def test_the_extra_onnx_brings_nothing_of_training(with_onnx: Machine) -> None:
    code = (
        f"import roadsense, importlib.util as u; print(roadsense.__file__, [m for m in {TRAINING!r} if u.find_spec(m)])"
    )
    told = with_onnx.run(f'python -c "{code}"')
    assert told.stdout == f"{with_onnx.site / 'roadsense' / '__init__.py'} []\n", told.stderr
    assert {"onnxruntime", "safetensors", "libsumo"} <= with_onnx.names


@pytest.mark.parametrize("file", WITHOUT_TORCH)
def test_without_the_extra_one_sentence_names_it(with_nothing: Machine, run_dir: Path, file: str) -> None:
    told = with_nothing.run(line_of_readme(run_dir / file))
    module = "onnxruntime" if file.endswith(".onnx") else "safetensors"
    assert told.returncode == 1 and told.stdout == ""
    assert told.stderr.splitlines()[-1] == (
        f'roadsense.errors.RoadsenseError: {module} is not installed; install it with: pip install "roadsense[onnx]".'
    )


def test_the_readme_installs_the_wheel_that_is_built(built: dict[str, Path]) -> None:
    assert re.findall(r"^pip install 'dist/(.+\.whl)\[onnx\]'$", README, re.MULTILINE) == [built["wheel"].name]
