"""Fragments are functions of weights and of where worlds stood: in any batch, by any worker, to the bit."""

import subprocess
import sys

import numpy as np
import pytest

from roadsense.convoy.player import Player
from roadsense.errors import InputMismatchError, TrafficError
from roadsense.training.driven_worlds import DrivenWorlds
from roadsense.training.episodes import Episodes
from roadsense.training.fragments import Ends
from roadsense.training.teacher import Teacher, TeacherConfig

from .fragments import PEERS, equal, first_episodes, some_weights

WORLDS, STEPS = 4, 150


@pytest.fixture
def opened():
    players = []

    def open_worlds(count, engine="native"):
        players.append(Player(count, engine=engine, max_peers=PEERS))
        return DrivenWorlds(players[-1])

    yield open_worlds
    for player in players:
        player.close()


def after(episodes, fragment):
    return episodes.after(fragment.applied, fragment.ends.mask(*fragment.raw.shape))


def test_worlds_apart_drive_as_worlds_together(opened):
    """Through ends of episodes, with their noise, their totals and their next episodes."""
    weights, together, stand = some_weights(), opened(WORLDS), first_episodes(WORLDS)
    apart = [opened(2), opened(2)]
    ended = 0
    for _ in range(4):
        whole = together.explore(weights, stand, STEPS)
        for half, place in zip(apart, (slice(0, 2), slice(2, 4)), strict=True):
            part = half.explore(weights, stand.of(place), STEPS)
            for name in ("raw", "applied", "rewards"):
                assert np.array_equal(getattr(part, name), getattr(whole, name)[:, place]), name
            assert all(np.array_equal(a, b[:, place]) for a, b in zip(part.seen, whole.seen, strict=True))
            assert all(np.array_equal(a, b[place]) for a, b in zip(part.last, whole.last, strict=True))
            here = (whole.ends.world >= place.start) & (whole.ends.world < place.stop)
            assert np.array_equal(part.ends.total, whole.ends.total[here])
            assert np.array_equal(part.ends.step, whole.ends.step[here])
        ended += len(whole.ends.step)
        stand = after(stand, whole)
        assert together.at.stand_as(stand).all()
    assert ended >= WORLDS


@pytest.mark.parametrize("engine", ["native", "sumo"])
def test_who_never_drove_before_brings_the_same_fragment(opened, engine, request):
    """Also who drove other episodes meanwhile, or the same ones with other actions."""
    if engine == "sumo":
        request.getfixturevalue("require_sumo")
    weights, one, stand = some_weights(), opened(WORLDS, engine), first_episodes(WORLDS)
    for _ in range(3):
        stand = after(stand, one.explore(weights, stand, STEPS))
    assert (stand.steps > 0).all() and (stand.played > 1).any()
    expected = one.explore(weights, stand, STEPS)
    assert expected.repeated_steps == 0
    fresh = opened(WORLDS, engine)
    found = fresh.explore(weights, stand, STEPS)
    assert found.repeated_steps == stand.steps.sum() and equal(found, expected)
    fresh.explore(weights, first_episodes(WORLDS, seed=90), 20)
    assert equal(fresh.explore(weights, stand, STEPS), expected)
    other = stand._replace(actions=np.where(stand.actions > 0.0, 1.0, 0.0))
    fresh.look(other)  # as far in the same episodes, by other actions
    again = fresh.explore(weights, stand, STEPS)
    assert again.repeated_steps > 0 and equal(again, expected)


def test_a_lesson_is_the_same_wherever_it_is_given(opened):
    weights, stand = some_weights(), first_episodes(WORLDS)
    driven = np.array([True, True, False, False])
    whole = opened(WORLDS).lesson(weights, stand, STEPS, driven, Teacher(TeacherConfig()))
    part = opened(2).lesson(weights, stand.of(slice(1, 3)), STEPS, driven[1:3], Teacher(TeacherConfig()))
    for name in ("told", "decided"):
        assert np.array_equal(getattr(part, name), getattr(whole, name)[:, 1:3])
        assert getattr(whole, name).any()
    assert all(np.array_equal(a, b[:, 1:3]) for a, b in zip(part.seen, whole.seen, strict=True))


def test_noise_is_normal_and_another_one_in_every_step_world_and_seed():
    worlds = DrivenWorlds(Player(8, engine="native", max_peers=PEERS))
    weights = some_weights(std=0.5, scale=0.0)
    first = worlds.explore(weights, first_episodes(8), 500).raw
    assert abs(first.mean()) < 0.03 and abs(first.std() - 0.5) < 0.03
    assert len(np.unique(first)) == first.size
    assert not np.array_equal(first, worlds.explore(weights, first_episodes(8, seed=9), 500).raw)
    without = worlds.explore(some_weights(std=0.0, scale=0.0), first_episodes(8), 20)
    assert not without.raw.any()


def test_episodes_that_end_when_driven_again_are_refused():
    worlds = DrivenWorlds(Player(1, engine="native", max_peers=PEERS))
    stand = first_episodes(1)
    fragment = worlds.explore(some_weights(), stand, 900)
    longer = np.concatenate([fragment.applied[: fragment.ends.step[0] + 1], np.zeros((3, 1))])
    with pytest.raises(InputMismatchError, match=r"that was under way ends at step .* same versions on all machines"):
        worlds.go_to(stand._replace(steps=np.array([len(longer)]), actions=longer))
    expected = DrivenWorlds(Player(1, engine="native", max_peers=PEERS)).explore(some_weights(), stand, 50)
    assert equal(worlds.explore(some_weights(), stand, 50), expected)  # and the worlds are of use afterwards


def test_where_worlds_stand_after_some_steps():
    stand = Episodes(np.arange(3, dtype=np.uint64), np.array([1, 4, 2]), np.array([0, 2, 1]),
                     np.array([[0.0, 0.1, 0.3], [0.0, 0.2, 0.0]]))  # fmt: skip
    applied = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    ended = np.array([[False, True, False], [False, False, True]])
    later = stand.after(applied, ended)
    assert later.played.tolist() == [1, 5, 3] and later.steps.tolist() == [2, 1, 0]
    assert later.actions.tolist() == [[1.0, 5.0, 0.0], [4.0, 0.0, 0.0]]
    middle = stand.after(applied, np.zeros_like(ended))
    assert middle.steps.tolist() == [2, 4, 3] and middle.actions[:, 1].tolist() == [0.1, 0.2, 2.0, 5.0]
    assert middle.of(slice(2, 3)).actions.tolist() == [[0.3], [3.0], [6.0]]
    assert stand.stand_as(stand).all()
    changed = stand._replace(actions=stand.actions + np.array([[0.0, 1e-9, 0.0], [0.0, 0.0, 0.0]]))
    assert stand.stand_as(changed).tolist() == [True, False, True]
    assert stand.stand_as(later).tolist() == [False, False, False]


def test_ends_of_parts_are_joined_by_step_then_world():
    def ends(steps, worlds):
        count = len(steps)
        seen = some_ends_seen(worlds)
        return Ends(np.array(steps), np.array(worlds), np.arange(count), np.array(steps) * 1.0, np.arange(count), seen)

    def some_ends_seen(worlds):
        worlds = DrivenWorlds(Player(1, engine="native", max_peers=PEERS)).worlds.observation._replace(
            ego=np.array(worlds, np.float32)[:, None]
        )
        return type(worlds)(worlds.ego, np.zeros((len(worlds.ego), 1, 8)), np.zeros((len(worlds.ego), 1)))

    joined = Ends.joined([ends([3, 7], [1, 0]), ends([0, 3, 7], [0, 1, 0])], [0, 2])
    assert joined.step.tolist() == [0, 3, 3, 7, 7] and joined.world.tolist() == [2, 1, 3, 0, 2]
    assert joined.seen.ego[:, 0].tolist() == [0.0, 1.0, 1.0, 0.0, 0.0]


def test_a_worker_needs_no_torch_and_no_ray():
    code = (
        "import sys, roadsense.training.driven_worlds; "
        "print([name for name in ('torch', 'stable_baselines3', 'ray') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_worlds_that_were_left_half_way_are_driven_there_again(opened, monkeypatch):
    weights, worlds, stand = some_weights(), opened(WORLDS), first_episodes(WORLDS)
    expected = opened(WORLDS).explore(weights, stand, STEPS)
    worlds.go_to(stand)
    step, left = worlds.worlds.step, [70]

    def break_off(actions):
        left[0] -= 1
        if left[0] < 0:
            raise TrafficError("a traffic worker ended by itself.")
        return step(actions)

    monkeypatch.setattr(worlds.worlds, "step", break_off)
    with pytest.raises(TrafficError):
        worlds.explore(weights, stand, STEPS)
    monkeypatch.undo()
    assert not worlds.at.stand_as(stand).any()
    assert equal(worlds.explore(weights, stand, STEPS), expected)
