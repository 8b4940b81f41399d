"""What policies are shown in tests: observations and truths of one world by hand, and real episodes."""

import numpy as np

from roadsense.convoy.observation import EGO_FEATURES, PEER_FEATURES, Observation
from roadsense.convoy.player import Player
from roadsense.espnow.state import RadioArrays, RadioState
from roadsense.evaluation.metrics import measure
from roadsense.evaluation.rollout import play
from roadsense.policies.base import Truth
from roadsense.policies.baselines import make_baseline
from tests.convoy.worlds import one_record, traffic_of

FIRST = np.ones(1, np.bool_)
SEED = np.array([5], np.uint64)


def heard(speed_mps, *peers, accel_mps2=0.0, capacity=4):
    """An observation of one world; peers are (forward [m], relative speed [m/s], acceleration [m/s²])."""
    seen = Observation.zeros(1, capacity)
    seen.ego[0, :2] = speed_mps / EGO_FEATURES[0].scale, accel_mps2 / EGO_FEATURES[1].scale
    for row, values in enumerate(peers):
        for column, value in zip((0, 2, 5), values, strict=True):
            seen.peers[0, row, column] = value / PEER_FEATURES[column].scale
        seen.peer_mask[0, row] = 1
    return seen


def fresh(name):
    """A baseline that begins an episode in one world."""
    policy = make_baseline(name)
    policy.reset(FIRST, SEED)
    return policy


def demands(name, *observations):
    """Demand [m/s²] of a baseline for one observation after the other."""
    policy = fresh(name)
    return [8.0 * policy.act_many(seen, None)[0] for seen in observations]


def accels(name, *observations):
    """Acceleration [m/s²] that a baseline which drives alone asks for, for one observation after the other."""
    policy = fresh(name)
    actions = [policy.act_many(seen, None)[0] for seen in observations]
    return [action * (8.0 if action < 0.0 else 2.6) for action in actions]


def truth(*, speed_mps=20.0, lead=(0.0, 0.0), messages=(), **record):
    """The truth of one world: the leader's (speed, acceleration), and the messages heard as (car, sent [s])."""
    records = one_record(**record)
    radio = RadioState.of(RadioArrays.zeros(1, 4, 1, np.zeros((0, 0))))
    for car, sent_s in messages:
        radio.message_count[0, car], radio.message_sent_s[0, car, 0] = 1, sent_s
    return Truth(records, traffic_of((0.0, speed_mps, 0.0), (100.0, *lead), (130.0, *lead)), radio)


def traces(policy, episodes, stated=None, **kwargs):
    """Every episode of the built-in list as a policy drives it; ``stated`` overrides ranges of the episodes."""
    player = Player(8, split="val", max_peers=4, engine="native", control=policy.control, **kwargs)
    try:
        return list(play(policy, player, episodes, changes=stated))
    finally:
        player.close()


def measured(policy, episodes, stated=None, **kwargs):
    """The same, measured."""
    return [measure(trace) for trace in traces(policy, episodes, stated, **kwargs)]


HAZARDS = {"hazard.share": 1.0}
CALM = {"hazard.share": 0.0}
