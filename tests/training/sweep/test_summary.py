"""What the table of a sweep says is what its trials came to, computed here by other means."""

import itertools

import numpy as np
import pytest
from scipy import stats

from roadsense.training.sweep.plot import plot
from roadsense.training.sweep.summary import same_weights, summarise, table

POINTS = [{"name": "base", "overrides": {}}, {"name": "wide", "overrides": {"head_widths": [64, 64]}}]
COLLISIONS = {"base": [3, 5, 4, 9, 2, 4], "wide": [1, 4, 0, 2, 2]}
BRAKES = {"base": [1.0, 1.4, 0.9, 2.2, 1.1, 1.3], "wide": [1.2, 1.0, 1.1, 0.8, 5.0]}
REWARDS = {"base": [-1.2, -1.4, -1.0, -1.9, -1.3, -1.25], "wide": [-1.1, -1.3, -0.9, -1.0, -1.05]}


def trial(point, seed, **figures):
    return {"point": point, "seed": seed, "status": "finished", "weights_digest": f"{point}{seed}", "figures": figures}


def trials_of(collisions=COLLISIONS, brakes=BRAKES, rewards=REWARDS, episodes=60):
    return [
        trial(
            point, seed, collision_share=hits / episodes, false_brakes_per_calm_km=brakes[point][seed],
            average_reward=rewards[point][seed], collisions=hits, episodes=episodes, timesteps=1000,
        )
        for point, found in collisions.items() for seed, hits in enumerate(found)
    ]  # fmt: skip


def test_each_point_is_the_middle_half_of_its_seeds_and_stands_beside_the_base():
    base, wide = summarise(POINTS, trials_of())
    assert (base["n"], wide["n"], wide["seeds"], base["against_base"]) == (6, 5, [0, 1, 2, 3, 4], None)
    scores = {"collision_share": COLLISIONS, "false_brakes_per_calm_km": BRAKES, "average_reward": REWARDS}
    for key, found in scores.items():
        over = 60.0 if key == "collision_share" else 1.0
        ours, theirs = np.array(found["wide"]) / over, np.array(found["base"]) / over
        assert wide["figures"][key]["iqm"] == pytest.approx(stats.trim_mean(ours, 0.25))
        assert base["figures"][key]["iqm"] == pytest.approx(stats.trim_mean(theirs, 0.25))
        against = wide["against_base"][key]
        difference = stats.trim_mean(ours, 0.25) - stats.trim_mean(theirs, 0.25)
        assert against["difference"]["value"] == pytest.approx(difference)
        assert (against["n"], against["n_base"]) == (5, 6)
        sign = 1 if key == "average_reward" else -1
        pairs = [np.sign(sign * (a - b)) for a, b in itertools.product(ours, theirs)]
        assert against["better"]["probability"] == pytest.approx(0.5 + 0.5 * np.mean(pairs))
        exact = stats.bootstrap(
            (ours,), lambda x, axis: stats.trim_mean(x, 0.25, axis=axis), method="percentile", n_resamples=20_000,
            rng=np.random.default_rng(1), vectorized=True,
        ).confidence_interval  # fmt: skip
        spread = exact.high - exact.low
        assert wide["figures"][key]["low"] == pytest.approx(exact.low, abs=0.1 * spread)
        assert wide["figures"][key]["high"] == pytest.approx(exact.high, abs=0.1 * spread)
        for part in (against["difference"], against["better"]):
            value = part.get("value", part.get("probability"))
            assert part["low"] < value < part["high"]


def test_what_is_printed_is_what_was_computed():
    lines = table(summarise(POINTS, trials_of()), {"head_widths": [64]}, 60).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert cells[0][:2] == ["point", "n seeds"] and len({*map(len, lines[:6])}) == 1
    base, wide, minus, better = cells[2:]
    assert base[:2] == ["base (head_widths 64)", "6"] and wide[:2] == ["head_widths 64x64", "5"]
    # 2 3 4 4 5 9 of 60 without the outer ones: 4 of 60; 0 1 2 2 4: 5/3 of 60
    assert base[2].startswith("6.67 [") and wide[2].startswith("2.78 [") and minus[2].startswith("−3.89 [−")
    # wins of 30 pairs: 1 against all six 6; 4 against 3 5 4 9 2 4: 5 and 9, ties with two: 3; 0: 6; 2, twice: 5.5
    assert minus[1] == better[1] == "5, 6" and better[2].startswith("0.87 [")
    assert wide[3].startswith("1.10 [") and minus[4].startswith("+0.24 [")
    assert "on 60 episodes of val/" in lines[7]


def test_no_spread_is_no_interval_and_no_collision_is_no_certainty():
    nothing = {"base": [0, 0], "wide": [0]}
    same = {"base": [1.0, 1.0], "wide": [2.0]}
    base, wide = summarise(POINTS, trials_of(nothing, same, same, episodes=40))
    exact = stats.binomtest(0, 40).proportion_ci(0.95, method="exact")
    for one in (base, wide):
        found = one["figures"]["collision_share"]
        assert (found["iqm"], found["low"], found["interval"]) == (0.0, 0.0, "clopper-pearson")
        assert found["high"] == pytest.approx(exact.high)
        assert one["figures"]["average_reward"]["low"] is None and one["figures"]["average_reward"]["high"] is None
    assert wide["against_base"]["average_reward"]["difference"] == {"value": 1.0, "low": None, "high": None}
    assert "+1.00 [–]" in table([base, wide], {}, 40) and "0.00 [0.00, 8.81]" in table([base, wide], {}, 40)


def test_trials_that_did_not_finish_are_counted_and_left_out():
    trials = trials_of()
    for one in trials:
        if one["point"] == "wide" and one["seed"] != 1:
            one.update(status="failed", figures=None)
    base, wide = summarise(POINTS, trials)
    assert (wide["n"], wide["seeds"], wide["not_finished"]) == (1, [1], [0, 2, 3, 4])
    assert wide["figures"]["average_reward"] == {
        "iqm": -1.3, "low": None, "high": None, "n": 1, "interval": None
    }  # fmt: skip
    assert "| 1 of 5" in table([base, wide], {}, 60)
    for one in trials:
        if one["point"] == "base":
            one.update(status="failed", figures=None)
    base, wide = summarise(POINTS, trials)
    assert base["n"] == 0 and wide["against_base"]["average_reward"] is None
    assert "| 0 of 6  | –" in table([base, wide], {}, 60)
    assert plot([base, wide], trials).startswith(b"\x89PNG")


def test_points_that_change_nothing_are_found():
    trials = trials_of()
    assert same_weights(POINTS, trials) == []
    for one in trials:
        one["weights_digest"] = str(one["seed"])
    assert same_weights(POINTS, trials) == ["wide"]
    trials[-1]["weights_digest"] = "another"
    assert same_weights(POINTS, trials) == []


def test_the_plot_is_the_same_again_and_changes_with_what_it_shows():
    trials = trials_of()
    shown = plot(summarise(POINTS, trials), trials)
    assert shown == plot(summarise(POINTS, trials), trials) and len(shown) > 10_000
    assert shown != plot(summarise(POINTS, trials[:-1]), trials[:-1])
