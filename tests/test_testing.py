"""Whole episodes on both engines: traffic, radio, observation, reward, end; and the check itself."""

import numpy as np
import pytest

from roadsense.convoy.world import EndReason
from roadsense.errors import ScenarioError
from roadsense.testing import check_engine_alignment
from roadsense.traffic.engines import make_traffic
from roadsense.traffic.native import NativeTraffic
from tests.traffic.convoys import BASES, base_of, drawn_convoy

KINDS = {
    "to a stop": {"hazard.share": 1.0, "hazard.release_share": 0.0},
    "released": {"hazard.share": 1.0, "hazard.release_s": (2.0, 5.0), "hazard.release_share": 1.0},
    "stalled": {"hazard.kind": "stalled_vehicle"},
    "ordinary": {"hazard.share": 0.0},
    "held": {"hazard.share": 1.0, "hold_until_onset": True},
}
RADIOS = ("convoy", "drive", "lossy:0.3,4.6", "off")
COLUMNS = 9


@pytest.fixture(scope="module")
def engines(require_sumo):
    with make_traffic("sumo", 1, COLUMNS) as sumo, make_traffic("native", 1, COLUMNS) as native:
        yield sumo, native


def drawn_actions(rng: np.random.Generator, control: str) -> np.ndarray:
    """Noise around any bias, or scripts: nothing, full braking from some step on, waves."""
    kind, steps = rng.integers(4), np.arange(400)
    lowest = 0.0 if control == "brake" else -1.0
    if kind == 0:
        return rng.uniform(lowest, 1.0, 400) * rng.uniform(0.1, 1.0)
    if kind == 1:
        return np.where(steps >= rng.integers(20, 300), -lowest or 1.0, 0.0) * (1.0 if control == "brake" else -1.0)
    if kind == 2:
        return np.clip(np.sin(steps * rng.uniform(0.01, 0.2)) * rng.uniform(0.1, 0.6), lowest, 1.0)
    return np.zeros(400)


def episode(number: int):
    """Arguments of one check, all drawn by its number."""
    rng = np.random.default_rng((20261121, number))
    control = ("brake", "acceleration")[number % 2]
    convoy = drawn_convoy(base_of(BASES[number % 3]), rng, (0.0, 0.5)[number // 2 % 2])
    arguments = {
        "control": control,
        "episode": KINDS[list(KINDS)[number % len(KINDS)]],
        "radio": RADIOS[number // 3 % len(RADIOS)],
        "max_peers": COLUMNS - 1,
    }
    return (convoy, number, drawn_actions(rng, control)), arguments


def equal_episodes(engines, numbers) -> list[EndReason]:
    """Why the episodes ended, which must be equal to the last bit."""
    ends = []
    for number in numbers:
        positional, arguments = episode(number)
        found = check_engine_alignment(*positional, engines=engines, **arguments)
        assert found.first is None, f"episode {number}: {found}"
        assert found.steps == 400 or found.end_reason != EndReason.RUNNING
        ends.append(found.end_reason)
    return ends


@pytest.mark.parametrize("tenth", range(6))
def test_episodes_are_equal_to_the_last_bit(engines, tenth):
    ends = equal_episodes(engines, range(10 * tenth, 10 * tenth + 10))
    assert len(set(ends)) > 1


@pytest.mark.proof
def test_five_hundred_episodes_are_equal_to_the_last_bit(engines):
    ends = equal_episodes(engines, range(60, 660))
    print({end.name: ends.count(end) for end in set(ends)})
    assert set(ends) >= {EndReason.COLLISION, EndReason.HORIZON}


class _Late(NativeTraffic):
    """An engine that is a little wrong from some step on."""

    calls = 0

    def advance(self, next_speed_mps, steered, active):
        super().advance(next_speed_mps, steered, active)
        self.calls += 1
        if self.calls >= 20:
            self.state.speed_mps[0, 2] += 1e-12


def test_the_first_wrong_bit_is_named(require_sumo):
    with _Late(1, COLUMNS) as wrong:
        found = check_engine_alignment(
            base_of("straight").scenario, 3, np.zeros(60), engines=("native", wrong), max_peers=COLUMNS - 1
        )
    assert found.engines == ("native", "_Late")
    assert found.first is not None
    assert (found.first.step, found.first.quantity, found.first.car) == (20, "speed_mps", 2)
    assert abs(found.first.reference - found.first.other) == pytest.approx(1e-12, rel=0.2)
    assert found.steps == 60
    assert "speed_mps" in found.largest
    assert found.worst == max(found.largest.values())
    assert str(found).startswith("native and _Late, 60 steps: first difference at step 20, speed_mps of car 2: ")


def test_equal_engines_say_so_and_seeds_matter(require_sumo):
    scenario = base_of("curve").scenario
    found = check_engine_alignment(scenario, 3, np.zeros(10), engines=("native", "native"))
    assert str(found) == "native and native, 10 steps: equal to the last bit"
    assert (found.steps, found.end_reason, found.worst) == (10, EndReason.RUNNING, 0.0)


def test_what_an_engine_cannot_drive_is_refused(busy_base):
    with pytest.raises(ScenarioError, match="a flow inserts vehicles"):
        check_engine_alignment(busy_base, 1, np.zeros(5), engines=("native", "native"))
