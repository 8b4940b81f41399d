import csv
import json
import math

import numpy as np
import pytest

from roadsense.errors import RoadsenseError
from roadsense.evaluation.journal import HEAD, Row, write_episodes
from roadsense.evaluation.metrics import measure
from roadsense.evaluation.summary import summarise, table

from .traces import braking_hazard, pulse, trace


def episodes():
    """Two hazards, one of them a collision, one hazard-free episode with a false brake, and one that is invalid."""
    return [
        measure(braking_hazard(scenario_id="a", end_reason=1, impact_speed_mps=8.0)),
        measure(braking_hazard(scenario_id="b", demand_mps2=pulse(20, (8, 20)))),
        measure(trace(scenario_id="c", demand_mps2=pulse(20, (3, 6)))),
        measure(trace(scenario_id="d", end_reason=4, demand_mps2=pulse(20, (3, 6)))),
    ]


def test_invalid_episodes_are_counted_and_left_out_of_everything_else():
    found = summarise("mine", episodes())
    assert (found["episodes"], found["invalid_episodes"]) == (3, 1)
    assert (found["collisions"]["count"], found["collisions"]["n"]) == (1, 3)
    assert (found["collisions_in_hazards"]["count"], found["collisions_in_hazards"]["n"]) == (1, 2)
    assert (found["collisions_without_hazard"]["count"], found["collisions_without_hazard"]["n"]) == (0, 1)
    assert (found["never_reacted"]["count"], found["never_reacted"]["n"]) == (1, 2)
    # one, over 40 m without a hazard and twice the 10 m before one
    assert found["false_brakes_per_calm_km"]["value"] == pytest.approx(1 / 0.06)
    assert found["false_brakes_per_calm_km_without_hazard"]["value"] == pytest.approx(1 / 0.04)
    assert found["impact_speed_mps"] == {"n": 1, "min": 8.0, "p05": 8.0, "p50": 8.0, "p95": 8.0, "max": 8.0}
    assert found["reaction_from_onset_s"]["p50"] == pytest.approx(0.3)


def test_every_figure_has_its_n():
    found = summarise("mine", episodes())
    for name, below in found.pop("ttc_below").items():
        assert below["n"] == 3, name
    plain = {
        "policy", "radio", "failed_episodes", "num_failed", "events_version", "confidence", "episodes",
        "invalid_episodes", "hazards_planned", "hazards_happened", "distance_km", "calm_distance_km",
    }  # fmt: skip
    for name in set(found) - plain:
        assert "n" in found[name], name
    for name in ("collisions", "truncations", "never_reacted", "average_reward", "false_brakes_per_calm_km"):
        assert found[name]["low"] <= found[name].get("rate", found[name].get("value")) <= found[name]["high"], name


def test_quantiles_are_values_that_occurred_and_never_flatter():
    """Of 0.1 … 1.0 s the 95th percentile is the slowest, of times to collision the 5th is the shortest."""
    reactions = [measure(braking_hazard(demand_mps2=pulse(20, (5 + late, 20)))) for late in range(1, 11)]
    found = summarise("mine", reactions)["reaction_from_onset_s"]
    expected = (0.1, 0.1, 0.6, 1.0, 1.0)
    assert [found[name] for name in ("min", "p05", "p50", "p95", "max")] == pytest.approx(expected)


def test_a_hazard_that_never_called_for_an_answer_was_not_left_unanswered():
    far = measure(braking_hazard(hazard_kind=2, onset=0, speed_mps=np.tile([20.0, 0.0], (21, 1))))
    found = summarise("mine", [far, measure(braking_hazard())])
    assert (found["hazards_happened"], found["never_reacted"]["count"], found["never_reacted"]["n"]) == (2, 1, 1)


@pytest.mark.parametrize("some", [[], episodes()[3:], episodes()[2:3], episodes()])
def test_any_list_of_episodes_is_json_and_a_table(some):
    found = summarise("mine", some)
    json.dumps(found, allow_nan=False)
    assert "mine" in table([found])


def test_the_table_shows_counts_with_n_and_bounds():
    head, _, row, note, *_ = table([summarise("mine", episodes())]).splitlines()
    assert "collisions in hazards k/n [%]" in head
    assert "1/2 [1.3, 98.7]" in row  # exact bounds of one in two
    assert "1/3" in row
    assert "95 % interval" in note


def test_no_event_in_few_kilometres_is_no_proof_that_there_are_none():
    calm = [measure(trace(scenario_id=name)) for name in "abcdefghij"]
    found = summarise("mine", calm)
    brakes, km = found["false_brakes_per_calm_km"], found["calm_distance_km"]
    assert (brakes["value"], brakes["low"]) == (0.0, 0.0)
    assert brakes["high"] == pytest.approx(-math.log(0.025) / km)
    for name in ("false_brakes_per_calm_km_without_hazard", "hard_brakes_3_per_km", "hard_brakes_4_5_per_km"):
        assert found[name]["high"] == pytest.approx(-math.log(0.025) / km), name
    assert found["calm_braking_share"]["high"] == 0.0  # no rate of events
    nothing = summarise("mine", [])["hard_brakes_3_per_km"]
    assert (nothing["value"], nothing["low"], nothing["high"]) == (None, None, None)


def test_one_scenario_has_no_interval_and_the_table_says_so():
    found = summarise("mine", [measure(trace(scenario_id="a", demand_mps2=pulse(20, (3, 6))))] * 2)
    for name in ("average_reward", "false_brakes_per_calm_km"):
        assert found[name]["value"] is not None
        assert (found[name]["low"], found[name]["high"]) == (None, None), name
    assert table([found]).count("[–]") == 2


def test_episodes_csv_has_one_row_an_episode(tmp_path):
    path = tmp_path / "episodes.csv"
    write_episodes(path, [Row("mine", number, "convoy", "", one) for number, one in enumerate(episodes())])
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == HEAD
    assert [row["scenario_id"] for row in rows] == ["a", "b", "c", "d"]
    assert [row["collision"] for row in rows] == ["True", "False", "False", "False"]


def test_a_csv_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RoadsenseError, match=r"episodes.csv: cannot be written \(.*\); free space or choose"):
        write_episodes(tmp_path / "file" / "episodes.csv", [])


def test_what_was_broken_off_is_a_collision_and_earns_nothing():
    early = measure(trace(hazard_kind=1, onset_step=500, end_reason=0, reward=np.full(20, 99.0), failure="gave up"))
    found = summarise("mine", [*episodes(), early])
    assert (found["collisions"]["count"], found["collisions_in_hazards"]["count"]) == (2, 2)
    assert found["collisions_in_hazards"]["n"] == 3 and found["hazards_happened"] == 2
    assert found["average_reward"]["n"] == 3 and found["average_reward"]["value"] == pytest.approx(-10.0)
    assert found["num_failed"] == 1


def test_an_episode_without_calm_driving_is_none_a_false_brake_could_be_in():
    called = measure(braking_hazard(onset=0, scenario_id="e"))
    assert called.calm_distance_km == 0.0
    assert summarise("mine", [*episodes(), called])["false_brakes_per_calm_km"]["n"] == 3
