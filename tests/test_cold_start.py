"""The first start on a machine: kernels compile, which is said once, and are kept where a folder can be written."""

import os
import subprocess
import sys

import pytest

PLAY = """
import gymnasium as gym, roadsense, roadsense.jit
{before}
env = gym.make("Convoy-v0", engine="native")
env.reset(seed=1)
env.step([0.0])
env.close()
"""


def play(cache, before=""):
    """What is said on stderr."""
    done = subprocess.run(
        [sys.executable, "-c", PLAY.format(before=before)], env={**os.environ, "NUMBA_CACHE_DIR": str(cache)},
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    return done.stderr.splitlines()


def test_compiling_is_said_once_and_kept(tmp_path):
    (told,) = play(tmp_path)
    assert told.startswith("compiling kernels for this machine, about half a minute and only this once; kept in ")
    assert str(tmp_path) in told
    assert play(tmp_path) == []


@pytest.mark.proof
def test_without_a_folder_to_write_it_still_runs(tmp_path):
    told = play(tmp_path, before="roadsense.jit._writable = lambda folder: False")
    assert told == ["compiling kernels, about half a minute and every time: no folder can be written to keep them."]
    assert list(tmp_path.iterdir()) == []
