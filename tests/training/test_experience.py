"""What a process elsewhere is told of a training's experience."""

import dataclasses
import os

from roadsense.training.config import TrainConfig
from roadsense.training.experience import anywhere, play_arguments


def test_paths_hold_in_another_folder_and_names_stay_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("")
    config = TrainConfig(
        dataset_dir="data", init_from="weights", emulator_params="mine.yaml", further_radios=("ideal", "mine.yaml")
    )
    found = dataclasses.replace(config, **anywhere(vars(config)))
    here = os.getcwd()
    assert (found.dataset_dir, found.init_from, found.eval_dir) == (f"{here}/data", f"{here}/weights", None)
    assert (found.emulator_params, found.further_radios) == (f"{here}/mine.yaml", ("ideal", f"{here}/mine.yaml"))
    same = ("dataset_dir", "init_from", "emulator_params", "further_radios")
    others = {key: value for key, value in vars(config).items() if key not in same}
    assert {key: vars(found)[key] for key in others} == others
    alone = play_arguments(TrainConfig(), "train")
    assert anywhere(alone) == alone and anywhere({**alone, "radio": ["mine.yaml"]})["radio"] == [f"{here}/mine.yaml"]
