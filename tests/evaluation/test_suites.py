import itertools
import math

import numpy as np
import pytest
import yaml

from roadsense.errors import InputMismatchError, ParamsError, RoadsenseError, UsageError
from roadsense.evaluation.suites import Suite, SuiteSpec, read_suite, suite_names

SMALL = {
    "name": "small",
    "version": 1,
    "about": "Two numbers of peers, two ranks, two radios.",
    "seed": 5,
    "convoys": {"roads": ["straight", "curve"], "each": 1, "ranges": {"peer_count": [1, 2]}},
    "axes": {
        "peers": [1, 2],
        "rank": [1, 2],
        "release": {"stop": {"hazard.release_share": 0.0}, "released": {"hazard.release_share": 1.0}},
        "radio": ["ideal", "convoy"],
    },
    "episode": {"hazard.share": 1.0, "hazard.release_s": [2.0, 5.0]},
    "episodes_per_bucket": 3,
}


def suite_of(**changes):
    return Suite(SuiteSpec.model_validate({**SMALL, **changes}), "small")


def file_of(folder, **changes):
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump({**SMALL, **changes}, sort_keys=False))
    return str(path)


def test_every_possible_bucket_is_filled():
    with suite_of() as suite:
        names = [bucket.name for bucket in suite.buckets]
        assert len(names) == len(set(names)) == (1 + 2) * 2 * 2  # rank 2 needs two peers
        assert "peers=1 rank=2 release=stop radio=ideal" not in names
        assert all(len(bucket.episodes) == 3 for bucket in suite.buckets)
        assert sorted(itertools.chain(*(bucket.episodes for bucket in suite.buckets))) == list(range(36))
        for bucket in suite.buckets:
            for index in bucket.episodes:
                episode = suite.episodes[index]
                assert len(episode.scenario.vehicles) - 1 == bucket.labels["peers"]
                assert episode.spec.hazard.rank == (bucket.labels["rank"],) * 2
                assert episode.spec.hazard.release_share == (bucket.labels["release"] == "released")
                assert episode.radio.name == bucket.labels["radio"] == bucket.radio


def test_radios_meet_the_same_trials_and_nothing_else_does():
    with suite_of() as suite:
        seeds = {bucket.name: [suite.episodes[index].seed for index in bucket.episodes] for bucket in suite.buckets}
        under_ideal = {name: found for name, found in seeds.items() if name.endswith("ideal")}
        for name, found in under_ideal.items():
            assert seeds[name.replace("ideal", "convoy")] == found
        drawn = list(itertools.chain(*under_ideal.values()))
        assert len(set(drawn)) == len(drawn)


def test_the_same_suite_is_the_same_everywhere():
    with suite_of() as one, suite_of() as other, suite_of(seed=6) as third:
        assert one.digest == other.digest != third.digest
        assert [(a.seed, a.scenario.scenario_id) for a in one.episodes] == [
            (b.seed, b.scenario.scenario_id) for b in other.episodes
        ]


def test_changed_scenarios_are_refused_by_name():
    with suite_of() as suite:
        stated = suite.scenarios_digest
    with suite_of(scenarios_digest=stated) as suite:
        assert suite.scenarios_digest == stated
    with pytest.raises(InputMismatchError, match="suite small: its scenarios have changed"):
        suite_of(scenarios_digest=stated, convoys={**SMALL["convoys"], "each": 2})


@pytest.mark.parametrize("name", suite_names())
def test_shipped_suites_are_those_they_state(name):
    with read_suite(name) as suite:
        assert suite.spec.scenarios_digest == suite.scenarios_digest
        assert suite.spec.name == name
        assert all(bucket.episodes for bucket in suite.buckets)


@pytest.mark.parametrize(
    ("name", "buckets"), [("matrix", 36 * 3 * 2 * 2), ("fmvss127", 24), ("ccrb", 4), ("loss_sweep", 16 * 3)]
)
def test_shipped_suites_have_the_points_they_are_known_for(name, buckets):
    with read_suite(name) as suite:
        assert len(suite.buckets) == buckets


def test_pairs_stand_as_stated():
    with read_suite("ccrb") as suite:
        gaps = set()
        for episode in suite.episodes:
            ego, lead = episode.scenario.vehicles
            assert ego.depart_speed_mps == lead.depart_speed_mps == 13.889
            gaps.add(round(lead.depart_pos_m - lead.type.length_m - ego.depart_pos_m, 2))
            assert episode.spec.hold_until_onset
        assert gaps == {12.0, 40.0}


def test_the_loss_sweep_states_its_radios():
    with read_suite("loss_sweep") as suite:
        by_name = {bucket.name: suite.episodes[bucket.episodes[0]].radio for bucket in suite.buckets}
        radio = by_name["loss=0.3 burst=5 gps_m=3"]
        assert (radio.loss.probability, radio.loss.mean_burst, radio.gps.sigma_m) == ((0.3,), (5.0,), 3.0)
        independent = by_name["loss=0.3 burst=1 gps_m=1"].loss.mean_burst[0]
        assert independent == pytest.approx(1 / 0.7, abs=2e-4)
        shortest = [name for name in by_name if name.startswith("loss=0.5 burst=2")]
        assert (
            not shortest
            or by_name[shortest[0]].loss.mean_burst[0] > by_name["loss=0.5 burst=1 gps_m=1"].loss.mean_burst[0]
        )


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"axes": {"colour": [1, 2]}}, "axes.colour lists values, but only peers, road"),
        ({"axes": {"peers": {"one": {}}}}, "axes.peers is a list of values"),
        ({"axes": {"peers": {1: {}}}}, "axes.peers is a list of values"),
        ({"axes": {"peers": []}}, "axes.peers is empty"),
        ({"axes": {"loss": [0.1]}}, "all of them, or by radio alone"),
        ({"convoys": None}, "state convoys or pairs"),
        ({"pairs": {"road": "straight"}, "convoys": None, "axes": {"gap_m": [10]}}, "axes.speed_kmh is missing"),
        ({"episodes_per_bucket": 0}, "episodes_per_bucket is 0"),
        ({"sed": 3}, "sed is unknown, did you mean 'seed'"),
    ],
)
def test_a_wrong_file_is_refused_by_key(tmp_path, changes, told):
    with pytest.raises(ParamsError, match=r"small\.yaml: ") as refused:
        read_suite(file_of(tmp_path, **changes))
    assert told in str(refused.value)


PAIRS = {"pairs": {"road": "straight"}, "convoys": None}
PAIR_AXES = {"speed_kmh": [50], "gap_m": [20]}
LOSSES = {"loss": [0.3], "burst": [5], "gps_m": [1]}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"axes": {"peers": ["x"]}}, "axes.peers states 'x', but takes whole numbers from 1"),
        ({"axes": {"peers": [1.5]}}, "axes.peers states 1.5, but takes whole numbers from 1"),
        ({"axes": {"peers": [0]}}, "axes.peers states 0, but takes whole numbers from 1"),
        ({"axes": {"peers": [10**400]}}, "but takes whole numbers from 1"),
        ({"axes": {"peers": [math.nan]}}, "axes.peers states nan, but takes whole numbers from 1"),
        ({"axes": {"peers": [[1]]}}, "axes.peers states [1], but takes whole numbers from 1"),
        ({"axes": {"peers": [None]}}, "axes.peers states None, but takes whole numbers from 1"),
        ({"axes": {"peers": [1, 2, 1]}}, "axes.peers states 1 more than once"),
        ({"axes": {"radio": ["ideal", "ideal"]}}, "axes.radio states 'ideal' more than once"),
        ({"axes": {"rank": ["a"]}}, "axes.rank states 'a', but takes whole numbers from 1"),
        ({"axes": {"rank": [0]}}, "axes.rank states 0, but takes whole numbers from 1"),
        ({"axes": {"rank": [1, 9]}}, "axes.rank states 9, but no scenario has more than 2 cars ahead of V001"),
        ({"axes": {"peers": [1], "rank": [2]}}, "axes.rank states 2, but no scenario has more than 1 car ahead"),
        ({**PAIRS, "axes": {**PAIR_AXES, "rank": [2]}}, "axes.rank states 2, but no scenario has more than 1 car"),
        ({"axes": {**LOSSES, "loss": [1.0]}}, "axes.loss states 1.0, but takes shares from 0 to below 1"),
        ({"axes": {**LOSSES, "loss": [-0.1]}}, "axes.loss states -0.1, but takes shares from 0 to below 1"),
        ({"axes": {**LOSSES, "loss": ["x"]}}, "axes.loss states 'x', but takes shares from 0 to below 1"),
        ({"axes": {**LOSSES, "burst": [0.5]}}, "axes.burst states 0.5, but takes numbers from 1 to 10000"),
        ({"axes": {**LOSSES, "gps_m": [-1]}}, "axes.gps_m states -1, but takes numbers from 0"),
        ({**PAIRS, "axes": {**PAIR_AXES, "speed_kmh": ["x"]}}, "axes.speed_kmh states 'x', but takes numbers above 0"),
        ({**PAIRS, "axes": {**PAIR_AXES, "speed_kmh": [-50]}}, "axes.speed_kmh states -50, but takes numbers above 0"),
        ({**PAIRS, "axes": {**PAIR_AXES, "gap_m": [-20]}}, "axes.gap_m states -20, but takes numbers above 0"),
        ({**PAIRS, "axes": {**PAIR_AXES, "gap_m": [20, 20.0000001]}}, "axes.gap_m states 20.0000001 more than once"),
        ({"axes": {"radio": [False]}}, "axes.radio states False, a truth value, as off, on, no and yes are"),
        ({"axes": {"radio": [1]}}, "axes.radio states 1, but takes texts; put quotes around it"),
        ({"axes": {"alarm": {False: {}, "on": {}}}}, "axes.alarm states False, a truth value"),
        ({"axes": {"onset": {5: {}}}}, "axes.onset states 5, but takes texts; put quotes around it"),
    ],
)
def test_a_value_that_an_axis_does_not_take_is_named(tmp_path, changes, told):
    with pytest.raises(ParamsError, match=r"small\.yaml: ") as refused:
        read_suite(file_of(tmp_path, **changes))
    assert told in str(refused.value)
    assert str(refused.value).count("axes.") == 1 and str(refused.value).endswith(". Correct it.")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({**PAIRS, "axes": {**PAIR_AXES, "gap_m": [20, 99999]}}, "axes.gap_m states 99999, which puts V002 at 100"),
        ({**PAIRS, "axes": {**PAIR_AXES, "speed_kmh": [999.0], "gap_m": [9000]}}, "axes.gap_m states 9000"),
        ({"axes": {"peers": [1000]}}, "1000 peers: base scenario straight: no place was found for 1000 peers"),
        ({"convoys": {"roads": ["curve", "curve"], "each": 1}}, "convoys.roads names 'curve' more than once"),
        ({"axes": {"radio": ["convy"]}}, "radio 'convy' is unknown; did you mean 'convoy'"),
    ],
)
def test_a_value_that_the_road_or_the_radio_does_not_allow_is_named(tmp_path, changes, told):
    with pytest.raises(RoadsenseError, match=r"^suite .*small\.yaml: ") as refused:
        read_suite(file_of(tmp_path, **changes))
    assert told in str(refused.value)


def test_an_unquoted_off_is_refused_and_a_quoted_one_played(tmp_path):
    path = tmp_path / "small.yaml"
    text = yaml.safe_dump({**SMALL, "axes": {"radio": ["WORD"]}})
    path.write_text(text.replace("WORD", "off"))
    with pytest.raises(ParamsError, match=r"axes\.radio states False, .*; put quotes around the word"):
        read_suite(str(path))
    path.write_text(text.replace("WORD", '"off"'))
    with read_suite(str(path)) as suite:
        assert [bucket.radio for bucket in suite.buckets] == ["off"]


def test_a_bucket_without_scenarios_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"bucket peers=2 road=arterial .* has no scenario"):
        read_suite(file_of(tmp_path, axes={"peers": [2], "road": ["straight", "arterial"], "radio": ["ideal"]}))


def test_an_unknown_suite_or_range_is_refused_with_the_nearest(tmp_path):
    with pytest.raises(UsageError, match="suite 'matrx' is unknown; did you mean 'matrix'"):
        read_suite("matrx")
    with pytest.raises(Exception, match=r"no 'hazard\.rnk'; did you mean 'hazard\.rank'"):
        read_suite(file_of(tmp_path, episode={"hazard.rnk": [1, 1]}))
    (tmp_path / "broken.yaml").write_text("a: [1")
    with pytest.raises(ParamsError, match="is no YAML"):
        read_suite(str(tmp_path / "broken.yaml"))
    with pytest.raises(ParamsError, match="cannot be read"):
        read_suite(str(tmp_path / "absent.yaml"))


def test_pools_mix_roads_and_numbers_of_peers():
    """A bucket that plays a part of its pool plays of everything."""
    convoys = {"roads": ["straight", "curve"], "each": 8, "ranges": {"peer_count": [1, 2]}}
    with suite_of(axes={"radio": ["ideal"]}, convoys=convoys, episodes_per_bucket=16) as suite:
        peers, counts = np.unique(
            [len(episode.scenario.vehicles) - 1 for episode in suite.episodes], return_counts=True
        )
        assert peers.tolist() == [1, 2]
        assert counts.min() >= 4
