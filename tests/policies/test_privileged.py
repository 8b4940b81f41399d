"""Assistants that read the truth: single decisions by hand, and what their episodes come to."""

import numpy as np
import pytest

from roadsense.convoy.driver import PERCEPTION_AND_REACTION_S, RISK_DECEL_MPS2
from roadsense.convoy.truth import STANDSTILL_M, required_decel
from roadsense.policies.baselines import make_baseline
from tests.policies.scenes import CALM, FIRST, HAZARDS, SEED, fresh, heard, measured, traces, truth


def asked(name, *truths):
    """Demand [m/s²] of a privileged baseline for one truth after the other."""
    policy = fresh(name)
    return [8.0 * policy.act_many(heard(20.0), told)[0] for told in truths]


def test_emergency_braking_begins_below_its_time_to_collision_and_lasts_while_the_gap_shrinks():
    at, below = truth(gap_m=30.0, closing_speed_mps=20.0), truth(gap_m=29.9, closing_speed_mps=20.0)
    slower, over = truth(gap_m=25.0, closing_speed_mps=10.0), truth(gap_m=24.0, closing_speed_mps=0.0)
    assert asked("ttc_aeb", at, below, slower, over, slower) == [0.0, 8.0, 8.0, 0.0, 0.0]
    assert asked("ttc_aeb", truth()) == [0.0]  # nobody ahead
    policy = fresh("ttc_aeb")
    policy.act_many(heard(20.0), below)
    policy.reset(FIRST, SEED)
    assert policy.act_many(heard(20.0), slower)[0] == 0.0  # another episode


def test_the_human_brakes_after_perception_and_reaction_with_limited_jerk():
    # a standing car 60 m ahead calls for 400/(2·58) = 3.4 m/s², one 70 m ahead for 2.9: no risk
    risk = truth(leader=1, gap_m=60.0, closing_speed_mps=20.0)
    demand = asked("r157_human", *[risk] * 25)
    assert demand[:11] == [0.0] * 11  # up to 1.1 s
    assert demand[11:17] == pytest.approx([12.65 * (0.05 + 0.1 * step) for step in range(6)])
    assert demand[17:] == pytest.approx([0.774 * 9.81] * 8)
    assert asked("r157_human", *[truth(leader=1, gap_m=70.0, closing_speed_mps=20.0)] * 25) == [0.0] * 25
    # seen calmly in between, he begins anew
    calm = truth(leader=1, gap_m=60.0, closing_speed_mps=0.0, lead=(20.0, 0.0))
    assert asked("r157_human", *[risk] * 15, calm, *[risk] * 11)[15:] == [0.0] * 12
    assert asked("r157_human", *[truth()] * 25) == [0.0] * 25  # nobody ahead


def test_braking_at_onset_is_full_and_for_good():
    assert asked("brake_at_onset", *(truth(hazard_phase=phase) for phase in (0, 1, 2))) == [0.0, 8.0, 8.0]


def test_the_first_reception_is_that_of_a_state_of_the_target_after_its_onset():
    hazard = {"hazard_target": 2, "onset_step": 50}  # first read at 5.1 s
    before, told = truth(messages=[(2, 5.05)], **hazard), truth(messages=[(2, 5.15)], **hazard)
    another, stale = truth(messages=[(1, 5.15)], **hazard), truth(**hazard)
    assert asked("first_reception", before, another, told, stale) == [0.0, 0.0, 8.0, 8.0]
    assert asked("first_reception", truth(messages=[(1, 5.15), (2, 5.15)])) == [0.0]  # no hazard
    left_over = truth(messages=[(2, 5.15)], **hazard)
    left_over.radio.message_count[:] = 0
    assert asked("first_reception", left_over) == [0.0]  # of an episode before
    policy = fresh("first_reception")
    policy.act_many(heard(20.0), told)
    policy.reset(FIRST, SEED)
    assert policy.act_many(heard(20.0), stale)[0] == 0.0  # another episode


def test_braking_at_onset_avoids_every_collision():
    """No hazard of the built-in scenarios is unavoidable; without assistance most end in a collision."""
    episodes = measured(make_baseline("brake_at_onset"), 150, HAZARDS)
    assert all(episode.hazard_happened and episode.valid for episode in episodes)
    assert len({episode.scenario_id for episode in episodes}) == 3
    assert not any(episode.collision for episode in episodes)
    assert {episode.reaction_from_onset_s for episode in episodes} == {0.0}
    assert sum(episode.collision for episode in measured(make_baseline("none"), 150, HAZARDS)) > 75


@pytest.mark.parametrize(("radio", "at_most"), [("convoy", 0), ("lossy:0.3,4.6", 1)])
def test_braking_at_the_first_message_that_tells_avoids_nearly_every_collision(radio, at_most):
    """About 0.4 % are left in bursts: rank 1 with its first beacons lost."""
    episodes = measured(make_baseline("first_reception"), 120, HAZARDS, radio=radio)
    assert all(episode.hazard_happened for episode in episodes)
    assert sum(episode.collision for episode in episodes) <= at_most
    assert not any(episode.false_brakes for episode in episodes)
    assert {episode.reaction_from_reception_s for episode in episodes} == {0.0}  # as the metrics count it


def test_without_the_radio_nothing_is_ever_received():
    nothing, alone = (
        [episode.collision for episode in measured(make_baseline(name), 40, HAZARDS, radio="off")]
        for name in ("first_reception", "none")
    )
    assert nothing == alone


def test_a_sensor_of_the_next_car_brakes_late():
    """Below 1.5 s to collision and never in calm traffic: too late for many hazards, and milder where it is."""
    episodes = traces(make_baseline("ttc_aeb"), 60, HAZARDS)
    began = 0
    for trace in episodes:
        braking = trace.demand_mps2 > 0.0
        first = int(braking.argmax())
        if braking.any():
            began += 1
            assert trace.gap_m[first] < 1.5 * trace.closing_speed_mps[first]
            assert not (trace.gap_m[:first] < 1.5 * trace.closing_speed_mps[:first]).any()
    assert began > 30
    aeb, alone = (measured(make_baseline(name), 120, HAZARDS) for name in ("ttc_aeb", "none"))
    assert 0 < sum(episode.collision for episode in aeb) < 0.7 * sum(episode.collision for episode in alone)
    hit = [np.median([episode.impact_speed_mps for episode in who if episode.collision]) for who in (aeb, alone)]
    assert hit[0] < 0.6 * hit[1]
    assert not any(trace.demand_mps2.any() for trace in traces(make_baseline("ttc_aeb"), 30, CALM))


def test_a_careful_human_needs_his_time():
    began = 0
    for trace in traces(make_baseline("r157_human"), 60, HAZARDS):
        room = trace.gap_m - STANDSTILL_M
        states = zip(trace.speed_mps, trace.accel_mps2, trace.leader, room, strict=True)
        risk = [
            required_decel(v[0], v[lead], a[lead], left) > RISK_DECEL_MPS2 if lead >= 0 else False
            for v, a, lead, left in states
        ]
        braking = trace.demand_mps2 > 0.0
        if braking.any():
            began += 1
            assert braking.argmax() * 0.1 > np.argmax(risk) * 0.1 + PERCEPTION_AND_REACTION_S - 0.1
        assert trace.demand_mps2.max() <= 0.774 * 9.81 + 1e-9
    assert began > 30
    human, alone = (measured(make_baseline(name), 120, HAZARDS) for name in ("r157_human", "none"))
    assert 0 < sum(episode.collision for episode in human) < 0.5 * sum(episode.collision for episode in alone)
