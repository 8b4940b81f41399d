"""Closed forms against hand calculation and against integration by brute force."""

import math

import numpy as np
import pytest

from roadsense.espnow.profiles import read_params
from roadsense.espnow.sections import Latency
from roadsense.espnow.verification.expected import latency_quantile_ms, latency_share, link_loss, still_bad
from tests.espnow.drives import changed, with_sections


def test_a_link_between_ordinary_boards_has_the_figures_of_its_step():
    params = changed("convoy", placement=None)
    loss, memory = link_loss(params, np.arange(5), np.zeros(5), np.zeros(5, bool))
    np.testing.assert_allclose(loss, [*params.loss.probability, 1.0], atol=1e-12)
    bursts = 1 / ((1 - loss[:4]) * (1 - memory[:4]))
    np.testing.assert_allclose(bursts, params.loss.mean_burst)
    assert memory[4] == 0.0


def test_the_table_is_the_mean_over_boards():
    params = with_sections("convoy", placement={"link_sd": 0.7})
    offsets = 0.7 * np.linspace(-8, 8, 4001)
    weights = np.exp(-0.5 * (offsets / 0.7) ** 2)
    for step, share in enumerate(params.loss.probability):
        loss, _ = link_loss(params, np.full(4001, step), offsets, np.zeros(4001, bool))
        assert (loss * weights).sum() / weights.sum() == pytest.approx(share, rel=1e-6)
        assert loss[0] < 1e-3 and loss[-1] > 0.99


def test_a_board_in_a_door_spoils_its_links_wherever_they_are():
    params = with_sections("convoy", placement={"link_sd": 0.0, "door_loss": 0.85, "door_burst": 14.5})
    loss, memory = link_loss(params, np.arange(5), np.zeros(5), np.ones(5, bool))
    np.testing.assert_allclose(loss, [0.85] * 4 + [1.0])
    np.testing.assert_allclose(memory[:4], 1 - 1 / (0.15 * 14.5))


def test_what_stays_bad():
    loss, memory = np.array([0.3]), np.array([0.5])
    assert still_bad(loss, memory, np.array([0.0]))[0] == 1.0
    assert still_bad(loss, memory, np.array([0.1]))[0] == pytest.approx(0.3 + 0.7 * 0.5)
    assert still_bad(loss, memory, np.array([0.2]))[0] == pytest.approx(0.3 + 0.7 * 0.25)
    assert still_bad(loss, memory, np.array([60.0]))[0] == pytest.approx(0.3)


def test_latencies_of_an_exponential_body_with_a_tail():
    latency = Latency(shift_ms=1.0, shape=1.0, scale_ms=2.0, tail_probability=0.25, tail_ms=(10.0, 14.0))
    for value in (0.5, 1.0, 2.0, 8.0, 11.5, 14.9, 30.0):
        body = 1 - math.exp(-max(0.0, value - 1) / 2)
        tails = np.linspace(10.0, 14.0, 200_001)
        tailed = np.mean(1 - np.exp(-np.maximum(0.0, value - 1 - tails) / 2))
        assert latency_share(latency, np.array(value)) == pytest.approx(0.75 * body + 0.25 * tailed, abs=1e-6)


def test_a_quantile_is_where_the_share_is_reached():
    latency = read_params("convoy").latency
    for share in (0.01, 0.5, 0.95, 0.9999):
        assert latency_share(latency, np.array(latency_quantile_ms(latency, share))) == pytest.approx(share, abs=1e-9)
    constant = Latency(shift_ms=3.0, shape=1.0, scale_ms=0.0, tail_probability=0.0, tail_ms=(0.0, 0.0))
    assert latency_quantile_ms(constant, 0.5) == pytest.approx(3.0, abs=1e-9)
