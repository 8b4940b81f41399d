"""The environments under the newest Gymnasium that was tried, beside the pinned one of the other tests."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.proof, pytest.mark.usefixtures("require_sumo")]

NEWEST = "1.4.0"
TESTED = ("test_env.py", "test_vector.py", "test_wrappers.py")


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """A folder that holds that Gymnasium and nothing else."""
    folder = tmp_path_factory.mktemp("newest")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
    subprocess.run([*pip, f"gymnasium=={NEWEST}"], check=True, capture_output=True)
    return folder


def test_gymnasium_s_and_stable_baselines_checks_hold_under_the_newest_gymnasium(elsewhere):
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": str(elsewhere)}
    version = [sys.executable, "-c", "import gymnasium; print(gymnasium.__version__)"]
    assert subprocess.check_output(version, env=environment, text=True).strip() == NEWEST
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(str(here / name) for name in TESTED)]
    run = subprocess.run(tests, env=environment, cwd=here.parents[1], capture_output=True, text=True, check=False)
    print(run.stdout)
    assert run.returncode == 0
    assert " skipped" not in run.stdout.splitlines()[-1]
