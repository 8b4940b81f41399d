"""Environment steps and resets against bare libsumo, in turns within one process.

    python benchmarks/env_steps.py [--rounds 30] [--json FILE]

The reference steps the same six cars and reads position, speed, acceleration and angle of each; a reset is compared
with one ``load()`` of the same network. Both alternate every few milliseconds, because a shared machine changes its
speed from one second to the next; figures are medians over rounds. Prints and writes JSON with versions.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import gymnasium as gym
import libsumo
import numpy as np
from report import parse, report

import roadsense
from roadsense._data import scenarios_dir
from roadsense.errors import ScenarioError

STEPS = 250
"""Steps of either side in a round; at the speeds of the scenarios no car leaves the road in them."""

PEERS = 5
BARE_OPTIONS = ["--step-length", "0.1", "--no-step-log", "true", "--no-warnings", "true", "--default.speeddev", "0",
                "--time-to-teleport", "-1"]  # fmt: skip


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


def environment_speed(env: gym.Env) -> float:
    """Steps per second of an episode."""
    action, done = np.zeros(1, np.float32), 0
    env.reset()
    began = time.perf_counter()
    while done < STEPS:
        _, _, terminated, truncated, _ = env.step(action)
        done += 1
        if terminated or truncated:
            break
    return done / (time.perf_counter() - began)


def bare_speed(options: list[str], routes: Path) -> float:
    """Steps per second of libsumo alone, in the environment's process."""
    libsumo.load([*options, "-r", str(routes)])
    libsumo.simulationStep()
    vehicle = libsumo.vehicle
    names = vehicle.getIDList()
    assert len(names) == PEERS + 1, names
    began = time.perf_counter()
    for _ in range(STEPS):
        libsumo.simulationStep()
        for name in names:
            vehicle.getPosition(name)
            vehicle.getSpeed(name)
            vehicle.getAcceleration(name)
            vehicle.getAngle(name)
    return STEPS / (time.perf_counter() - began)


def load_time(options: list[str]) -> float:
    """Seconds of one ``load()``."""
    began = time.perf_counter()
    libsumo.load(options)
    return time.perf_counter() - began


def recover(env: gym.Env) -> None:
    """Gives the simulation back to the environment, whose cars a bare ``load()`` took away."""
    with contextlib.suppress(ScenarioError):
        env.reset()
    env.reset()


def reset_time(env: gym.Env) -> float:
    """Seconds of one reset."""
    began = time.perf_counter()
    env.reset()
    return time.perf_counter() - began


def compare(scenario: Path, rounds: int) -> dict[str, object]:
    """Alternates the environment and bare libsumo."""
    env = gym.make("Convoy-v0", scenario=str(scenario), disable_env_checker=True)
    env.reset(seed=7)
    environment_speed(env)  # compile
    options = ["-n", str(scenario / "network.net.xml"), *BARE_OPTIONS]
    ours, bare, resets, loads = [], [], [], []
    for _ in range(rounds):
        ours.append(environment_speed(env))
        bare.append(bare_speed(options, scenario / "vehicles.rou.xml"))
        for _ in range(3):
            loads.append(load_time(options))
            recover(env)
            resets.append(reset_time(env))
    env.close()
    ratios = sorted(a / b for a, b in zip(ours, bare, strict=True))
    return {
        "scenario": scenario.name,
        "cars": PEERS + 1,
        "rounds": rounds,
        "environment_steps_per_s": round(statistics.median(ours)),
        "bare_steps_per_s": round(statistics.median(bare)),
        "step_ratio": round(statistics.median(ratios), 3),
        "step_ratio_quartiles": [round(ratios[len(ratios) // 4], 3), round(ratios[-1 - len(ratios) // 4], 3)],
        "reset_ms": round(1e3 * statistics.fmean(resets), 3),
        "load_ms": round(1e3 * statistics.fmean(loads), 3),
        "reset_ratio": round(statistics.fmean(resets) / statistics.fmean(loads), 3),
    }


def main() -> None:
    arguments = parse(__doc__, rounds=30)
    with tempfile.TemporaryDirectory() as folder:
        results = [
            compare(six_cars(Path(folder), base, sigma), arguments.rounds)
            for base, sigma in (("straight", 0.0), ("straight", 0.5), ("curve", 0.5))
        ]
    report("env_steps", ("libsumo", "numba", "numpy", "gymnasium"), results, arguments.json)


if __name__ == "__main__":
    assert roadsense.__version__
    main()
