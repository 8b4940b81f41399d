"""DAgger: the same bits again, exact continuation, and a student that learns when to brake from what it hears."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO

from roadsense.convoy.player import Player
from roadsense.errors import InputMismatchError, RoadsenseError, StoppedError, UsageError
from roadsense.evaluation.metrics import measure
from roadsense.evaluation.rollout import play
from roadsense.policies.runtime import DeepSetsPolicy, Policy
from roadsense.policies.signature import weights_digest
from roadsense.training.checkpoints import LAST, read_facts
from roadsense.training.config import TrainConfig
from roadsense.training.dagger import Average, Imitation, imitation_loss
from roadsense.training.model import actor_tensors, build_model, weights_of
from roadsense.training.sb3 import train
from roadsense.training.vec_env import ConvoyVecEnv

from .callbacks import At

TINY = TrainConfig(
    algorithm="dagger", engine="native", seed=3, total_timesteps=4000, n_envs=4, n_steps=250, batch_size=64,
    dagger_gradients=15, learning_rate=1e-3, eval_every=2000, eval_episodes=2, checkpoint_every=1000,
    dagger_most_samples=2000, tensorboard=False,
)  # fmt: skip


def interrupt(model):
    raise KeyboardInterrupt


def into(folder, config=TINY, **changes):
    return dataclasses.replace(config, run_dir=str(folder), **changes)


def moments(path):
    """Everything the optimiser remembers."""
    state = PPO.load(path, device="cpu").policy.optimizer.state_dict()["state"]
    return [values[name] for values in state.values() for name in ("exp_avg", "exp_avg_sq", "step")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    config = into(tmp_path_factory.mktemp("runs") / "one")
    return config, train(config, progress=False)


def test_equal_seeds_give_equal_weights_and_different_seeds_different_ones(trained, tmp_path):
    config, result = trained
    again = into(tmp_path / "again")
    assert train(again, progress=False)["weights_digest"] == result["weights_digest"]
    for name in ("policy.safetensors", "signature.json"):
        assert (Path(again.run_dir) / name).read_bytes() == (Path(config.run_dir) / name).read_bytes()
    other = train(into(tmp_path / "other", seed=4, total_timesteps=1000), progress=False)
    assert other["weights_digest"] != result["weights_digest"]


def test_the_folder_holds_what_a_training_owes_and_the_model_is_the_policy(trained):
    config, result = trained
    run = Path(config.run_dir)
    assert json.loads((run / "training.json").read_text()) == result and result["timesteps"] == 4000
    assert result["curve"]["timesteps"] == [1000, 2000, 3000, 4000]
    assert np.isfinite(result["curve"]["imitation_loss"]).all()
    assert [one["timesteps"] for one in result["validations"]] == [2000, 4000]
    assert not list(run.glob("checkpoints/experience*"))
    model = PPO.load(run / "model.zip", device="cpu")
    assert weights_digest(actor_tensors(model)) == result["weights_digest"]
    assert Policy.load(run).signature.weights_digest == result["weights_digest"]


@pytest.mark.parametrize("checkpoint_every", [1000, 2000])
def test_a_stopped_training_goes_on_to_the_same_bits(trained, tmp_path, checkpoint_every):
    """Also where rounds after the last checkpoint have to be done again; the oldest round is forgotten by then."""
    config, result = trained
    stopped = into(tmp_path, checkpoint_every=checkpoint_every)
    at = 2000 if checkpoint_every == 1000 else 3000
    with pytest.raises(StoppedError, match=f"stopped at step 2000 of 4000; {LAST} holds it"):
        train(stopped, progress=False, callback=At(at, interrupt))
    assert read_facts(tmp_path / LAST)["timesteps"] == 2000
    assert np.isfinite(Policy.load(tmp_path)._head[-1][1]).all()
    continued = train(stopped, progress=False)
    assert continued["resumed_at"] == [2000] and continued["weights_digest"] == result["weights_digest"]
    assert continued["validations"] == result["validations"] and continued["best"] == result["best"]
    assert continued["curve"]["imitation_loss"] == pytest.approx(result["curve"]["imitation_loss"], rel=1e-5)
    pairs = list(zip(moments(tmp_path / LAST), moments(Path(config.run_dir) / LAST), strict=True))
    assert len(pairs) >= 18 and all(torch.equal(one, other) for one, other in pairs)


def test_what_is_missing_to_go_on_is_one_sentence(tmp_path):
    with pytest.raises(StoppedError):
        train(into(tmp_path), progress=False, callback=At(2000, interrupt))
    (tmp_path / "checkpoints" / "experience-0001.npz").write_bytes(b"PK")
    with pytest.raises(RoadsenseError, match=r"experience-0001\.npz: cannot be restored .* to train anew\.$") as told:
        train(into(tmp_path), progress=False)
    assert "\n" not in str(told.value)
    with pytest.raises(InputMismatchError, match="another dagger_margin_m"):
        train(into(tmp_path, dagger_margin_m=1.0), progress=False)


@pytest.fixture
def lesson(tmp_path):
    """One round of the teacher's alone, with room for four."""
    config = into(tmp_path, total_timesteps=4000, dagger_most_samples=10**6)
    player = Player(config.n_envs, engine="native", max_peers=4)
    env = ConvoyVecEnv(player)
    imitation = Imitation(config, env, build_model(config, env), tmp_path)
    yield imitation
    env.close()


def test_the_student_sees_the_radio_alone_whatever_the_truth(lesson):
    """What it learns from is what the worlds observe, and a teacher of another mind changes nothing of it."""
    seen, act = [], lesson.teacher.act_many
    lesson.teacher.act_many = lambda observed, truth: np.maximum(0.25, 0.0 * act(observed, truth))
    for margin_m in (0.0, 50.0):
        lesson.experience.rounds, lesson.env.played = 0, [0] * lesson.env.num_envs
        lesson.teacher._margin_m = margin_m
        lesson._drive()
        seen.append({name: array.copy() for name, array in lesson.experience.arrays(0).items()})
    assert all(np.array_equal(seen[0][name], seen[1][name]) for name in seen[0])
    twin = Player(1, engine="native", max_peers=4)
    try:
        twin.reseed(0, lesson.config.seed + 2)
        twin.begin(np.ones(1, np.bool_))
        for step in range(100):
            for name, array in twin.worlds.observation._asdict().items():
                kept = seen[0][name].reshape(lesson.config.n_steps, lesson.env.num_envs, *array.shape[1:])
                assert np.array_equal(kept[step, 2], array[0]), (step, name)
            twin.worlds.step(np.array([0.25]))
    finally:
        twin.close()


def test_half_of_the_worlds_are_the_students_from_the_second_round_on(lesson):
    driven = []

    def note(actions):
        driven.append((lesson.env.worlds.records["action"].copy(), actions))
        return step(actions)

    step, lesson.env.worlds.step = lesson.env.worlds.step, note
    lesson.model.policy.action_net.weight.data.zero_()
    lesson.model.policy.action_net.bias.data.fill_(0.03)  # a request inside of the dead band, which no teacher makes
    lesson.average.step(0)
    lesson._drive()
    assert not any((actions == np.float32(0.03)).any() for _, actions in driven)
    lesson.experience.rounds, driven[:] = 1, []
    lesson._drive()
    assert all((actions[:2] == np.float32(0.03)).all() for _, actions in driven)
    assert not any((actions[2:] == np.float32(0.03)).any() for _, actions in driven)


def test_the_loss_is_that_of_the_clipped_action_and_dear_where_the_teacher_brakes():
    told = torch.tensor([0.0, 0.0, 0.5, 0.5, 1.0, 1.0])
    decided = torch.tensor([-3.0, 0.1, 0.3, 0.9, 1.7, 0.8])
    apart = [float(imitation_loss(d[None], t[None], -0.1, 4.0, 8.0)) for d, t in zip(decided, told, strict=True)]
    assert apart == pytest.approx([0.0, 0.04, 8 * 0.04, 4 * 0.16, 0.0, 8 * 0.04])
    assert float(imitation_loss(decided, told, -0.1, 4.0, 8.0)) == pytest.approx(np.mean(apart))


def test_the_policy_is_the_running_mean_of_weights(trained, tmp_path, lesson):
    bias, seen = lesson.model.policy.action_net.bias.data, []
    average = Average(lesson.model, 0.5)
    for step, value in enumerate((8.0, 4.0, 2.0)):  # 0, 1/11 and 1/6 of the mean stay
        bias.fill_(value)
        average.step(step)
        with average.in_place():
            seen.append(float(bias))
        assert float(bias) == value
    second = 8.0 / 11.0 + 4.0 * 10.0 / 11.0
    assert seen == pytest.approx([8.0, second, second / 6.0 + 2.0 * 5.0 / 6.0])
    average.step(10**6)
    average.settle()
    assert float(bias) == pytest.approx((seen[-1] + 2.0) / 2.0)

    config, result = trained
    last = weights_digest(actor_tensors(PPO.load(Path(config.run_dir) / LAST, device="cpu")))
    assert last != result["weights_digest"]
    plain = train(into(tmp_path / "plain", dagger_average=0.0, eval_every=10**6), progress=False)
    last = weights_digest(actor_tensors(PPO.load(tmp_path / "plain" / LAST, device="cpu")))
    assert last == plain["weights_digest"]


def test_what_the_student_explains_is_judged_before_it_learns(lesson):
    """A student that decides as the teacher does explains all, one that never brakes nothing."""
    *_, explained = lesson._drive()
    assert explained == pytest.approx(0.0, abs=0.05)

    def as_the_student(observed, truth):
        student = weights_of(lesson.model, lesson.config, 0)
        return DeepSetsPolicy("student", student.signature, student.tensors).act_many(observed)

    lesson.teacher.act_many = as_the_student
    lesson.model.policy.action_net.weight.data.mul_(3.0)
    lesson.model.policy.action_net.bias.data.fill_(0.4)
    lesson.average.step(0)
    *_, explained = lesson._drive()
    assert explained == pytest.approx(1.0)


def test_a_short_training_brakes_where_the_teacher_does(tmp_path):
    config = into(tmp_path, n_envs=16, n_steps=400, total_timesteps=25_600, batch_size=256, dagger_gradients=150,
                  dagger_most_samples=10**6, eval_every=10**6)  # fmt: skip
    result = train(config, progress=False)
    loss = result["curve"]["imitation_loss"]
    assert loss[-1] < 0.6 * loss[1]
    player = Player(8, split="val", engine="native", max_peers=4)
    try:
        episodes = [measure(trace) for trace in play(Policy.load(tmp_path), player, 40)]
    finally:
        player.close()
    hazards = [one for one in episodes if one.hazard_happened]
    assert len(hazards) >= 20 and sum(one.collision for one in hazards) <= 0.2 * len(hazards)  # 80 % with nobody's help
    calm = sum(one.calm_braking_steps for one in episodes) / sum(one.calm_steps for one in episodes)
    assert calm < 0.1


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"control": "acceleration"}, "control is 'acceleration'; the teacher of dagger only brakes"),
        ({"dagger_student_share": 1.5}, r"dagger_student_share is 1\.5; it must be from 0 to 1"),
        ({"dagger_margin_m": -1.0}, r"dagger_margin_m is -1\.0; it must be from 0 to 100"),
        ({"dagger_average": 1.0}, r"dagger_average is 1\.0; it must be from 0 to below 1"),
        ({"dagger_gradients": 0}, "dagger_gradients is 0; it must be at least 1"),
        ({"dagger_braking_weight": 0.0}, r"dagger_braking_weight is 0\.0; it must be above 0"),
        ({"algorithm": "dagger+ppo", "dagger_timesteps": 4000}, "dagger_timesteps is 4000; it must be at least 1 and"),
        ({"algorithm": "daggre"}, "algorithm 'daggre' is unknown; did you mean 'dagger'"),
    ],
)
def test_impossible_options_are_refused(changes, told):
    with pytest.raises(UsageError, match=told) as refused:
        dataclasses.replace(TINY, **changes)
    assert "\n" not in str(refused.value)


def test_a_further_radio_is_another_training(trained, tmp_path):
    """Also where it is the same one again: drawing it must not disturb anything else."""
    _, result = trained
    twice = train(into(tmp_path / "twice", further_radios=("convoy",)), progress=False)
    assert twice["weights_digest"] == result["weights_digest"] and twice["radio_digest"] != result["radio_digest"]
    other = train(into(tmp_path / "other", further_radios=("lossy:0.3,4.6",), total_timesteps=1000), progress=False)
    assert other["curve"]["imitation_loss"][0] != pytest.approx(result["curve"]["imitation_loss"][0], rel=1e-5)


def test_a_radio_that_does_not_exist_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UsageError, match="did you mean 'convoy'"):
        train(into(tmp_path / "run", further_radios=("drive", "convy")), progress=False)
    assert not (tmp_path / "run").exists()


BOTH = dataclasses.replace(
    TINY, algorithm="dagger+ppo", total_timesteps=5000, dagger_timesteps=2000, critic_warmup=1000, reminders=3,
    n_epochs=1, checkpoint_every=1000,
)  # fmt: skip


def test_ppo_goes_on_from_the_student_whose_critic_learns_alone_at_first(tmp_path):
    """Weights after DAgger are those of DAgger alone, stay so while the critic warms up, and move after that."""
    alone = into(tmp_path / "alone", total_timesteps=2000)
    train(alone, progress=False)
    student = Policy.load(alone.run_dir).signature.weights_digest
    seen = {}

    def look(model):
        seen.setdefault(
            (model.num_timesteps - 1) // 1000,
            (weights_digest(actor_tensors(model)), model.policy.value_net.weight.clone()),
        )

    result = train(into(tmp_path / "both", BOTH), progress=False, callback=At(2000, look))
    assert result["timesteps"] == 5000 and result["curve"]["timesteps"] == [1000, 2000, 3000, 4000, 5000]
    assert seen[2][0] == seen[3][0] == student != seen[4][0]
    assert not torch.equal(seen[2][1], seen[3][1])
    loss, noise = result["curve"]["imitation_loss"], result["curve"]["noise_std"]
    assert [value is not None for value in loss] == [True, True, False, False, True]
    assert noise[:2] == [None, None] and noise[2] == pytest.approx(np.exp(BOTH.log_std_start), rel=1e-4)


def test_a_killed_dagger_and_ppo_goes_on_in_either_half(tmp_path):
    for at, resumed in ((1000, 1000), (4004, 4000)):
        config = into(tmp_path / str(at), BOTH)
        with pytest.raises(StoppedError, match=f"stopped at step {resumed} of 5000"):
            train(config, progress=False, callback=At(at, interrupt))
        result = train(config, progress=False)
        assert result["resumed_at"] == [resumed] and result["timesteps"] >= 5000
        assert result["validations"][-1]["timesteps"] == result["timesteps"]
        assert not list(Path(config.run_dir).glob("checkpoints/experience*"))
