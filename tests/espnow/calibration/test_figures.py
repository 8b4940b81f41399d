"""Estimators by hand-computed cases, and intervals by how often they cover the truth."""

import math

import numpy as np
import pytest

from roadsense.espnow.calibration.figures import (
    Figure,
    burst_survival,
    chi_interval,
    loss_share,
    mean_burst,
    quantile,
    ratio,
    rms,
    wider_for_few,
)


def _outcomes(text, breaks=()):
    """``x`` is lost, ``.`` heard; frames at ``breaks`` do not follow the one before."""
    lost = np.array([letter == "x" for letter in text])
    follows = np.ones(len(text), bool)
    follows[[0, *breaks]] = False
    return lost, follows, np.arange(len(text)) // 4


def _chain(rng, n, loss, burst):
    leave, enter = 1.0 / burst, loss / ((1.0 - loss) * burst)
    draws, state, found = rng.random(n), rng.random() < loss, np.zeros(n, bool)
    for i in range(n):
        state = draws[i] >= leave if state else draws[i] < enter
        found[i] = state
    return found


def test_mean_burst_is_lost_frames_with_a_successor_per_exit():
    lost, follows, clusters = _outcomes("..xx.x...xxx.")
    assert mean_burst("b", lost, follows, clusters).value == 6 / 3
    assert mean_burst("b", lost, follows, clusters).n == 6


def test_a_gap_neither_ends_a_burst_nor_joins_two():
    lost, follows, clusters = _outcomes("..xx.xx.x.", breaks=(3,))  # between the two of the first burst
    figure = mean_burst("b", lost, follows, clusters)
    assert figure.value == 4 / 3
    assert figure.n == 4


def test_a_burst_that_never_ended_has_no_length():
    lost, follows, clusters = _outcomes("..xxxx")
    assert math.isnan(mean_burst("b", lost, follows, clusters).value)


def test_burst_survival_counts_whole_bursts_and_censors_cut_ones():
    lost, follows, _ = _outcomes(".x..xx.xxx.xx", breaks=())
    # ended after 1, 2, 3; the last one was at least 2 long when the record ended
    assert burst_survival(lost, follows).tolist() == pytest.approx([1.0, 3 / 4, 3 / 4 * 1 / 2, 0.0])


def test_burst_survival_leaves_out_bursts_whose_begin_was_not_seen():
    lost, follows, _ = _outcomes("xx.x.", breaks=())
    assert burst_survival(lost, follows).tolist() == [1.0, 0.0]


def test_no_losses_have_an_upper_bound_all_the_same():
    figure = loss_share("l", np.zeros(299, bool), np.arange(299) // 10)
    assert (figure.value, figure.low) == (0.0, 0.0)
    assert figure.high == pytest.approx(1 - 0.025 ** (1 / 299))


def test_few_blocks_give_no_interval():
    assert math.isnan(ratio("r", np.ones(40), np.ones(40), np.arange(40) // 10).low)


@pytest.mark.parametrize("burst", [1.5, 6.0])
def test_intervals_of_bursty_loss_cover_the_truth_and_are_wider_than_naive_ones(burst):
    rng, covered, bursts, widths = np.random.default_rng(8), 0, 0, []
    for _ in range(60):
        lost = _chain(rng, 4000, 0.2, burst)
        clusters = np.arange(4000) // 100
        share = loss_share("l", lost, clusters)
        covered += share.covers(0.2)
        bursts += mean_burst("b", lost, np.ones(4000, bool), clusters).covers(burst)
        widths.append(share.high - share.low)
    assert covered >= 52 and bursts >= 52  # of 60 at 95 %: fewer has probability 1 %
    memory = 1.0 - 1.0 / (0.8 * burst)
    expected = 2 * 1.96 * math.sqrt(0.2 * 0.8 / 4000 * (1 + memory) / (1 - memory))
    assert np.mean(widths) == pytest.approx(expected, rel=0.15)


def test_quantile_lies_between_the_order_statistics_of_its_rank():
    values = np.arange(1.0, 101.0)
    figure = quantile("q", np.random.default_rng(0).permutation(values), 0.5, np.arange(100))
    assert figure.value == 50.5
    assert (figure.low, figure.high) == (41.0, 61.0)  # 50 ± 1.96 · 5, outward
    assert quantile("q", values, 0.999, np.arange(100)).covers(100.0) is False  # nothing is known above the largest


def test_quantile_allows_for_clusters_that_are_alike():
    rng = np.random.default_rng(1)
    clusters = np.arange(2000) // 20
    alike = rng.normal(size=100)[clusters] + 0.1 * rng.normal(size=2000)
    lone = quantile("q", alike, 0.5, np.arange(2000))
    together = quantile("q", alike, 0.5, clusters)
    assert (together.high - together.low) > 3 * (lone.high - lone.low)


def test_rms_leaves_out_what_is_no_noise():
    errors = np.concatenate([np.tile([1.0, -1.0], 500), [50.0]])
    figure = rms("s", errors, np.arange(1001) // 100, scale=0.5)
    assert figure.value == pytest.approx(0.5)
    assert figure.n == 1000


def test_chi_interval_of_two_degrees():
    low, high = chi_interval(1.0, 2)
    assert low == pytest.approx(math.sqrt(2 / 7.377759), rel=1e-5)
    assert high == pytest.approx(math.sqrt(2 / 0.0506356), rel=1e-5)


def test_text_has_as_many_digits_as_the_interval_is_worth():
    assert Figure("f", 0.12345, 0.101, 0.146, 9).text() == "0.123 [0.101, 0.146]"
    assert Figure("f", 1234.5678, 1200.0, 1300.0, 9, "ms").text() == "1235 [1200, 1300] ms"
    assert Figure("f", 2.0, math.nan, math.nan, 9).text() == "2.000"
    assert Figure("f", 2.0, math.nan, 3.0, 9).document()["low"] is None


def test_few_clusters_widen_an_interval_by_students_t():
    """For four: t of 3 degrees at 97.5 % is 3.1824, the normal's 1.9600, and √(4/3)."""
    assert wider_for_few(4, 0.95) == pytest.approx(3.1824 / 1.9600 * math.sqrt(4.0 / 3.0), rel=1e-4)
    assert wider_for_few(10_000, 0.95) == pytest.approx(1.0, abs=1e-3)


def test_means_of_few_clusters_are_covered():
    rng, missed = np.random.default_rng(1), 0
    clusters = np.repeat(np.arange(6), 5)
    for _ in range(300):
        found = ratio("mean", 10.0 + np.repeat(rng.normal(size=6), 5), np.ones(30), clusters)
        missed += not found.covers(10.0)
    assert missed <= 25  # of 300 at 95 %: more has probability .7 %; without Student's t it is about 40
