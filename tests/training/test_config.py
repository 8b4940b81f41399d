"""A training is told what to do by a preset or file, then by overrides; nonsense is refused in one sentence."""

import dataclasses

import pytest

from roadsense import pipeline
from roadsense.errors import ParamsError, UsageError
from roadsense.training.config import PRESETS, TrainConfig, read_train_config


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_whole(preset):
    config = read_train_config(preset)
    assert config.algorithm == {"standard": "dagger", "rllib": "rllib-ppo"}.get(preset, "ppo")
    assert config.batch_size == 1024 and config.n_epochs == 10
    assert (config.log_std_end, config.control) == (-3.4, "brake")
    assert config.widths.multiply_adds(8) <= 20_000


def test_overrides_win_over_the_file_and_none_overrides_nothing(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("seed: 3\nphi_widths: [8, 9]\nlearning_rate: 1\n")
    config = read_train_config(path, {"seed": 5, "n_envs": None})
    assert config == TrainConfig(seed=5, phi_widths=(8, 9), learning_rate=1.0)
    assert read_train_config(path).seed == 3


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("lerning_rate: 1", "'lerning_rate' is unknown; did you mean 'learning_rate'"),
        ("n_envs: many", "n_envs is 'many'"),
        ("n_envs: 2.5", r"n_envs is 2\.5"),
        ("gamma: 1.5", r"gamma is 1\.5; it must be above 0 and at most 1"),
        ("algorithm: sac", "algorithm 'sac' is unknown; known are: dagger, dagger.ppo, ppo, recurrent-ppo, rllib-ppo"),
        ("- a\n- b", "must hold `name: value` lines"),
        ("a: [", "cannot be read as YAML"),
    ],
)
def test_a_file_with_nonsense_is_named(tmp_path, text, told):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ParamsError, match=told) as error:
        read_train_config(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ({"algorithm": "pop"}, "algorithm 'pop' is unknown; did you mean 'ppo'"),
        ({"control": "breake"}, "did you mean 'brake'"),
        ({"sead": 1}, "'sead' is unknown; did you mean 'seed'"),
        ({"n_envs": 0}, "n_envs is 0; it must be at least 1"),
        ({"n_envs": 1, "n_steps": 1031}, r"n_envs \* n_steps is 1031; it must be divisible into parts of 2 or more"),
        ({"phi_widths": []}, "phi_widths"),
        ({"n_env_runners": 2}, "n_env_runners is 2; it must be 0 but for rllib-ppo"),
        ({"n_env_runners": -1}, "n_env_runners is -1; it must be 0 or more"),
        (
            {"algorithm": "rllib-ppo", "n_env_runners": 3},
            "n_envs is 8; it must be a multiple of n_env_runners, which is 3",
        ),
        ({"algorithm": "rllib-ppo", "target_kl": 0.1}, r"target_kl is 0\.1; it must be none for rllib-ppo"),
        ({"algorithm": "rlib-ppo"}, "did you mean 'rllib-ppo'"),
    ],
)
def test_impossible_overrides_are_refused(overrides, told):
    with pytest.raises(UsageError, match=told):
        read_train_config("quick", overrides)


@pytest.mark.parametrize(("n_envs", "expected"), [(8, 1024), (4, 1024), (3, 768), (2, 512), (7, 896)])
def test_any_number_of_worlds_cuts_its_rollouts_into_equal_parts(n_envs, expected):
    config = read_train_config("quick", {"n_envs": n_envs})  # 256 steps a world
    assert config.minibatch_size == expected
    assert n_envs * 256 % expected == 0


def test_unknown_presets_are_refused_with_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'quick'"):
        read_train_config("quik")
    with pytest.raises(UsageError, match="no such file"):
        read_train_config("nowhere.yaml")


def test_every_field_is_documented():
    """tyro shows the line under a field as its help."""
    from tyro._docstrings import get_field_docstring

    missing = [f.name for f in dataclasses.fields(TrainConfig) if not get_field_docstring(TrainConfig, f.name, ())]
    assert not missing


def test_every_preset_of_the_pipeline_has_a_preset_of_training():
    assert set(pipeline.PRESETS) <= set(PRESETS)
