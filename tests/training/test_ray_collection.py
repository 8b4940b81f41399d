"""Worlds of Ray workers: the rollout Stable-Baselines3 would have filled itself, the same bits however many drive."""

import contextlib
import csv
import dataclasses
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import numpy as np
import pytest
import torch
from stable_baselines3.common.logger import Logger

from roadsense.convoy.player import Player
from roadsense.errors import InputMismatchError, RoadsenseError, UsageError
from roadsense.training.checkpoints import LAST, read_facts
from roadsense.training.collection import Collector
from roadsense.training.config import TrainConfig, read_train_config
from roadsense.training.model import build_model
from roadsense.training.ray_connection import running_ray
from roadsense.training.ray_workers import RayWorkers, WorkersConfig
from roadsense.training.remote import open_remote
from roadsense.training.reward_scale import RewardScale
from roadsense.training.sb3 import train
from roadsense.training.vec_env import ConvoyVecEnv

from .fragments import PEERS
from .processes import marked

pytestmark = pytest.mark.usefixtures("require_ray")

TINY = TrainConfig(
    engine="native", seed=3, log_std_start=-1.0, total_timesteps=1536, n_envs=4, n_steps=128, batch_size=128,
    n_epochs=2, eval_every=10**6, eval_episodes=2, checkpoint_every=10**6, tensorboard=False, workers=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def ray():
    with running_ray(4):
        import ray

        yield ray


@pytest.fixture
def digest_of(ray, tmp_path):
    def trained(**changes):
        folder = tmp_path / uuid.uuid4().hex
        return train(dataclasses.replace(TINY, run_dir=str(folder), **changes), progress=False)["weights_digest"]

    return trained


@pytest.fixture(scope="module")
def trained(ray, tmp_path_factory):
    config = dataclasses.replace(TINY, run_dir=str(tmp_path_factory.mktemp("runs") / "one"))
    return config, train(config, progress=False)


@contextlib.contextmanager
def learner(config, env):
    """A model before its first rollout, and what stands for the callbacks."""
    model = build_model(config, env)
    model.set_logger(Logger(None, []))
    _, callback = model._setup_learn(config.total_timesteps, None)
    try:
        yield model, callback
    finally:
        env.close()


def remote_env(config):
    env = open_remote(config, None, RewardScale(config.n_envs, config.gamma, config.reward_clip))
    env.collector = Collector(config, env)
    return env


def rollout(model, callback):
    assert model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_steps)
    buffer = model.rollout_buffer
    names = ("actions", "rewards", "episode_starts", "values", "log_probs", "advantages", "returns")
    found = {name: getattr(buffer, name).copy() for name in names}
    return found | {name: array.copy() for name, array in buffer.observations.items()}


def test_the_buffer_is_the_one_that_driving_in_process_fills(ray, monkeypatch):
    """With the same actions, in three rollouts with updates between them, through collisions and cut episodes."""
    config = dataclasses.replace(TINY, n_steps=210, batch_size=120)
    scale = RewardScale(config.n_envs, config.gamma, config.reward_clip)
    here = ConvoyVecEnv(Player(config.n_envs, engine="native", max_peers=PEERS), scale)
    with learner(config, remote_env(config)) as (far, callback), learner(config, here) as (near, near_callback):
        drawn = []

        def repeat(observed):
            actions = torch.from_numpy(drawn.pop(0))
            values, log_probs, _ = near.policy.evaluate_actions(observed, actions)
            return actions, values, log_probs

        monkeypatch.setattr(near.policy, "forward", repeat)
        cut, collided = 0, 0
        for _ in range(3):
            found = rollout(far, callback)
            drawn[:] = list(found["actions"].reshape(config.n_steps, config.n_envs, 1))
            expected = rollout(near, near_callback)
            for name in ("ego", "peers", "peer_mask", "actions", "episode_starts"):
                assert np.array_equal(found[name], expected[name]), name
            for name in ("rewards", "values", "log_probs", "advantages", "returns"):
                assert np.abs(found[name] - expected[name]).max() <= 1e-5 * max(1.0, np.abs(expected[name]).max()), name
            differ = found["rewards"] != expected["rewards"]  # but where a value was added, rewards are the same bits
            assert differ.sum() <= found["episode_starts"].sum()
            assert list(far.ep_info_buffer) == list(near.ep_info_buffer) and far.num_timesteps == near.num_timesteps
            assert all(np.array_equal(far._last_obs[name], near._last_obs[name]) for name in far._last_obs)
            collided = sum(episode["collision"] for episode in far.ep_info_buffer)
            cut = len(far.ep_info_buffer) - collided
            far.train()
            near.policy.load_state_dict(far.policy.state_dict())
        assert cut >= 2 and collided >= 2
        assert far.env.seeds == near.env.seeds and far.env.played == near.env.played


def test_where_worlds_stand_can_be_kept_and_taken_over(ray):
    with learner(TINY, remote_env(TINY)) as (model, callback):
        for _ in range(3):
            rollout(model, callback)
        env, seen = model.env, {name: array.copy() for name, array in model._last_obs.items()}
        kept = {name: array.copy() for name, array in env.open_episodes().items()}
        assert kept["steps"].any() and not np.array_equal(env.reset()["ego"], seen["ego"])
        again = env.reopen(kept)
        assert all(np.array_equal(again[name], seen[name]) for name in seen)


def test_any_number_of_workers_gives_the_same_weights_in_whatever_order_they_answer(trained, digest_of, monkeypatch):
    expected, turns = trained[1]["weights_digest"], []
    assert digest_of(workers=1) == expected

    def last_first(self, calls, wait_s=1.0):
        ready, _ = self._ray.wait(calls, num_returns=len(calls), timeout=wait_s)
        turns.append(len(ready))
        return list(reversed(ready))

    monkeypatch.setattr(RayWorkers, "_ready", last_first)
    assert digest_of(workers=4) == expected
    assert max(turns) > 1, "answers did come together"
    assert digest_of(workers=1, seed=4) != expected


def test_dagger_gives_the_weights_it_gives_in_process(digest_of):
    config = {"algorithm": "dagger", "dagger_gradients": 10}
    assert digest_of(**config) == digest_of(**config, workers=0)


@pytest.mark.proof
@pytest.mark.usefixtures("require_sumo")
@pytest.mark.parametrize("algorithm", ["ppo", "dagger"])
def test_either_engine_gives_the_same_weights(algorithm, digest_of):
    changes = {"algorithm": algorithm, "n_steps": 256, "dagger_gradients": 10}
    assert digest_of(engine="sumo", **changes) == digest_of(engine="native", **changes)


def test_ppo_after_dagger_drives_with_weights_of_its_own(digest_of, monkeypatch):
    shared, share = [], RayWorkers.share
    monkeypatch.setattr(RayWorkers, "share", lambda self, weights: (shared.append(weights), share(self, weights))[1])
    digest_of(algorithm="dagger+ppo", dagger_timesteps=512, critic_warmup=0, dagger_gradients=10, reminders=2)
    assert [weights.version for weights in shared] == [0, 0, 1]
    assert len({weights.signature.weights_digest for weights in shared}) == 3
    assert [weights.std > 0.0 for weights in shared] == [False, True, True]


def test_weights_are_sent_once_a_version_and_workers_hold_no_torch(ray, monkeypatch):
    shared, held = [], []
    share, close = RayWorkers.share, RayWorkers.close

    def count(self, weights):
        shared.append(weights.version)
        return share(self, weights)

    def look(self):
        held.extend(ray.get([slot.actor.__ray_call__.remote(lambda worker: list(sys.modules)) for slot in self._slots]))
        close(self)

    monkeypatch.setattr(RayWorkers, "share", count)
    monkeypatch.setattr(RayWorkers, "close", look)
    with learner(TINY, remote_env(TINY)) as (model, callback):
        for _ in range(3):
            rollout(model, callback)
    assert shared == [0, 1, 2]
    assert len(held) == 2
    assert all("numba" in modules and not {"torch", "stable_baselines3"} & set(modules) for modules in held)


def test_asynchronous_fragments_are_one_update_old_and_judged_by_the_weights_they_were_driven_with(ray, monkeypatch):
    config = dataclasses.replace(TINY, asynchronous=True, total_timesteps=4 * 512)
    shared, share = [], RayWorkers.share
    monkeypatch.setattr(RayWorkers, "share", lambda self, weights: (shared.append(weights), share(self, weights))[1])
    with learner(config, remote_env(config)) as (model, callback):
        collector, before = model.env.collector, None
        for number in range(4):
            found = rollout(model, callback)
            assert collector._staleness[-1] == (1 if number else 0)
            assert (collector._ahead is not None) == (number < 3), "nothing is driven beyond the end"
            seen = {name: torch.from_numpy(found[name].reshape(-1, *found[name].shape[2:])) for name in model._last_obs}
            raw = torch.from_numpy(found["actions"].reshape(-1, 1))

            def log_probs(state, seen=seen, raw=raw):
                own = {name: value.clone() for name, value in model.policy.state_dict().items()}
                model.policy.load_state_dict(state or own)
                judged = model.policy.evaluate_actions(seen, raw)[1].detach().numpy()
                model.policy.load_state_dict(own)
                return judged

            kept = found["log_probs"].reshape(-1)
            assert np.abs(kept - log_probs(before)).max() <= 1e-5
            if number:
                assert np.abs(kept - log_probs(None)).max() > 1e-4, "the update moved nothing"
            before = {name: value.clone() for name, value in model.policy.state_dict().items()}
            model.train()
            model.policy.log_std.data.sub_(0.1)
        assert [weights.version for weights in shared] == [0, 1, 2]
        assert collector.figures()["staleness"] == {"most": 1, "mean": 0.75}


def test_asynchronous_training_is_reproducible_another_one_and_says_how_old_its_fragments_were(
    trained, digest_of, tmp_path
):
    config = dataclasses.replace(TINY, asynchronous=True, run_dir=str(tmp_path / "one"))
    result = train(config, progress=False)
    assert result["weights_digest"] == digest_of(asynchronous=True, workers=1) != trained[1]["weights_digest"]
    with (tmp_path / "one" / "training.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["staleness"]) for row in rows] == [0.0, 1.0, 1.0]
    assert all(float(row["waited_s"]) >= 0.0 and float(row["redone"]) == 0.0 for row in rows)
    assert result["workers"]["staleness"]["most"] == 1 and result["workers"]["count"] == 2
    assert read_facts(tmp_path / "one" / LAST)["workers"]["redone"] == {"died": 0, "hung": 0, "failed": 0}


def test_a_training_goes_on_with_another_number_of_workers_but_not_without(trained):
    config, first = trained
    assert train(dataclasses.replace(config, workers=4, fragment_limit_s=9.0), progress=False) == first
    with pytest.raises(InputMismatchError, match="another workers"):
        train(dataclasses.replace(config, workers=0), progress=False)


def test_a_worker_with_other_scenarios_is_refused(ray):
    arguments = {"engine": "native", "max_peers": PEERS, "control": "brake", "messages_per_peer": 1}
    with pytest.raises(InputMismatchError, match="a Ray worker has another dataset") as told:
        RayWorkers(WorkersConfig(count=1), 2, arguments, dataset_digest="of another one")
    assert told.value.exit_code == 4
    with pytest.raises(InputMismatchError, match="a Ray worker has other radio parameters"):
        RayWorkers(WorkersConfig(count=1), 2, arguments, radio_digests=["of another one"])
    with pytest.raises(UsageError, match="did you mean 'native'"):
        RayWorkers(WorkersConfig(count=1), 2, {**arguments, "engine": "natve"})


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ({"workers": 3}, "workers is 3; it must be 0 or a divisor of n_envs, which is 8"),
        ({"workers": -1}, "workers is -1; it must be 0 or a divisor"),
        ({"workers": 2, "algorithm": "recurrent-ppo"}, "workers is 2; it must be 0 for recurrent-ppo"),
        ({"ray_address": "auto"}, "ray_address is auto; it must be none without workers"),
        ({"asynchronous": True}, "asynchronous is True; it must be off without workers of PPO"),
        ({"asynchronous": True, "workers": 2, "algorithm": "dagger"}, "asynchronous is True; it must be off without"),
        ({"workers": 2, "fragment_limit_s": 0.0}, "fragment_limit_s is 0.0; it must be above 0"),
    ],
)
def test_impossible_options_are_refused(overrides, told):
    with pytest.raises(UsageError, match=told):
        read_train_config("quick", overrides)


def test_without_ray_one_sentence_names_the_extra(monkeypatch):
    monkeypatch.setattr("roadsense.extras.find_spec", lambda name: None)
    with pytest.raises(RoadsenseError, match=r'^ray is not installed; install it with: pip install "roadsense\[ray\]"'):
        running_ray(1).__enter__()


@pytest.mark.parametrize(
    ("address", "told", "kind"),
    [
        ("127.0.0.1:1", r"ray_address 127\.0\.0\.1:1: no Ray cluster was reached within 5 s \(.*refused\)", 1),
        ("ray://127.0.0.1:10001", "must be auto or host:port", 2),
        ("somewhere", "must be auto or host:port", 2),
    ],
)
def test_an_address_that_nobody_answers_at_is_one_sentence(address, told, kind):
    begun = time.monotonic()
    code = f"from roadsense.training.ray_connection import *; running_ray(1, {address!r}).__enter__()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and time.monotonic() - begun < 30.0
    with pytest.raises(RoadsenseError, match=told) as refused:
        _raise_last(done.stderr)
    assert "\n" not in str(refused.value)
    assert ("UsageError" in done.stderr) == (kind == 2)


def _raise_last(said):
    raise RoadsenseError(said.strip().splitlines()[-1].partition(": ")[2].removeprefix("roadsense: "))


def test_a_port_of_something_else_is_given_up_in_time(monkeypatch):
    import socket

    monkeypatch.setattr("roadsense.training.ray_connection.JOIN_LIMIT_S", 3.0)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(RoadsenseError, match=r"within 3 s \(no cluster answered\); start one with `ray start"):
            running_ray(1, address).__enter__()


def test_the_command_trains_says_where_and_leaves_nothing_running(tmp_path):
    """A Ray of its own, results alone on stdout."""
    mark = uuid.uuid4().hex
    options = ["--engine", "native", "--n-envs", "2", "--n-steps", "128", "--total-timesteps", "256", "--workers", "2",
               "--eval-episodes", "2", "--run-dir", str(tmp_path / "run")]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "roadsense", "train", "--config", "quick", *options],
        env={**os.environ, "ROADSENSE_TEST_MARK": mark}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'run'}\n"), done.stderr
    assert (Path(tmp_path) / "run" / "policy.safetensors").is_file()
    assert marked(mark, wait_s=10.0) == []
