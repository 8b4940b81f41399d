"""Environment steps and resets against bare libsumo, measured in turns in one run.

    python benchmarks/env_steps.py [--rounds 9] [--json FILE]

The reference steps the same six cars and reads position, speed, acceleration and angle of each; a reset is compared
with one ``load()`` of the same network. Prints and writes JSON with versions.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from importlib.metadata import version
from pathlib import Path

import gymnasium as gym
import numpy as np

import roadsense
from roadsense._data import scenarios_dir

STEPS = 2000
PEERS = 5

BARE = """
import libsumo, sys, time
net, routes, steps, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
options = ["-n", net, "--step-length", "0.1", "--no-step-log", "true", "--no-warnings", "true",
           "--default.speeddev", "0", "--time-to-teleport", "-1"]
libsumo.start(["sumo", *options, "-r", routes])
vehicle = libsumo.vehicle
for _ in range(rounds):
    sys.stdin.readline()
    libsumo.load([*options, "-r", routes])
    libsumo.simulationStep()
    names = vehicle.getIDList()
    assert len(names) == 6, names
    done = 0
    began = time.perf_counter()
    while done < steps:
        libsumo.simulationStep()
        for name in names:
            vehicle.getPosition(name); vehicle.getSpeed(name); vehicle.getAcceleration(name); vehicle.getAngle(name)
        done += 1
        if done % 300 == 0:
            paused = time.perf_counter()
            libsumo.load([*options, "-r", routes]); libsumo.simulationStep()
            began += time.perf_counter() - paused
    stepped = time.perf_counter() - began
    began = time.perf_counter()
    for _ in range(30):
        libsumo.load(options)
    print(steps / stepped, (time.perf_counter() - began) / 30, flush=True)
"""


def six_cars(folder: Path, base: str, sigma: float) -> Path:
    """A copy of a base scenario with five peers and one sigma for all cars."""
    source, target = scenarios_dir() / "base" / base, folder / f"{base}-{sigma}"
    target.mkdir()
    for name in ("scenario.sumocfg", "network.net.xml", "episode.json"):
        (target / name).write_bytes((source / name).read_bytes())
    root = ET.parse(source / "vehicles.rou.xml").getroot()
    for kind in root.iter("vType"):
        kind.set("sigma", str(sigma))
    front = max(root.iter("vehicle"), key=lambda car: float(car.get("departPos", "0")))
    sixth = ET.fromstring(ET.tostring(front))
    sixth.set("id", "V006")
    sixth.set("departPos", str(float(front.get("departPos", "0")) + 30.0))
    root.insert(list(root).index(front), sixth)
    ET.ElementTree(root).write(target / "vehicles.rou.xml")
    return target


def environment_speed(env: gym.Env, steps: int) -> float:
    """Steps per second, resets left out of the time."""
    action, spent, done = np.zeros(1, np.float32), 0.0, 0
    env.reset()
    while done < steps:
        ended, chunk = False, 0
        began = time.perf_counter()
        while not ended and done + chunk < steps:
            _, _, terminated, truncated, _ = env.step(action)
            ended, chunk = terminated or truncated, chunk + 1
        spent += time.perf_counter() - began
        done += chunk
        env.reset()
    return done / spent


def reset_time(env: gym.Env, count: int = 30) -> float:
    """Mean seconds of a reset."""
    began = time.perf_counter()
    for _ in range(count):
        env.reset()
    return (time.perf_counter() - began) / count


def compare(scenario: Path, rounds: int) -> dict[str, object]:
    """Alternates the environment and the bare loop and takes medians of the rounds."""
    env = gym.make("Convoy-v0", scenario=str(scenario), disable_env_checker=True)
    env.reset(seed=7)
    environment_speed(env, 500)  # compile
    command = [sys.executable, "-c", BARE, str(scenario / "network.net.xml"), str(scenario / "vehicles.rou.xml")]
    ours, bare, resets, loads = [], [], [], []
    with subprocess.Popen(
        [*command, str(STEPS), str(rounds)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as reference:
        assert reference.stdin is not None
        assert reference.stdout is not None
        for _ in range(rounds):
            ours.append(environment_speed(env, STEPS))
            resets.append(reset_time(env))
            reference.stdin.write("go\n")
            reference.stdin.flush()
            speed, load = map(float, reference.stdout.readline().split())
            bare.append(speed)
            loads.append(load)
    env.close()
    return {
        "scenario": scenario.name,
        "cars": PEERS + 1,
        "rounds": rounds,
        "environment_steps_per_s": round(statistics.median(ours)),
        "bare_steps_per_s": round(statistics.median(bare)),
        "step_ratio": round(statistics.median(a / b for a, b in zip(ours, bare, strict=True)), 3),
        "step_ratio_range": [round(f(a / b for a, b in zip(ours, bare, strict=True)), 3) for f in (min, max)],
        "reset_ms": round(1e3 * statistics.median(resets), 3),
        "load_ms": round(1e3 * statistics.median(loads), 3),
        "reset_ratio": round(statistics.median(a / b for a, b in zip(resets, loads, strict=True)), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=9, help="how often both are measured in turn")
    parser.add_argument("--json", type=Path, help="where to write the result too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = [
            compare(six_cars(Path(folder), base, sigma), arguments.rounds)
            for base, sigma in (("straight", 0.0), ("straight", 0.5), ("curve", 0.5))
        ]
    document = {
        "benchmark": "env_steps",
        "machine": platform.machine(),
        "versions": {name: version(name) for name in ("roadsense", "libsumo", "numba", "numpy", "gymnasium")},
        "results": results,
    }
    text = json.dumps(document, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    assert roadsense.__version__
    main()
