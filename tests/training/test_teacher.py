"""The teacher is the oracle or less where nothing is wrong; in a hazard it leaves room for what nobody can know."""

import numpy as np
import pytest

from roadsense.convoy.player import Player
from roadsense.convoy.truth import refresh_truth
from roadsense.convoy.world import HazardPhase
from roadsense.espnow.state import RadioArrays, RadioState
from roadsense.policies.base import Truth
from roadsense.policies.privileged import Oracle
from roadsense.training.teacher import Teacher, TeacherConfig, in_hazard
from tests.convoy.worlds import one_record, traffic_of, unseen

EVERYONE = np.ones(2, np.bool_)
SILENCE = RadioState.of(RadioArrays.zeros(1, 4, 1, np.zeros((0, 0))))


def demand(*cars, hazard=True, **config):
    """Of one world; cars are (front bumper [m], speed, acceleration), the ego first."""
    traffic, worlds = traffic_of(*cars), one_record()
    refresh_truth(worlds[0], traffic, 0, *unseen(traffic))
    worlds["hazard_phase"] = HazardPhase.ACTIVE if hazard else HazardPhase.NOT_YET
    return float(Teacher(TeacherConfig(**{"creep_mps2": 0.0, **config})).demand(Truth(worlds, traffic, SILENCE))[0])


def test_in_a_hazard_it_leaves_the_margin_and_never_stops_a_slow_car_at_once_for_it():
    ahead = (0, 20, 0), (75, 10, 0)  # room 75 - 5 - 2 = 68 m for 10 m/s of closing speed, 60 m with the margin
    assert demand(*ahead, hazard=False, ordinary_mps2=0.0) == 0.0  # .74 m/s² are below what the oracle acts from
    nearer = (0, 20, 0), (47, 10, 0)  # room 40 m, and 32 m
    assert demand(*nearer, hazard=False, ordinary_mps2=1.0) == pytest.approx(1.15 * 100 / 80)
    assert demand(*nearer) == pytest.approx(1.15 * 100 / 64)
    creeping = (0, 2, 0), (13, 0, 0)  # a gap of 8 m: 6 m for the oracle, none with the margin
    assert demand(*creeping, hazard=False, ordinary_mps2=0.0) == 0.0
    assert demand(*creeping) == pytest.approx(1.0 + 2.0) and demand(*creeping, stop_s=0.5) == pytest.approx(1.0 + 4.0)


def test_in_a_hazard_it_brakes_as_hard_as_the_next_car_while_the_gap_shrinks():
    far = (0, 15, 0), (150, 15, -6)  # too far ahead to need anything like it
    assert demand(*far, match=0.0) < 3.0
    assert demand(*far) == pytest.approx(6.0) and demand(*far, match=0.5) == pytest.approx(3.0)
    assert demand(*far, hazard=False) == 0.0
    assert demand((0, 10, 0), (150, 15, -6)) < 3.0  # the gap grows
    assert demand((0, 15, 0), (150, 15, -2)) < 2.5  # that is no hard braking
    assert demand((0, 0, 0), (150, 0, -6)) == 0.0


def test_elsewhere_it_leaves_ordinary_braking_to_the_driver():
    nearer = (0, 20, 0), (47, 10, 0)
    assert demand(*nearer, hazard=False) == 0.0  # 1.25 m/s²
    close = (0, 20, 0), (19, 10, 0)  # room 12 m: 4.2 m/s²
    assert demand(*close, hazard=False) == pytest.approx(1.15 * 100 / 24)
    assert demand(*close, hazard=False, ordinary_mps2=5.0) == 0.0


def test_a_slow_car_that_creeps_up_to_the_next_one_is_braked_gently_hazard_or_not():
    creeping, gone = (0, 2, 0), (0, 2, 0)
    for hazard in (True, False):
        assert demand(creeping, (15, 1, 0), hazard=hazard, creep_mps2=1.0, margin_m=0.0) == 1.0
        assert demand(gone, (15, 3, 0), hazard=hazard, creep_mps2=1.0, margin_m=0.0) == 0.0  # the gap grows
        assert demand(creeping, (18, 1, 0), hazard=hazard, creep_mps2=1.0, margin_m=0.0) == 0.0  # 13 m to go
        assert demand((0, 4, 0), (15, 3, 0), hazard=hazard, creep_mps2=1.0, margin_m=0.0) == 0.0  # it drives
    assert demand((0, 0, 0), (7, 0, 0), hazard=False, creep_mps2=1.0) == 0.0


def test_who_is_ahead_is_known_as_the_world_knows_it_through_whole_episodes():
    """With nothing left of its care it is the oracle: its own survey of the cars must not drift from the world's."""
    player = Player(2, engine="native", max_peers=4, horizon_steps=150)
    plain, careful = Oracle(), Teacher(TeacherConfig())
    same = Teacher(TeacherConfig(margin_m=0.0, stop_s=1e-6, match=0.0, creep_mps2=0.0, ordinary_mps2=0.0))
    truth = Truth(player.worlds.records, player.worlds.traffic.state, player.worlds.emulator.state)
    harder = compared = 0
    try:
        for episode in range(4):
            for world in range(2):
                player.reseed(world, 3 + world, episode)
            player.begin(EVERYONE, {"episode": {"hazard.onset_s": (5.0, 6.0), "hazard.share": 1.0}})
            for policy in (careful, same):
                policy.reset(EVERYONE, np.array(player.seeds, np.uint64))
            active = EVERYONE.copy()
            while active.any():
                told = plain.act_many(player.worlds.observation, truth)
                np.testing.assert_array_equal(same.act_many(player.worlds.observation, truth), told)
                more, alarmed = careful.act_many(player.worlds.observation, truth), in_hazard(truth)
                assert (more[alarmed] >= told[alarmed]).all() and (
                    more[~alarmed] <= np.maximum(told, 1 / 8)[~alarmed]
                ).all()
                harder += int((more > told + 0.05).sum())
                compared += int(alarmed.sum())
                player.worlds.step(told, active)
                active &= player.worlds.records["end_reason"] == 0
    finally:
        player.close()
    assert harder > 20 and compared > 200


def test_a_new_episode_forgets_who_was_behind_in_the_one_before():
    teacher, worlds = Teacher(TeacherConfig(margin_m=1.0, match=0.0)), one_record(hazard_phase=HazardPhase.ACTIVE)
    behind, ahead = traffic_of((0, 10, 0), (-8, 10, 0)), traffic_of((0, 10, 0), (9.5, 8, 0))  # at most 10 m away
    teacher.demand(Truth(worlds, behind, SILENCE))
    teacher.reset(np.ones(1, np.bool_), np.zeros(1, np.uint64))
    assert teacher.demand(Truth(worlds, ahead, SILENCE))[0] == pytest.approx(1.15 * 4 / (2 * 1.5))  # room 4.5 - 2 - 1 m
