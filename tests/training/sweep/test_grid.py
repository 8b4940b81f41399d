"""A grid is read as it is meant, or refused in one sentence."""

import pytest

from roadsense.errors import ParamsError, UsageError
from roadsense.evaluation.named import shipped
from roadsense.training.config import TrainConfig, read_train_config
from roadsense.training.sweep.grid import read_grid

from .trainings import TINY, write_grid


def points_of(tmp_path, text, base=TINY):
    return read_grid(write_grid(tmp_path, text), base)


def test_every_combination_is_a_point_and_the_base_is_the_first(tmp_path):
    found = points_of(tmp_path, "learning_rate: [1e-3, 3.0e-4]\nhead_widths: [[6], [8, 8]]\n")
    assert [point.name for point in found] == [
        "base", "learning_rate-0.001-head_widths-6", "learning_rate-0.001-head_widths-8x8",
        "learning_rate-0.0003-head_widths-6", "learning_rate-0.0003-head_widths-8x8",
    ]  # fmt: skip
    assert found[0].config == TINY and found[0].overrides == {}
    assert found[2].config.learning_rate == 1e-3 and found[2].config.head_widths == (8, 8)
    assert found[2].label == "learning_rate 0.001, head_widths 8x8"


def test_a_point_that_is_the_base_is_not_trained_twice(tmp_path):
    found = points_of(tmp_path, "learning_rate: [3.0e-3, 1.0e-3]\n")
    assert [point.label for point in found] == ["base", "learning_rate 0.001"]


def test_points_stand_one_by_one_beside_combinations_or_alone(tmp_path):
    found = points_of(tmp_path, "gamma: [0.9]\npoints:\n- {n_epochs: 3, target_kl: 0.02}\n- {gamma: 0.95}\n")
    assert [point.overrides for point in found] == [
        {}, {"gamma": 0.9}, {"n_epochs": 3, "target_kl": 0.02}, {"gamma": 0.95}
    ]  # fmt: skip
    assert len(points_of(tmp_path, "points: [{gamma: 0.9}]\n")) == 2
    none = points_of(tmp_path, "target_kl: [null, 0.02]\n", TrainConfig(target_kl=0.01))
    assert [point.config.target_kl for point in none] == [0.01, None, 0.02]


def test_names_are_those_of_folders_however_long_what_they_say(tmp_path):
    alike = "further_radios: [['lossy:0.3,4.6'], ['lossy:0.3/4.6']]\n"
    long = "phi_widths: [[100, 100, 100, 100, 100, 100, 100]]\n"
    names = [point.name for text in (alike, alike + long) for point in points_of(tmp_path, text)[1:]]
    assert len({*names}) == 4
    for name in names:
        assert len(name) <= 60 and not {*name} - {*"abcdefghijklmnopqrstuvwxyz0123456789._-"}, name


@pytest.mark.parametrize("name", shipped("sweeps"))
def test_shipped_grids_fit_what_their_first_lines_ask_for(name):
    asked = {
        "ppo": read_train_config("ppo"),
        "reminders": read_train_config("standard", {"algorithm": "dagger+ppo", "log_std_start": -2.0}),
    }
    assert len(read_grid(name, asked[name])) == {"ppo": 6, "reminders": 5}[name]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("learnin_rate: [1.0]", r"grid.yaml: 'learnin_rate' is unknown; did you mean 'learning_rate'\?"),
        ("points: [{gama: 0.9}]", r"'gama' is unknown; did you mean 'gamma'\?"),
        ("gamma: []", "gamma lists no values; give one or more, or leave it out"),
        ("gamma: 0.9", "gamma is 0.9; it must be a list of values"),
        ("points: []", "points is empty"),
        ("points: {gamma: 0.9}", "points must be a list of points"),
        ("points: [{}]", "points must be a list of points, each of one or more `name: value`"),
        ("gamma: [0.9, 0.8, 0.9]", "gamma lists 0.9 twice; leave one out"),
        ("gamma: ['9e-1', 0.9]", "states the point gamma 0.9 twice"),
        ("gamma: [0.9]\npoints: [{gamma: 0.9}]", "states the point gamma 0.9 twice"),
        ("gamma: [0.9]\ngamma: [0.8]", "cannot be read as YAML .*'gamma' stands there twice"),
        ("gamma: [0.9", "cannot be read as YAML"),
        ("", "must hold `name: .value, ….` lines"),
        ("{}", "states nothing to vary"),
        ("gamma: [2.0]", r"grid.yaml: gamma is 2.0; it must be above 0 and at most 1"),
        ("head_widths: [64]", "head_widths is 64, input should be a valid tuple"),
        ("seed: [1, 2]", "seed cannot be varied, for --seeds says how many"),
        ("run_dir: [a, b]", "run_dir cannot be varied, for every trial has its own folder"),
        ("points: [{eval_episodes: 5}]", "eval_episodes cannot be varied, for all points are judged on the same"),
    ],
)  # fmt: skip
def test_what_is_no_grid_is_refused_in_one_sentence(tmp_path, text, told):
    with pytest.raises(ParamsError, match=told) as error:
        points_of(tmp_path, text)
    assert "\n" not in str(error.value) and error.value.exit_code == 1


def test_a_grid_that_is_not_there_is_wrong_usage(tmp_path):
    with pytest.raises(UsageError, match=r"grid 'ppoo' is unknown; did you mean 'ppo'\?"):
        read_grid("ppoo", TINY)
    with pytest.raises(UsageError, match=r"none.yaml: no such file; give a YAML file or one of ppo, reminders"):
        read_grid(str(tmp_path / "none.yaml"), TINY)
