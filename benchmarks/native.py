"""The native engine: environment steps per second, alone and in batches, and a training on it.

    python benchmarks/native.py [--rounds 5] [--json FILE] [--plot FILE.png] [--no-training]

A step is a whole one: driver, hazard, traffic, radio with relays, observation, reward and autoreset (same step),
through `gym.make_vec` or, for one environment, `gym.make`, under the actions of an untrained policy. The reference,
measured in turns with all sizes, is `gym.make` on SUMO. The training is the same PPO (64 environments, batches of
1,024, 10 epochs) on the native engine, on SUMO, and on worlds that cost nothing; one rollout and its update of each in
turns. Figures are medians over rounds, `best` the fastest; a shared machine changes its speed from one second to the
next.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from report import report

import roadsense
from roadsense._data import scenarios_dir

SIZES = (
    (1, 6, "straight", 5), (16, 6, "straight", 5), (64, 6, "straight", 5), (256, 6, "straight", 5),
    (1024, 6, "straight", 5), (1024, 6, "straight", 16), (1024, 6, "arterial", 5),
    (256, 2, "straight", 1), (256, 4, "straight", 3), (256, 12, "straight", 11), (256, 24, "straight", 23),
)  # fmt: skip
"""(environments, cars, road, max_peers) that are measured; an observation has ``max_peers`` rows."""

ABOUT_S = 0.8
"""Length of a measurement [s]."""

NOISE_STD, NOISE_MEAN = float(np.exp(-1.0)), -0.1
"""Actions are normal with these, as those of a policy before its first update."""


def convoy(folder: Path, cars: int, road: str = "straight") -> Path:
    """A base scenario, its drivers dawdling, with so many cars."""
    source, target = scenarios_dir() / "base" / road, folder / f"{road}-{cars}"
    target.mkdir()
    for name in ("scenario.sumocfg", "network.net.xml", "episode.json"):
        (target / name).write_bytes((source / name).read_bytes())
    root = ET.parse(source / "vehicles.rou.xml").getroot()
    for kind in root.iter("vType"):
        kind.set("sigma", "0.5")
    found = sorted(root.iter("vehicle"), key=lambda car: float(car.get("departPos", "0")))
    for extra in found[cars:]:
        root.remove(extra)
    for number in range(len(found), cars):
        car = ET.fromstring(ET.tostring(found[-1]))
        car.set("id", f"V{number + 1:03d}")
        car.set("departPos", str(float(found[-1].get("departPos", "0")) + 30.0 * (number - len(found) + 1)))
        root.insert(list(root).index(found[-1]), car)
    ET.ElementTree(root).write(target / "vehicles.rou.xml")
    return target


def actions(count: int) -> np.ndarray:
    """[64, count, 1], used in turn."""
    drawn = np.random.default_rng(1).normal(NOISE_MEAN, NOISE_STD, (64, count, 1))
    return drawn.clip(0.0, 1.0).astype(np.float32)


class Alone:
    """One environment through ``gym.make``."""

    def __init__(self, scenario: Path, max_peers: int, engine: str) -> None:
        self.env = gym.make("Convoy-v0", scenario=str(scenario), engine=engine, max_peers=max_peers)
        self.actions = actions(1)[:, 0]
        self.env.reset(seed=1)
        self.run(300)

    def run(self, steps: int) -> float:
        """Steps per second."""
        env, chosen = self.env, self.actions
        began = time.perf_counter()
        for step in range(steps):
            _, _, terminated, truncated, _ = env.step(chosen[step & 63])
            if terminated or truncated:
                env.reset()
        return steps / (time.perf_counter() - began)


class Batch:
    """Many through ``gym.make_vec``."""

    def __init__(self, scenario: Path, max_peers: int, count: int) -> None:
        self.env = gym.make_vec(
            "Convoy-v0", num_envs=count, scenario=str(scenario), engine="native", max_peers=max_peers,
            autoreset_mode="SameStep",
        )  # fmt: skip
        self.count, self.actions = count, actions(count)
        self.env.reset(seed=1)
        self.run(500 * count)  # episodes end at all times from then on

    def run(self, steps: int) -> float:
        """Environment steps per second, about ``steps`` of them."""
        rounds, env, chosen = max(1, steps // self.count), self.env, self.actions
        began = time.perf_counter()
        for step in range(rounds):
            env.step(chosen[step & 63])
        return rounds * self.count / (time.perf_counter() - began)


def throughput(folder: Path, rounds: int) -> list[dict[str, Any]]:
    """Rows of ``SIZES``."""
    scenarios = {named: convoy(folder, *named) for named in sorted({(cars, road) for _, cars, road, _ in SIZES})}
    reference = Alone(scenarios[6, "straight"], 5, "sumo")
    sides: dict[tuple[int, int, str, int], Alone | Batch] = {}
    for count, cars, road, peers in SIZES:
        scenario = scenarios[cars, road]
        one = Alone(scenario, peers, "native") if count == 1 else Batch(scenario, peers, count)
        sides[count, cars, road, peers] = one
    speeds: dict[tuple[int, int, str, int], list[tuple[float, float]]] = {size: [] for size in SIZES}
    steps = {size: max(2 * size[0], int(ABOUT_S * side.run(4 * size[0] + 2000))) for size, side in sides.items()}
    for _ in range(rounds):
        for size, side in sides.items():
            speeds[size].append((side.run(steps[size]), reference.run(5000)))
    for opened in (reference, *sides.values()):
        opened.env.close()
    return [
        {
            "environments": count, "cars": cars, "road": road, "max_peers": peers, "rounds": rounds,
            "steps_per_s": round(statistics.median(own for own, _ in pairs)),
            "best": round(max(own for own, _ in pairs)),
            "sumo_steps_per_s": round(statistics.median(theirs for _, theirs in pairs)),
            "times_sumo": round(statistics.median(own / theirs for own, theirs in pairs), 2),
            "us_per_step": round(1e6 / statistics.median(own for own, _ in pairs), 2),
        }
        for (count, cars, road, peers), pairs in speeds.items()
    ]  # fmt: skip


class _Timed:
    """Where the time of a learner goes: in its worlds, or elsewhere in collecting, or in updating."""

    def __init__(self, model: Any) -> None:
        self.model, self.worlds_s, self.update_s = model, 0.0, 0.0
        self._wrap(model.env, "step_wait", "worlds_s")
        self._wrap(model, "train", "update_s")

    def _wrap(self, owner: Any, name: str, counter: str) -> None:
        inner: Callable[..., Any] = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return inner(*args, **kwargs)
            finally:
                setattr(self, counter, getattr(self, counter) + time.perf_counter() - began)

        setattr(owner, name, timed)

    def run(self, steps: int) -> tuple[float, float, float]:
        """Seconds in all, in the worlds, and in updates."""
        self.worlds_s = self.update_s = 0.0
        began = time.perf_counter()
        self.model.learn(steps, reset_num_timesteps=False, log_interval=10**9)
        return time.perf_counter() - began, self.worlds_s, self.update_s


def training(scenario: Path, rounds: int, folder: Path) -> list[dict[str, Any]]:
    """The same PPO on three kinds of worlds."""
    import torch
    from stable_baselines3.common.logger import Logger

    from roadsense.convoy.player import Player
    from roadsense.training.config import TrainConfig
    from roadsense.training.model import build_model
    from roadsense.training.reward_scale import RewardScale
    from roadsense.training.vec_env import ConvoyVecEnv

    config = TrainConfig(n_envs=64, n_steps=128, batch_size=1024, n_epochs=10)
    torch.set_num_threads(config.torch_threads)

    class Idle(ConvoyVecEnv):
        """Worlds that show the same observation for ever."""

        def step_wait(self) -> Any:
            if not hasattr(self, "_same"):
                self._same = (self._observation(), np.zeros(64, np.float32), np.zeros(64, np.bool_), [{}] * 64)
            return self._same

    def learner(kind: type[ConvoyVecEnv], engine: str) -> _Timed:
        player = Player(64, scenario=str(scenario), engine=engine, max_peers=5)
        model = build_model(config, kind(player, RewardScale(64, config.gamma, config.reward_clip)), folder)
        model.set_logger(Logger(None, []))
        timed = _Timed(model)
        timed.run(config.n_envs * config.n_steps)
        return timed

    rollout = config.n_envs * config.n_steps
    sides = {"native": learner(ConvoyVecEnv, "native"), "idle": learner(Idle, "native"),
             "sumo": learner(ConvoyVecEnv, "sumo")}  # fmt: skip
    seconds = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            seconds[name].append(side.run(rollout))
    for side in sides.values():
        side.model.env.close()
    rows = []
    for name, parts in seconds.items():
        total, worlds, update = (statistics.median(part) for part in zip(*parts, strict=True))
        rows.append({
            "worlds": name, "environments": 64, "rounds": rounds,
            "steps_per_s": round(statistics.median(rollout / part[0] for part in parts)),
            "share_of_idle": round(statistics.median(
                idle[0] / own[0] for idle, own in zip(seconds["idle"], parts, strict=True)
            ), 3),
            "worlds_share": round(worlds / total, 3),
            "update_share": round(update / total, 3),
            "rest_share": round(1.0 - (worlds + update) / total, 3),
        })  # fmt: skip
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Rows of one kind under one another."""
    names = list(rows[0])
    cells = ([f"{row[name]:,}" if isinstance(row[name], int) else str(row[name]) for name in names] for row in rows)
    lines = [names, *cells]
    widths = [max(len(line[column]) for line in lines) for column in range(len(names))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def plot(rows: list[dict[str, Any]], file: Path) -> None:
    """Steps per second by environments, and microseconds by cars."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    rows = [row for row in rows if row["road"] == "straight" and row["max_peers"] == row["cars"] - 1]
    batches = [row for row in rows if row["cars"] == 6]
    left.plot([row["environments"] for row in batches], [row["steps_per_s"] for row in batches], "o-", label="native")
    left.axhline(batches[0]["sumo_steps_per_s"], color="grey", linestyle="--", label="SUMO, one environment")
    left.set(xscale="log", xlabel="environments", ylabel="environment steps per second", title="6 cars", ylim=(0, None))
    left.legend()
    crowds = sorted((row for row in rows if row["environments"] == 256), key=lambda row: row["cars"])
    right.plot([row["cars"] for row in crowds], [row["us_per_step"] for row in crowds], "o-")
    right.set(xlabel="cars", ylabel="µs per environment step", title="256 environments", ylim=(0, None), xlim=(0, None))
    figure.savefig(file, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="how often each side is measured in turn")
    parser.add_argument("--json", type=Path, help="where to write the result too")
    parser.add_argument("--plot", type=Path, help="where to draw it (PNG)")
    parser.add_argument("--no-training", action="store_true", help="measure the environment alone")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        rows = throughput(Path(name), arguments.rounds)
        print(table(rows), end="\n\n", flush=True)
        learnt = []
        if not arguments.no_training:
            learnt = training(convoy(Path(tempfile.mkdtemp(dir=name)), 6), arguments.rounds, Path(name))
            print(table(learnt), end="\n\n", flush=True)
    report("native", ("numba", "numpy", "gymnasium", "libsumo"), [*rows, *learnt], arguments.json)
    if arguments.plot is not None:
        plot(rows, arguments.plot)


if __name__ == "__main__":
    assert roadsense  # registers Convoy-v0
    main()
