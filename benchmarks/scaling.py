"""Workers of Ray: environment steps per second of one and two, of simulated more, and where the time goes.

    python benchmarks/scaling.py [--rounds 9] [--json FILE] [--workers 1 2] [--simulated 1 2 4 8 16]

All sides drive with networks of one size and noise of one spread. `collection`: one collector in this process,
Stable-Baselines3's own collection in this process, collectors in plain processes that hand nothing over (what cores and
memory of this machine give, without Ray), and workers, in turns; a round measures each once, ratios are within
a round, figures are medians over rounds. `learner`: what one process adds to it by judging fragments and by updates of
PPO, with two workers. `simulated`: workers that sleep as long as a fragment took and bring one of its size, so that
more of them than cores show what the learner's end and transport cost. `projected` is computed from these;
`assumptions` says how.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import pickle
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from report import report

from roadsense import jit
from roadsense.convoy.observation import Observation
from roadsense.convoy.player import Player
from roadsense.policies.signature import Signature, Widths
from roadsense.policies.weights import parameter_shapes
from roadsense.training.driven_worlds import DrivenWorlds, Worker
from roadsense.training.episodes import Episodes
from roadsense.training.fragments import Ends, Fragment, Weights
from roadsense.training.ray_connection import running_ray
from roadsense.training.ray_workers import RayWorkers, WorkersConfig
from roadsense.training.remote import RemoteVecEnv

PEERS = 4
SIDES = {"sumo": (1, 1024), "native": (16, 256)}
"""Engine → worlds of a worker, steps of a fragment. SUMO is one world a process."""

CORES = (2, 16, 128)
ASSUMPTIONS = [
    "one core learns, every other one drives; all are as fast as those measured here, and nobody else uses them",
    "each worker has the worlds and the fragment length of its row in `collection`: a rollout grows with their number",
    "a worker drives as fast as one alone does while it is busy (busy_steps_per_s)",
    "transport takes a time for every rollout and one for every worker in it: a line through `simulated`, where both "
    "ends of it share the cores of this machine",
    "judging and updating take a time per step, as measured in `learner`: 10 epochs in batches of 1,024",
    "waiting: driving, transport and learning one after the other; asynchronous: the longer of driving with transport, "
    "and learning",
    "no worker is slower than the others, and none is lost",
    "network between machines is not in it: a fragment's size (fragment_mb) over bandwidth is to be added",
]  # fmt: skip


def network(std: float = 0.3) -> Weights:
    """Random weights that brake now and then."""
    rng, widths = np.random.default_rng(0), Widths()
    tensors = {name: rng.normal(0.0, 0.2, shape).astype(np.float32) for name, shape in parameter_shapes(widths).items()}
    return Weights(0, Signature.of(tensors, widths, "brake", 1), tensors, std)


def arguments(engine: str) -> dict[str, Any]:
    return {"engine": engine, "max_peers": PEERS, "control": "brake", "messages_per_peer": 1}


class Here:
    """One collector in this process."""

    def __init__(self, engine: str, worlds: int, steps: int) -> None:
        self.worlds, self.steps, self.weights = DrivenWorlds(Player(worlds, **arguments(engine))), steps, network()
        count = self.worlds.player.num_worlds
        self.worlds.go_to(Episodes.begun(np.arange(count, dtype=np.uint64), np.ones(count, np.int64)))
        for _ in range(2):
            self.run()

    def run(self) -> dict[str, float]:
        """Of one fragment."""
        fragment = self.worlds.explore(self.weights, self.worlds.at, self.steps)
        return {"steps_per_s": fragment.raw.size / fragment.busy_s}

    def close(self) -> None:
        self.worlds.player.close()


def _collect(connection: Any, engine: str, worlds: int, steps: int) -> None:
    """A collector in a plain process: one fragment for each word it is given."""
    here = Here(engine, worlds, steps)
    connection.send(None)
    while connection.recv():
        here.run()
        connection.send(None)


class Plain:
    """Collectors in plain processes."""

    def __init__(self, engine: str, count: int, worlds: int, steps: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.size, self.ends = worlds * steps, []
        self.processes = []
        for _ in range(count):
            own, other = context.Pipe()
            self.processes.append(context.Process(target=_collect, args=(other, engine, worlds, steps), daemon=True))
            self.processes[-1].start()
            self.ends.append(own)
        for end in self.ends:
            end.recv()

    def run(self) -> dict[str, float]:
        """Of one fragment each, at once."""
        began = time.perf_counter()
        for end in self.ends:
            end.send(True)
        for end in self.ends:
            end.recv()
        return {"steps_per_s": len(self.ends) * self.size / (time.perf_counter() - began)}

    def close(self) -> None:
        for end, process in zip(self.ends, self.processes, strict=True):
            end.send(False)
            process.join()


class Far:
    """Workers."""

    def __init__(
        self, engine: str, count: int, worlds: int, steps: int, kind: type[Worker] = Worker, **further: Any
    ) -> None:
        opened = arguments(engine) | further
        workers = RayWorkers(WorkersConfig(count=count), worlds, opened, kind=kind)
        workers.wait_for_all()
        self.env, self.steps, self.weights = RemoteVecEnv(workers, count * worlds, opened), steps, network()
        self.env.seed(0)
        self.env.begin()
        for _ in range(2):
            self.run()

    def run(self) -> dict[str, float]:
        """Of one rollout: asked for, driven, brought, put side by side."""
        began = time.perf_counter()
        self.env.launch(self.weights, self.steps)
        fragment = self.env.gather()
        took_s = time.perf_counter() - began
        return {
            "steps_per_s": fragment.raw.size / took_s,
            "busy_steps_per_s": fragment.raw.size / self.env.workers.config.count / fragment.busy_s,
            "transport_share": 1.0 - fragment.busy_s / took_s,
            "took_s": took_s,
            "fragment_mb": len(pickle.dumps(fragment)) / self.env.workers.config.count / 1e6,
        }

    def close(self) -> None:
        self.env.close()


class Sb3:
    """Stable-Baselines3's own collection, with the network in torch."""

    def __init__(self, engine: str, worlds: int, steps: int) -> None:
        self.model, self.callback = learner(engine, worlds, steps, None)
        self.run()

    def run(self) -> dict[str, float]:
        model = self.model
        began = time.perf_counter()
        model.collect_rollouts(model.env, self.callback, model.rollout_buffer, model.n_steps)
        return {"steps_per_s": model.rollout_buffer.actions.size / (time.perf_counter() - began)}

    def close(self) -> None:
        self.model.env.close()


def learner(engine: str, worlds: int, steps: int, env: RemoteVecEnv | None) -> tuple[Any, Any]:
    """PPO as presets have it, in this process or over workers."""
    import torch
    from stable_baselines3.common.logger import Logger

    from roadsense.training.collection import Collector
    from roadsense.training.config import TrainConfig
    from roadsense.training.model import build_model
    from roadsense.training.reward_scale import RewardScale
    from roadsense.training.vec_env import ConvoyVecEnv

    config = TrainConfig(n_envs=worlds, n_steps=steps, batch_size=1024, n_epochs=10, engine=engine)
    torch.set_num_threads(config.torch_threads)
    scale = RewardScale(worlds, config.gamma, config.reward_clip)
    if env is None:
        model = build_model(config, ConvoyVecEnv(Player(worlds, **arguments(engine)), scale))
    else:
        env.scale, env.collector = scale, Collector(config, env)
        model = build_model(config, env)
    model.set_logger(Logger(None, []))
    _, callback = model._setup_learn(10**9, None)
    return model, callback


def learning(engine: str, rounds: int) -> dict[str, Any]:
    """Where the learner's time goes with two workers."""
    worlds, steps = SIDES[engine]
    far = Far(engine, 2, worlds, steps)
    model, callback = learner(engine, 2 * worlds, steps, far.env)
    parts = []
    for _ in range(rounds + 1):
        began, waited_s = time.perf_counter(), far.env.collector._waited_s
        model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_steps)
        collected = time.perf_counter()
        model.train()
        parts.append((far.env.collector._waited_s - waited_s, collected - began, time.perf_counter() - collected))
    far.close()
    waited, collect, update = (statistics.median(part) for part in zip(*parts[1:], strict=True))
    count = 2 * worlds * steps
    return {
        "kind": "learner", "engine": engine, "workers": 2, "steps": count, "rounds": rounds,
        "judging_us_per_step": round(1e6 * (collect - waited) / count, 2),
        "update_us_per_step": round(1e6 * update / count, 2),
        "waiting_share": round(waited / (collect + update), 3),
        "learner_share": round((collect - waited + update) / (collect + update), 3),
        "steps_per_s": round(count / (collect + update)),
    }  # fmt: skip


def collection(engine: str, counts: list[int], rounds: int) -> list[dict[str, Any]]:
    """Rows of an engine: each side in turn."""
    worlds, steps = SIDES[engine]
    here: dict[tuple[str, int], Callable[[], Here | Sb3]] = {
        ("one collector in this process", 0): lambda: Here(engine, worlds, steps),
        ("Stable-Baselines3 in this process", 0): lambda: Sb3(engine, worlds, steps),
    }
    far: dict[tuple[str, int], Far | Plain] = {}
    for count in counts:
        far["plain processes", count] = Plain(engine, count, worlds, steps)
        far["workers", count] = Far(engine, count, worlds, steps)
    found: dict[tuple[str, int], list[dict[str, float]]] = {side: [] for side in (*here, *far)}
    for _ in range(rounds):
        for side, make in here.items():  # one at a time, for SUMO is one world a process
            with contextlib.closing(make()) as one:
                found[side].append(one.run())
        for side, workers in far.items():
            found[side].append(workers.run())
    for workers in far.values():
        workers.close()
    reference = [row["steps_per_s"] for row in found["one collector in this process", 0]]
    rows = []
    for (side, count), measured in found.items():
        row: dict[str, Any] = {
            "kind": "collection", "engine": engine, "side": side, "workers": count,
            "worlds": worlds * max(1, count), "steps_per_fragment": steps, "rounds": rounds,
            "steps_per_s": round(statistics.median(one["steps_per_s"] for one in measured)),
            "best": round(max(one["steps_per_s"] for one in measured)),
            "times_one_collector": round(statistics.median(
                one["steps_per_s"] / other for one, other in zip(measured, reference, strict=True)
            ), 2),
        }  # fmt: skip
        if side == "workers":
            row |= {
                "busy_steps_per_s": round(statistics.median(one["busy_steps_per_s"] for one in measured)),
                "transport_share": round(statistics.median(one["transport_share"] for one in measured), 3),
                "fragment_mb": round(measured[0]["fragment_mb"], 2),
            }
        rows.append(row)
    return rows


class Sleeper(Worker):
    """Brings a fragment of zeros when a real one would be through."""

    def open(self, num_worlds: int, arguments: Mapping[str, Any]) -> dict[str, Any]:
        self._count, self._busy_s = num_worlds, float(arguments["busy_s"])
        return {"kernels": jit.source_digest(), "dataset_digest": None}

    def explore(self, weights: Weights, episodes: Episodes, num_steps: int) -> Fragment:
        began, shape = time.perf_counter(), (num_steps, self._count)
        one = Observation.zeros(self._count, PEERS)
        seen = Observation._make(np.zeros((num_steps, *array.shape), array.dtype) for array in one)
        none = np.zeros(0, np.int64)
        ends = Ends(none, none, none, np.zeros(0), none, Observation.zeros(0, PEERS))
        applied, rewards, raw = np.ones(shape), np.zeros(shape), np.zeros(shape, np.float32)
        ends = ends._replace(  # so that no episode grows beyond what real ones do
            step=np.full(self._count, num_steps - 1), world=np.arange(self._count),
            reason=np.full(self._count, 2), total=np.zeros(self._count), length=np.full(self._count, num_steps),
            seen=one,
        )  # fmt: skip
        time.sleep(max(0.0, self._busy_s - (time.perf_counter() - began)))
        return Fragment(weights.version, seen, one, raw, applied, rewards, ends, time.perf_counter() - began, 0)


def simulated(engine: str, counts: list[int], busy_s: float, rounds: int) -> list[dict[str, Any]]:
    """What is added to a fragment's time by so many workers, one after another of them started."""
    worlds, steps = SIDES[engine]
    rows = []
    for count in counts:
        far = Far(engine, count, worlds, steps, kind=Sleeper, busy_s=busy_s)
        added = [one["took_s"] - busy_s for one in (far.run() for _ in range(2 * rounds))]
        far.close()
        rows.append({
            "kind": "simulated", "engine": engine, "workers": count, "busy_ms": round(1e3 * busy_s, 1),
            "added_ms": round(1e3 * statistics.median(added), 2),
            "transport_share": round(statistics.median(more / (more + busy_s) for more in added), 3),
        })  # fmt: skip
    return rows


def fewest(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Of the rows of workers, the one that as few drive for as were measured: they disturb each other least."""
    return min((row for row in rows if row.get("side") == "workers"), key=lambda row: row["workers"])


def projected(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Curves over cores, see ``ASSUMPTIONS``."""
    found = []
    for engine in dict.fromkeys(row["engine"] for row in rows):
        of = [row for row in rows if row["engine"] == engine]
        worker = fewest(of)
        (learns,) = (row for row in of if row["kind"] == "learner")
        added = [(row["workers"], row["added_ms"] / 1e3) for row in of if row["kind"] == "simulated"]
        slope, first = np.polyfit(*zip(*added, strict=True), 1) if len(added) > 1 else (0.0, added[0][1])
        each = worker["worlds"] * worker["steps_per_fragment"]
        learn_s = (learns["judging_us_per_step"] + learns["update_us_per_step"]) / 1e6
        for cores in CORES:
            count = cores - 1
            steps = count * each
            drive_s = each / worker["busy_steps_per_s"] + max(0.0, first) + max(0.0, slope) * count
            found.append({
                "kind": "projected", "engine": engine, "cores": cores, "workers": count,
                "collecting_steps_per_s": round(steps / drive_s),
                "training_steps_per_s": round(steps / (drive_s + steps * learn_s)),
                "asynchronous_steps_per_s": round(steps / max(drive_s, steps * learn_s)),
                "limit": "learner" if steps * learn_s > drive_s else "workers",
            })  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="how often each side is measured in turn")
    parser.add_argument("--json", type=Path, help="where to write the result too")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="real workers")
    parser.add_argument("--simulated", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="sleeping workers")
    parser.add_argument("--engines", nargs="+", default=list(SIDES), choices=list(SIDES))
    asked = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for engine in asked.engines:
        # places for workers, not cores: sleeping ones need none, and of the real ones few are busy at a time
        with running_ray(max(asked.simulated) + sum(asked.workers) + 2):
            own = collection(engine, asked.workers, asked.rounds)
            worlds, steps = SIDES[engine]
            own.append(learning(engine, asked.rounds))
            own += simulated(engine, asked.simulated, worlds * steps / fewest(own)["busy_steps_per_s"], asked.rounds)
        rows += own
    rows += projected(rows)
    rows.append({"kind": "assumptions", "cores_here": os.cpu_count(), "load_before": round(os.getloadavg()[2], 1),
                 "assumptions": ASSUMPTIONS})  # fmt: skip
    report("scaling", ("ray", "libsumo", "numba", "numpy", "torch", "stable-baselines3"), rows, asked.json)


if __name__ == "__main__":
    main()
