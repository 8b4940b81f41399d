"""The closed loop agrees for what is played as stated, and does not for anything else."""

import pytest

from roadsense.espnow.calibration import verify as module
from roadsense.espnow.calibration.play import play
from roadsense.espnow.calibration.verify import table, verify
from roadsense.espnow.profiles import read_params
from tests.espnow.drives import changed, with_sections

SMALL = {"car_counts": (2, 4), "beacons": 20_000}


@pytest.fixture(scope="module")
def convoy():
    return verify(read_params("convoy"), **SMALL)


def test_what_is_played_as_stated_agrees(convoy):
    assert convoy.outside == ()
    assert len(convoy.judged) > 50
    assert {(one.cars, one.relays) for one in convoy.figures} == {
        (2, False),
        (2, True),
        (4, False),
        (4, True),
        (0, False),
    }
    assert all(one.low <= one.estimate <= one.high for one in convoy.figures)
    # 95 % intervals that are honest hold most of the expectations, and not all of them by being wide
    inside = [one.low <= one.expected <= one.high for one in convoy.judged]
    assert 0.85 < sum(inside) / len(inside)


def test_the_same_seed_gives_the_same_figures(convoy):
    assert verify(read_params("convoy"), **SMALL) == convoy


def test_every_figure_is_a_line_of_the_table(convoy):
    lines = table(convoy).splitlines()
    assert len(lines) == len(convoy.figures) + 3
    assert lines[-1].startswith(f"convoy: all {len(convoy.judged)} figures lie within")
    assert "OUTSIDE" not in table(convoy)
    document = convoy.document()
    assert document["agrees"] is True and document["seed"] == module.SEED


def test_a_car_more_changes_losses_by_collisions_alone(convoy):
    """The same expectation at 2 and at 4 cars, both met; and there are collisions, which are shown beside."""
    for cars in (2, 4):
        assert any(one.cars == cars and one.name == "loss from 20 m" for one in convoy.judged)
        assert any(one.cars == cars and one.name == "collided" and one.expected is None for one in convoy.figures)


@pytest.mark.parametrize(
    ("sections", "figure"),
    [
        ({"loss": {"probability": (0.064, 0.128, 0.137, 0.205)}}, "loss from"),
        ({"loss": {"mean_burst": (1.35, 1.55, 1.65, 1.75)}}, "lost after a loss"),
        ({"latency": {"shift_ms": 0.7}}, "latency p50"),
        ({"latency": {"tail_probability": 0.02}}, "latency p99"),
        ({"placement": {"link_sd": 0.4}}, "placement variance"),
        ({"placement": {"door_probability": 0.02}}, "boards in a door"),
    ],
)
def test_other_parameters_than_stated_are_found(monkeypatch, sections, figure):
    other = changed("convoy", **sections)

    def play_others(params, *args, **kwargs):
        return play(other.model_copy(update={"relays": params.relays}), *args, **kwargs)

    monkeypatch.setattr(module, "play", play_others)
    verdict = verify(read_params("convoy"), **SMALL)
    assert any(one.name.startswith(figure) for one in verdict.outside), [one.name for one in verdict.outside]
    assert "OUTSIDE" in table(verdict)
    assert "figures lie outside of" in table(verdict).splitlines()[-1]


def test_a_radio_that_never_gets_through_is_judged_too():
    verdict = verify(read_params("off"), car_counts=(2, 3), beacons=2000)
    assert verdict.judged and not verdict.outside


def test_physics_and_lies_are_left_out():
    params = with_sections("convoy", propagation={"sensitivity_dbm": -60.0}, alarms={})
    assert not verify(params, car_counts=(2,), beacons=5000).outside
