"""Assistants on the radio: single decisions by hand, and what their episodes come to."""

import pytest

from roadsense.convoy.rss import rss_distance
from roadsense.policies.baselines import make_baseline
from tests.policies.scenes import HAZARDS, demands, heard, measured


def test_the_rules_answer_hard_braking_that_a_peer_reports_from_their_threshold_on():
    for name, threshold in (("v2v_rule", 2.5), ("v2v_tuned", 3.2)):
        far = [heard(20.0, (90.0, 0.0, -threshold - excess)) for excess in (-0.1, 0.1)]
        assert demands(name, *far) == pytest.approx([0.0, threshold + 0.1], abs=1e-5)


def test_the_rules_brake_by_the_required_deceleration():
    # 20 m/s towards a standing car 62 m ahead: room 62 - 5 - 2 = 55 m, v²/(2·55) = 3.64 m/s²; tuned keeps 6 m
    standing = heard(20.0, (62.0, -20.0, 0.0))
    assert demands("v2v_rule", standing) == pytest.approx([400.0 / 110.0], rel=1e-5)
    assert demands("v2v_tuned", standing) == pytest.approx([400.0 / 102.0], rel=1e-5)
    # a car between takes 7.5 m of that room
    behind_another = heard(20.0, (62.0, -20.0, 0.0), (30.0, 0.0, 0.0))
    assert demands("v2v_rule", behind_another) == pytest.approx([400.0 / (2 * 47.5)], rel=1e-5)


def test_nobody_behind_is_braked_for():
    behind = heard(20.0, (-30.0, 0.0, -8.0), (-10.0, 5.0, -8.0))
    assert demands("v2v_rule", behind) == demands("v2v_tuned", behind) == [0.0]


def test_the_tuned_rule_holds_what_the_plain_one_lets_go():
    hard, calm, silence = heard(20.0, (60.0, 0.0, -8.0)), heard(20.0, (60.0, 0.0, 0.0)), heard(20.0)
    receding = heard(20.0, (60.0, 5.0, 0.0))
    standing, leaving = heard(0.5, (10.0, 0.4, 0.0)), heard(0.5, (10.0, 2.0, 0.0))
    assert demands("v2v_rule", hard, calm, silence) == pytest.approx([8.0, 0.0, 0.0])
    assert demands("v2v_tuned", hard, calm) == pytest.approx([8.0, 1.0])  # until the gap grows
    assert demands("v2v_tuned", hard, receding) == pytest.approx([8.0, 0.0])
    assert demands("v2v_tuned", hard, standing, leaving) == pytest.approx([8.0, 1.0, 0.0])  # until the other one goes
    assert demands("v2v_tuned", hard, silence, silence) == pytest.approx([8.0, 8.0, 8.0])  # everything went stale
    assert demands("v2v_tuned", silence, calm) == [0.0, 0.0]  # what never began is not held


def test_the_required_deceleration_alone_takes_no_alarm_from_a_report_of_braking():
    far, standing = heard(20.0, (150.0, 0.0, -6.0)), heard(20.0, (62.0, -20.0, 0.0))
    assert demands("v2v_rule", far) == pytest.approx([6.0], rel=1e-5)
    # room 150 - 5 - 2 m and 20²/(2·6) m that the other one still needs: 20²/(2·176.3) = 1.1 m/s², below 2
    assert demands("a_req", far, standing) == pytest.approx([0.0, 400.0 / 110.0], rel=1e-5)
    # what it reports counts where it calls for more: room 53 m, 400/(2·(53 + 33.3)) m/s²
    near = heard(20.0, (60.0, 0.0, -6.0))
    assert demands("a_req", near) == pytest.approx([400.0 / (2 * (53.0 + 400.0 / 12.0))], rel=1e-5)


def test_safe_distance():
    # 20·.5 + ½·2.6·.25 + 21.3²/9 - 20²/18
    assert rss_distance(20.0, 20.0) == pytest.approx(10.0 + 0.325 + 453.69 / 9.0 - 400.0 / 18.0)
    assert rss_distance(5.0, 30.0) == 0.0  # whoever is that much faster can do no harm


def test_rss_brakes_below_the_safe_distance_to_the_next_car():
    assert demands("rss", heard(20.0, (38.6 + 5.0, 0.0, 0.0)), heard(20.0, (38.4 + 5.0, 0.0, 0.0))) == [0.0, 4.5]
    # 20·.5 + .325 + 453.69/9 - 10²/18 = 55.2 m behind a car at 10 m/s, from now on and no longer
    slower = [heard(20.0, (gap + 5.0, -10.0, 0.0)) for gap in (55.3, 55.1, 55.3)]
    assert demands("rss", *slower) == [0.0, 4.5, 0.0]
    # the next car is much faster; the one ahead of it stands, which is not V001's business, nor is who is behind
    between = heard(20.0, (50.0, -20.0, 0.0), (20.0, 10.0, 0.0), (-10.0, 5.0, 0.0))
    assert demands("rss", between, heard(20.0)) == [0.0, 0.0]


@pytest.mark.parametrize("name", ["a_req", "rss"])
def test_by_exact_positions_they_avoid_every_collision(name):
    """They were derived for what is exact: metres of GPS error cost them what a margin would keep."""
    exact, noisy = (measured(make_baseline(name), 100, HAZARDS, radio=radio) for radio in ("ideal", "convoy"))
    assert all(episode.hazard_happened for episode in exact)
    assert not any(episode.collision for episode in exact)
    helped = sum(episode.collision for episode in noisy)
    assert 0 < helped < 0.5 * sum(episode.collision for episode in measured(make_baseline("none"), 100, HAZARDS))
