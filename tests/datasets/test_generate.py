import hashlib
import json
import re
from collections import Counter
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from roadsense._data import params_dir
from roadsense.convoy.player import Player
from roadsense.datasets.config import GenerateConfig, Ranges
from roadsense.datasets.envelope import envelope_problems, presence_problems
from roadsense.datasets.generate import generate
from roadsense.datasets.road import road_of
from roadsense.errors import InputMismatchError, RoadsenseError, ScenarioError, UsageError
from roadsense.scenario import read_scenario
from roadsense.traffic.route import RouteCatalogue

from .conftest import SMALL

SCHEMA = json.loads(Path(__file__).with_name("dataset_manifest.schema.json").read_text(encoding="utf-8"))


def tiny(tmp_path, **changes):
    return GenerateConfig(**{"seed": 1, "train": 2, "val": 1, "eval": 3, "datasets_dir": str(tmp_path), **changes})


def tree(root):
    return {file.relative_to(root).as_posix(): file.read_bytes() for file in root.rglob("*") if file.is_file()}


def entries(dataset):
    return [entry for split in dataset.manifest["splits"].values() for entry in split]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(dataset, tmp_path):
    again = generate(GenerateConfig(**SMALL, datasets_dir=str(tmp_path)))
    assert tree(again.root) == tree(dataset.root)
    other = generate(GenerateConfig(**{**SMALL, "seed": 6}, datasets_dir=str(tmp_path)))
    same = [path for path, data in tree(other.root).items() if path.endswith("rou.xml") and data in
            tree(dataset.root).values()]  # fmt: skip
    assert same == []


def test_the_manifest_follows_its_schema_and_every_digest_holds(dataset):
    manifest = json.loads((dataset.root / "manifest.json").read_text(encoding="utf-8"))
    jsonschema.validate(manifest, SCHEMA)
    files = tree(dataset.root)
    del files["manifest.json"]
    assert {file["path"]: (file["sha256"], file["bytes"]) for file in manifest["files"]} == {
        path: (hashlib.sha256(data).hexdigest(), len(data)) for path, data in files.items()
    }
    listing = "".join(f"{hashlib.sha256(data).hexdigest()}  {path}\n" for path, data in sorted(files.items()))
    assert manifest["content_digest"] == hashlib.sha256(listing.encode()).hexdigest()
    own = {path: data for path, data in files.items() if path.startswith(manifest["splits"]["val"][3]["path"] + "/")}
    listing = "".join(f"{hashlib.sha256(data).hexdigest()}  {path}\n" for path, data in sorted(own.items()))
    assert len(own) == 4
    assert manifest["splits"]["val"][3]["digest"] == hashlib.sha256(listing.encode()).hexdigest()
    assert files["params.json"] == (params_dir() / "espnow" / "convoy.json").read_bytes()
    assert dataset.problems() == []


def test_eval_holds_a_road_out_and_drives_on_all(dataset):
    roads = {split: Counter(entry["base"] for entry in found) for split, found in dataset.manifest["splits"].items()}
    assert roads["train"] == {"straight": 16, "curve": 16}
    assert roads["val"] == {"straight": 4, "curve": 4}
    assert roads["eval"] == {"straight": 10, "curve": 10, "arterial": 10}
    assert all(("held-out" in entry["tags"]) == (entry["base"] == "arterial") for entry in entries(dataset))


def test_hazards_and_peer_counts_have_the_shares_that_were_asked_for(dataset):
    train = dataset.manifest["splits"]["train"]
    assert Counter(entry["parameters"]["hazard"] for entry in train) == {
        "emergency_brake": 23, "stalled_vehicle": 1, "none": 8,  # of 32: 75 % hazards, 5 % of these stalled
    }  # fmt: skip
    assert Counter(entry["peer_count"] for entry in train) == dict.fromkeys(range(1, 9), 4)
    kinds = {read_scenario(dataset.root / entry["path"]).episode.hazard.kind for entry in train}
    assert kinds == {"emergency_brake", "stalled_vehicle", "none"}


def test_every_scenario_is_drawn_on_its_own(dataset):
    assert len({entry["seed"] for entry in entries(dataset)}) == 70
    speeds = [entry["parameters"]["speed_mps"] for entry in entries(dataset)]
    assert len(set(speeds)) > 60
    assert min(speeds) >= 8.0
    assert max(speeds) <= 25.0
    starts = [entry["parameters"]["start_m"] for entry in entries(dataset) if entry["base"] == "curve"]
    assert max(starts) - min(starts) > 1000  # all over the road, not in one place
    drivers = Counter(entry["parameters"]["attentive"] for entry in entries(dataset))
    assert 4 <= drivers[True] <= 26  # 20 % of 70, within 3.5 standard deviations


def test_convoys_begin_at_one_speed_with_the_room_that_their_headways_ask_for(dataset):
    for entry in entries(dataset):
        scenario, parameters = read_scenario(dataset.root / entry["path"]), entry["parameters"]
        speed = parameters["speed_mps"]
        moving = [car for car in scenario.vehicles if car.depart_speed_mps > 0]
        assert {car.depart_speed_mps for car in moving} == {speed}
        assert len(moving) == len(scenario.vehicles) - (parameters["hazard"] == "stalled_vehicle")
        least = [2.5 + speed * car.type.tau_s for car in moving]  # minGap + v·tau
        gaps = parameters["gap_m"]
        assert gaps[0] >= 7.0
        for car, gap in enumerate(gaps[: len(moving) - 1]):
            upper = max(1.5 * least[car], 7.0 if car == 0 else 0.0)
            assert least[car] <= gap <= upper + 0.05  # places are rounded to a centimetre
        assert all(car.type.emergency_decel_mps2 >= 6.0 for car in scenario.vehicles)
        if entry["base"] != "straight":  # limits drop there
            assert all(car.type.decel_mps2 <= 2.5 for car in scenario.vehicles)


def test_every_scenario_lies_within_the_safe_envelope(dataset):
    catalogue = RouteCatalogue()
    for entry in entries(dataset):
        scenario = read_scenario(dataset.root / entry["path"])
        assert presence_problems(scenario) == []
        assert envelope_problems(scenario, road_of(scenario, catalogue)) == []


def test_the_dataset_that_is_there_is_left_alone(tmp_path):
    first = generate(tiny(tmp_path, dataset_id="mine"))
    before = {path: (first.root / path).stat().st_mtime_ns for path in tree(first.root)}
    again = generate(tiny(tmp_path, dataset_id="mine"))
    assert again.digest == first.digest
    assert {path: (again.root / path).stat().st_mtime_ns for path in tree(again.root)} == before
    assert [folder.name for folder in tmp_path.iterdir()] == ["mine"]


def test_another_dataset_of_that_name_is_refused_and_stays(tmp_path):
    first = generate(tiny(tmp_path, dataset_id="mine"))
    before = tree(first.root)
    with pytest.raises(InputMismatchError, match=r"mine: holds another dataset \(it differs in .*seed.*\)") as caught:
        generate(tiny(tmp_path, dataset_id="mine", seed=2))
    assert caught.value.exit_code == 4
    assert tree(first.root) == before
    assert [folder.name for folder in tmp_path.iterdir()] == ["mine"]


def test_a_changed_byte_in_the_dataset_that_is_there_is_found(tmp_path):
    root = generate(tiny(tmp_path)).root
    file = next(root.rglob("vehicles.rou.xml"))
    file.write_text(file.read_text() + "<!-- -->")
    with pytest.raises(InputMismatchError, match=re.escape(str(file))):
        generate(tiny(tmp_path))


def test_a_convoy_that_fits_nowhere_leaves_nothing_behind(tmp_path):
    ranges = Ranges(peer_count=(16, 16), speed_mps=(24.5, 25.0))
    with pytest.raises(
        ScenarioError,
        match=r"straight: no place was found for 16 peers at 24.5 m/s or more with 43 s to drive on 3500 m",
    ):
        generate(tiny(tmp_path, ranges=ranges))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"base_scenarios": ("straight", "curv")}, UsageError, "'curv' is neither .* did you mean 'curve'"),
        ({"base_scenarios": ("curve", "curve")}, UsageError, "'curve' is named twice"),
        ({"base_scenarios": ("curve",)}, UsageError, "none is left to train on"),
        ({"held_out": ("arteral",)}, UsageError, "'arteral' is not among the base scenarios; did you mean 'arterial'"),
        ({"emulator_params": "convoi"}, UsageError, "did you mean 'convoy'"),
        ({"emulator_params": "off"}, UsageError, "radio 'off' has no file; generate with a profile"),
    ],
)
def test_what_does_not_exist_is_named_and_nothing_is_written(tmp_path, changes, kind, message):
    with pytest.raises(kind, match=message):
        generate(tiny(tmp_path / "deep", **changes))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RoadsenseError, match=r"file/.*: cannot be written \(File exists\)"):
        generate(tiny(tmp_path / "file"))


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"tau": (0.05, 1.0)}, r"tau is 0.05 to 1.0; the safe envelope is 0.1 to 3.0"),
        ({"hazard_decel_mps2": (3.0, 9.5)}, "hazard_decel_mps2 is 3.0 to 9.5; the safe envelope is 0.5 to 9.0"),
        ({"peer_count": (0, 4)}, "peer_count is 0 to 4"),
        ({"speed_mps": (20.0, 10.0)}, "state two numbers, the lower one first"),
        ({"tau": (float("nan"), 1.0)}, "state two numbers, the lower one first"),
        ({"hazard_onset_s": (5.0, 26.0)}, "hazard_onset_s is 5.0 to 26.0"),
    ],
)
def test_ranges_outside_of_the_safe_envelope_are_refused_by_name(stated, message):
    with pytest.raises(UsageError, match=message):
        Ranges(**stated)


@pytest.mark.usefixtures("require_sumo")
def test_background_traffic_of_the_base_is_scaled_and_drives(busy_base, tmp_path):
    found = generate(
        tiny(tmp_path / "out", base_scenarios=("curve", str(busy_base)), ranges=Ranges(vehsPerHour=(0.5, 0.5)))
    )
    jsonschema.validate(found.manifest, SCHEMA)
    entry = next(entry for entry in entries(found) if entry["base"] == "busy")
    assert entry["parameters"]["vehsPerHour"] == 0.5
    assert 'vehsPerHour="300"' in (found.root / entry["path"] / "vehicles.rou.xml").read_text()
    player = Player(1, scenario=str(found.root / entry["path"]))
    try:
        player.begin(np.ones(1, np.bool_))
        cars = int(player.worlds.traffic.state.alive.sum())
        assert cars == entry["peer_count"] + 1
        for _ in range(200):
            player.worlds.step(np.ones(1))
        assert player.worlds.traffic.state.alive.sum() > cars
    finally:
        player.close()


def test_a_density_that_is_no_number_is_named(busy_base, tmp_path):
    routes = busy_base / "vehicles.rou.xml"
    routes.write_text(routes.read_text().replace('vehsPerHour="600"', 'vehsPerHour="many"'))
    with pytest.raises(ScenarioError, match=r"vehicles.rou.xml: flow 'back' states no density as a number"):
        generate(tiny(tmp_path / "out", base_scenarios=("curve", str(busy_base))))
