import json
import re
import shutil

import numpy as np
import pytest

from roadsense.cli import main
from roadsense.datasets.check import ScenarioDrive, check, driving_problems
from roadsense.datasets.road import road_of
from roadsense.errors import InputMismatchError, ScenarioError
from roadsense.espnow.profiles import read_params
from roadsense.manifest import file_digest, tree_digest
from roadsense.randomness import episode_seed
from roadsense.scenario import read_scenario
from roadsense.traffic.route import RouteCatalogue

pytestmark = pytest.mark.usefixtures("require_sumo")


@pytest.fixture
def copy(dataset, tmp_path):
    """A copy of three scenarios of ``val`` and the one with most peers, which a test may damage."""
    root = tmp_path / "copy"
    manifest = json.loads((dataset.root / "manifest.json").read_text())
    val = sorted(manifest["splits"]["val"], key=lambda entry: entry["peer_count"])
    kept = [entry for entry in val if entry["parameters"]["hazard"] == "emergency_brake"][-3:]
    for entry in kept:
        shutil.copytree(dataset.root / entry["path"], root / entry["path"])
    shutil.copy(dataset.root / "params.json", root)
    manifest["splits"] = {"val": kept}
    (root / "manifest.json").write_text(json.dumps(manifest))
    sign(root)
    return root


def sign(root):
    """Makes the manifest fit the files as they are, so that only what they state can be wrong."""
    manifest = json.loads((root / "manifest.json").read_text())
    files = [file for file in root.rglob("*") if file.is_file() and file.name != "manifest.json"]
    manifest["files"] = [
        {"path": file.relative_to(root).as_posix(), "sha256": file_digest(file), "bytes": file.stat().st_size}
        for file in files
    ]
    manifest["content_digest"] = tree_digest((file["path"], file["sha256"]) for file in manifest["files"])
    for entry in (entry for split in manifest["splits"].values() for entry in split):
        own = [file for file in manifest["files"] if file["path"].startswith(f"{entry['path']}/")]
        entry["digest"] = tree_digest((file["path"], file["sha256"]) for file in own)
    (root / "manifest.json").write_text(json.dumps(manifest))


def crowded(root):
    """Folder of the scenario with most peers."""
    entry = max(json.loads((root / "manifest.json").read_text())["splits"]["val"], key=lambda one: one["peer_count"])
    assert entry["peer_count"] >= 4
    return root / entry["path"]


def change(folder, pattern, replacement, name="vehicles.rou.xml"):
    text = (folder / name).read_text()
    changed = re.sub(pattern, replacement, text, count=1, flags=re.DOTALL)
    assert changed != text
    (folder / name).write_text(changed)


def found(root):
    return check(root, progress=False).problems


def place(folder, car):
    return float(re.search(rf'id="{car}".*?departPos="([0-9.]+)"', (folder / "vehicles.rou.xml").read_text())[1])


def test_what_was_generated_has_no_problem(dataset):
    result = check(dataset.root, progress=False)
    assert result.scenarios == 70
    assert result.problems == []
    result.raise_problems()


def test_a_late_ego_is_reported(copy):
    change(crowded(copy), r'(id="V001" type="[^"]+") depart="0"', r'\1 depart="5"')
    sign(copy)
    assert found(copy) == [f"{crowded(copy)}: V001 is not on the road at t = 0 with its place and speed in numbers"]


def test_who_is_not_where_it_is_stated_at_the_first_step_is_reported(copy):
    scenario = read_scenario(crowded(copy))
    driver, road = ScenarioDrive(8, read_params("convoy")), road_of(scenario, RouteCatalogue())
    try:
        trace = driver.drive(scenario, 1)
    finally:
        driver.close()
    assert list(driving_problems(scenario, trace, road)) == []
    off_m, off_mps = np.zeros_like(trace.position_m), np.zeros_like(trace.speed_mps)
    off_m[0, 0], off_mps[0, 1] = 0.001, 0.002
    moved = trace._replace(position_m=trace.position_m + off_m, speed_mps=trace.speed_mps + off_mps)
    assert [problem.split(" (")[0] for problem in driving_problems(scenario, moved, road)] == [
        "V001 is not where it is stated at t = 0", "V002 is not where it is stated at t = 0"
    ]  # fmt: skip


def test_an_ego_of_another_name_is_reported(copy):
    change(crowded(copy), 'vehicle id="V001"', 'vehicle id="V900"')
    sign(copy)
    (problem,) = found(copy)
    assert "no vehicle V001 in its route files" in problem


def test_a_file_that_does_not_parse_is_reported(copy):
    change(crowded(copy), "</routes>", "")
    sign(copy)
    (problem,) = found(copy)
    assert "vehicles.rou.xml: not well-formed XML" in problem


def test_peers_that_cannot_brake_are_reported(copy):
    change(crowded(copy), r'(id="type-V003".*?)emergencyDecel="9"', r'\1emergencyDecel="4.5"')
    sign(copy)
    assert f"{crowded(copy)}: V003 has emergencyDecel 4.5, below 6" in found(copy)


def test_a_car_too_close_is_reported(copy):
    folder = crowded(copy)
    behind = place(folder, "V001") + 5.0 + 3.0  # its length and 3 m
    change(folder, r'(id="V002" type="[^"]+" depart="0" departLane="0") departPos="[^"]+"', rf'\1 departPos="{behind}"')
    sign(copy)
    assert any("V001 is 3.00 m behind V002, closer than" in problem for problem in found(copy))


def test_peers_inside_each_other_are_reported(copy):
    folder = crowded(copy)
    inside = place(folder, "V003") + 2.0
    change(folder, r'(id="V004" type="[^"]+" depart="0" departLane="0") departPos="[^"]+"', rf'\1 departPos="{inside}"')
    sign(copy)
    assert any(problem.endswith("two peers touch after 0.1 s") for problem in found(copy))


def test_a_formation_that_breaks_by_itself_is_reported(copy):
    change(crowded(copy), r'(id="V003" type="[^"]+" .*?departSpeed=)"[^"]+"', r'\1"1"')
    sign(copy)
    problems = found(copy)
    assert any("the convoy departs at 2 speeds, from 1 to" in problem for problem in problems)
    assert any("though nothing has happened" in problem or "two peers touch" in problem for problem in problems)


def test_a_route_too_short_is_reported(copy):
    folder = crowded(copy)
    net = folder / "network.net.xml"
    text = net.read_text()
    edges = (folder / "vehicles.rou.xml").read_text()
    last = re.findall(r'route edges="([^"]+)"', edges)[0].split()[-1]
    lane = re.search(rf'<lane id="{last}_0"[^>]*? length="([0-9.]+)"', text)
    shape = re.search(rf'<lane id="{last}_0"[^>]*? shape="[^"]* ([0-9.,]+)"', text)
    assert lane
    assert shape
    front = max(place(folder, car) for car in re.findall(r'vehicle id="(V\d+)"', edges))
    short = front + 60.0 if len(re.findall(r'route edges="([^"]+)"', edges)[0].split()) == 1 else 60.0
    net.write_text(text.replace(lane[0], lane[0].replace(f'length="{lane[1]}"', f'length="{short:.2f}"')))
    sign(copy)
    problems = found(copy)
    assert any("the route is too short: V" in problem and "may reach" in problem for problem in problems)


def test_a_hazard_of_a_car_that_is_not_there_is_reported(copy):
    change(crowded(copy), r'"rank": \[\s*1,', '"rank": [20,', "episode.json")
    change(crowded(copy), r'("rank": \[20,\s*)\d+', r"\g<1>20", "episode.json")
    sign(copy)
    assert any("the hazard's rank is 20 or more, but" in problem for problem in found(copy))


def test_a_wrong_number_of_peers_in_the_manifest_is_reported(copy):
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["splits"]["val"][0]["peer_count"] = 12
    (copy / "manifest.json").write_text(json.dumps(manifest))
    (problem,) = found(copy)
    assert problem.endswith("but the manifest states 12")


def test_radio_parameters_that_are_impossible_are_reported(copy):
    change(copy, r'"stale_after_ms": [0-9.]+', '"stale_after_ms": -1', "params.json")
    sign(copy)
    assert any("stale_after_ms is -1" in problem for problem in found(copy))


def test_all_problems_are_reported_at_once_with_the_changed_files(copy):
    folders = [copy / entry["path"] for entry in json.loads((copy / "manifest.json").read_text())["splits"]["val"]]
    change(folders[0], r'(id="V001" type="[^"]+") depart="0"', r'\1 depart="5"')
    change(folders[1], r'(id="type-V002".*?)emergencyDecel="9"', r'\1emergencyDecel="5"')
    change(folders[2], "</routes>", "")
    (copy / "notes.txt").write_text("mine")
    result = check(copy, progress=False)
    for folder in folders:
        assert any(problem.startswith(f"{folder / 'vehicles.rou.xml'}: has changed") for problem in result.problems)
    for said in ("V001 is not on the road", "emergencyDecel 5, below 6", "not well-formed", "notes.txt: is not listed"):
        assert sum(said in problem for problem in result.problems) == 1
    assert result.changed_files
    with pytest.raises(InputMismatchError, match=r"has changed since .* \(and 6 more\)"):
        result.raise_problems()


def test_exit_codes_of_the_verb(copy, capsys):
    assert main(["check", str(copy)]) == 0
    assert "all 3 scenarios drive as stated" in capsys.readouterr().out
    change(crowded(copy), r'(id="type-V002".*?)emergencyDecel="9"', r'\1emergencyDecel="5"')
    assert main(["check", str(copy)]) == 4
    sign(copy)
    assert main(["check", str(copy)]) == 1
    out, err = capsys.readouterr()
    assert "V002 has emergencyDecel 5, below 6" in out
    assert "1 problems in 3 scenarios" in err
    assert main(["check", str(copy / "nowhere")]) == 1
    assert "nowhere/manifest.json: no such file" in capsys.readouterr().err
    with pytest.raises(ScenarioError):
        check(copy / "nowhere", progress=False)


def test_no_hazard_is_unavoidable_and_no_peers_touch(dataset):
    """Full braking from the onset on always avoids contact: n >= 100 hazards over 70 scenarios, each with two seeds."""
    driver = ScenarioDrive(8, read_params("convoy"))
    hazards = scenarios = 0
    try:
        for split in dataset.manifest["splits"].values():
            for entry in split:
                scenario = read_scenario(dataset.root / entry["path"], entry["id"])
                for index in (1, 2):  # the check itself drove episode 0
                    trace = driver.drive(scenario, episode_seed(entry["seed"], index))
                    assert trace.end_reason == 2, (entry["id"], index)  # the horizon: no contact of anybody
                    hazards += trace.hazard_kind > 0
                scenarios += 1
    finally:
        driver.close()
    assert scenarios >= 60
    assert hazards >= 100


def test_a_gap_without_reserve_makes_hazards_unavoidable(copy):
    """The opposite of the law above, so that it is known to be able to fail."""
    folder = crowded(copy)
    behind = place(folder, "V001") + 5.0 + 0.5
    change(folder, r'(id="V002" type="[^"]+" depart="0" departLane="0") departPos="[^"]+"', rf'\1 departPos="{behind}"')
    change(folder, r'"onset_s": \[\s*5.0,\s*20.0', '"onset_s": [0.0, 0.0', "episode.json")
    change(folder, r'"decel_mps2": \[\s*3.0', '"decel_mps2": [9.0', "episode.json")
    change(folder, r'"rank": \[\s*1,\s*\d+', '"rank": [1, 1', "episode.json")
    sign(copy)
    assert any("although it brakes fully from the hazard on" in problem for problem in found(copy))
