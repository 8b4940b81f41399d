"""What an environment holds does not grow with its resets."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.usefixtures("require_sumo")

_SCRIPT = """
import os, sys
import gymnasium as gym
import roadsense

def resident_kib():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))

def held():
    children = open(f"/proc/self/task/{os.getpid()}/children").read().split()
    return len(os.listdir("/proc/self/fd")), len(children)

env = gym.make("Convoy-v0", dataset_dir=sys.argv[1], split="eval", disable_env_checker=True)
networks = set()
for episode in range(300):
    env.reset(seed=1 if episode == 0 else None)
    networks.add(env.unwrapped.worlds.scenarios[0].net_digest)
    for _ in range(3):
        env.step(env.action_space.sample())
    if episode == 99:
        before, memory = held(), resident_kib()
assert len(networks) == 3, networks
print(*held(), *before, resident_kib() - memory)
env.close()
env.close()
print(*held())
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads Linux's /proc")
def test_300_resets_over_changing_networks_leave_nothing_behind(dataset):
    command = [sys.executable, "-c", _SCRIPT, str(dataset.root)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout.splitlines()
    files, children, files_before, children_before, grown_kib = map(int, shown[0].split())
    assert (files, children) == (files_before, children_before)
    assert grown_kib < 10_000  # of about 300,000; a network kept per reset would add more than that
    assert int(shown[1].split()[1]) == 0
