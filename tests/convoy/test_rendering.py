"""Pictures: things stand at the right pixels, in the right colours, and looking changes nothing."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import roadsense  # noqa: F401
from roadsense.convoy import window
from roadsense.convoy.font import dots
from roadsense.convoy.raster import Raster
from roadsense.convoy.rendering import (
    EGO_AT,
    EGO_COLOUR,
    GHOST_COLOUR,
    HAZARD_COLOUR,
    HEIGHT,
    PEER_COLOUR,
    PIXELS_PER_M,
    ROAD,
    SILENT_COLOUR,
    WIDTH,
    frame,
)
from roadsense.errors import RoadsenseError

REPO = Path(__file__).resolve().parents[2]
ZERO = np.zeros(1, np.float32)
HAZARD = {"hazard.share": 1.0, "hazard.onset_s": (1.0, 1.0), "hazard.rank": (2, 2), "hazard.release_share": 0.0}


@pytest.fixture
def make():
    """Makes environments on the straight road without radio losses, and closes them all."""
    opened = []

    def build(**kwargs):
        made = {"engine": "native", "scenario_list": ["straight"], "radio": "ideal", "render_mode": "rgb_array"}
        opened.append(gym.make("Convoy-v0", **{**made, **kwargs}))
        return opened[-1]

    yield build
    for env in opened:
        env.close()


def middle_of(worlds, car):
    """Column and row of the middle of a car, straight road: along x, with V001 at its place."""
    state = worlds.traffic.state
    ahead_m = state.position_m[0, car] - state.length_m[0, car] / 2 - state.position_m[0, 0]
    return round(EGO_AT[0] + PIXELS_PER_M * ahead_m), EGO_AT[1]


def colour_at(picture, place):
    return tuple(picture[place[1], place[0]].tolist())


def places_of(picture, colour):
    """Columns of the pixels above the panel and below the legend that have this very colour."""
    return np.flatnonzero((picture[40:240] == colour).all(axis=2).any(axis=0))


def test_gymnasium_finds_nothing_to_complain_about(make, watching):
    check_env(make().unwrapped)  # in every render mode
    assert watching.shown


def test_a_picture_is_of_one_size_and_type(make):
    env = make()
    env.reset(seed=1)
    picture = env.render()
    assert picture.shape == (HEIGHT, WIDTH, 3) == (320, 960, 3)
    assert picture.dtype == np.uint8


def test_cars_stand_where_they_are_and_only_v001_is_blue(make):
    env = make(radio="off")  # no ghosts that could lie over a car
    env.reset(seed=1)
    for _ in range(20):
        env.step(ZERO)
    worlds = env.unwrapped.worlds
    picture = env.render()
    assert colour_at(picture, middle_of(worlds, 0)) == EGO_COLOUR
    in_view = [car for car in range(1, 5) if middle_of(worlds, car)[0] < WIDTH]
    assert len(in_view) >= 2
    for car in in_view:
        column, row = middle_of(worlds, car)
        assert colour_at(picture, (column, row)) == PEER_COLOUR
        half_length = worlds.traffic.state.length_m[0, car] / 2 * PIXELS_PER_M
        for off in (-half_length - 3, half_length + 3):
            assert colour_at(picture, (round(column + off), row)) == ROAD
    blue = places_of(picture, EGO_COLOUR)
    assert blue.max() < EGO_AT[0] and len(blue) == worlds.traffic.state.length_m[0, 0] * PIXELS_PER_M


def test_the_target_turns_red_when_the_hazard_begins(make):
    env = make(radio="off")
    env.reset(seed=1, options={"episode": HAZARD})
    assert not len(places_of(env.render(), HAZARD_COLOUR))
    info = {"hazard_phase": 0}
    while info["hazard_phase"] == 0:
        *_, info = env.step(ZERO)
    worlds = env.unwrapped.worlds
    target = int(worlds.records[0]["hazard_target"])
    assert colour_at(env.render(), middle_of(worlds, target)) == HAZARD_COLOUR


def test_a_car_without_a_radio_is_only_an_outline(make):
    env = make(radio="off")
    env.reset(seed=1)
    worlds = env.unwrapped.worlds
    worlds.traffic.state.transmits[0, 1] = False
    column, row = middle_of(worlds, 1)
    picture = env.render()
    assert colour_at(picture, (column, row)) == ROAD
    assert abs(places_of(picture, SILENT_COLOUR) - column).max() <= 10


def test_ghosts_stand_where_the_policy_is_told_and_fade_with_age(make):
    env = make()
    observation, _ = env.reset(seed=1)
    worlds = env.unwrapped.worlds
    forward = 100.0 * observation["peers"][observation["peer_mask"] == 1, 0]
    nearest = EGO_AT[0] + PIXELS_PER_M * float(forward.min())
    fresh = env.render()

    def orange(picture, column):
        """How much more red than blue there is around a front bumper."""
        around = picture[118:140, round(column) - 4 : round(column) + 1].astype(int)
        return int((around[..., 0] - around[..., 2]).max())

    assert orange(fresh, nearest) > 150
    worlds.emulator.arrays.messages["arrival_s"] -= 0.45
    worlds.emulator.arrays.messages["speed_mps"] = 0.0  # so that they stay where they are
    assert 20 < orange(env.render(), nearest) < 0.7 * orange(fresh, nearest)
    worlds.emulator.arrays.cars["messages"][:] = 0
    assert orange(env.render(), nearest) < 20


def test_the_road_bends_where_it_bends(make):
    env = make(scenario_list=["curve"])
    env.reset(seed=1)
    for _ in range(60):  # into the bend
        env.step(ZERO)
    rows = np.flatnonzero((env.render()[:240, EGO_AT[0] + 302] == ROAD).all(axis=1))
    assert len(rows) and abs(rows.mean() - EGO_AT[1]) > 10


def test_bars_tell_the_action(make):
    env = make(radio="off")
    env.reset(seed=1)

    def orange_in_panel(picture):
        return int((picture[250:] == GHOST_COLOUR).all(axis=2).sum())

    env.step(ZERO)
    assert orange_in_panel(env.render()) == 0
    env.step(np.ones(1, np.float32))
    full = orange_in_panel(env.render())
    env.step(np.full(1, 0.5, np.float32))
    assert orange_in_panel(env.render()) == pytest.approx(full / 2, rel=0.02)


def test_looking_changes_nothing(make):
    """Same bits of everything an episode is, with and without pictures."""

    def played(looks):
        env = make(radio="convoy")
        worlds, seen = env.unwrapped.worlds, []
        observation, _ = env.reset(seed=5)
        for _ in range(60):
            if looks:
                env.render()
            seen += [part.tobytes() for part in observation.values()]
            observation, reward, *_ = env.step(ZERO)
            seen.append(np.float64(reward).tobytes())
        arrays = [*worlds.traffic.state, worlds.emulator.arrays.cars, worlds.emulator.arrays.messages, worlds.records]
        return b"".join([*seen, *(array.tobytes() for array in arrays)])

    assert played(looks=True) == played(looks=False)


def test_equal_worlds_give_equal_pictures_and_a_step_another(make):
    first, second = make(), make()
    first.reset(seed=2)
    second.reset(seed=2)
    before = first.render()
    assert np.array_equal(before, second.render())
    first.step(ZERO)
    assert not np.array_equal(before, first.render())


def test_a_batch_gives_one_picture_a_world_each_that_of_the_single_environment(make):
    envs = gym.make_vec("Convoy-v0", num_envs=2, engine="native", render_mode="rgb_array", scenario_list=["straight"])
    try:
        with pytest.raises(gym.error.ResetNeeded, match="nothing to draw yet"):
            envs.render()
        envs.reset(seed=7)
        pictures = envs.render()
        assert isinstance(pictures, tuple) and len(pictures) == 2
        for world, picture in enumerate(pictures):
            single = make(radio=None)
            single.reset(seed=7 + world)
            assert np.array_equal(single.render(), picture)
    finally:
        envs.close()


def test_a_window_shows_every_reset_and_step_by_itself(make, watching):
    env = make(render_mode="human")
    env.reset(seed=1)
    env.step(ZERO)
    assert env.render() is None
    assert len(watching.shown) == 2
    assert np.array_equal(watching.shown[-1], frame(env.unwrapped.worlds, 0))
    env.close()
    assert watching.shown[-1] == "closed"


def test_a_window_of_a_batch_shows_the_first_worlds_above_each_other(watching):
    envs = gym.make_vec("Convoy-v0", num_envs=4, engine="native", render_mode="human", scenario_list=["straight"])
    try:
        envs.reset(seed=1)
        envs.step(np.zeros((4, 1), np.float32))
        assert envs.render() is None
        assert [picture.shape for picture in watching.shown] == [(3 * HEIGHT, WIDTH, 3)] * 2
    finally:
        envs.close()


@pytest.mark.skipif(importlib.util.find_spec("pygame") is not None, reason="pygame has windows of its own")
def test_without_a_display_a_window_is_one_clear_sentence(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    pytest.importorskip("tkinter", exc_type=ImportError)
    with pytest.raises(RoadsenseError, match=r"found no display to open a window on .*; set DISPLAY, or use") as told:
        window.open_window()
    assert "\n" not in str(told.value)


def test_without_any_library_a_window_is_one_clear_sentence(monkeypatch):
    for name in ("pygame", "tkinter"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(RoadsenseError, match="needs pygame or tkinter, and neither is installed"):
        window.open_window()


@pytest.mark.skipif(shutil.which("xvfb-run") is None, reason="no Xvfb here to open a window on")
def test_a_real_window_opens_and_takes_pictures(tmp_path):
    pytest.importorskip("tkinter", exc_type=ImportError)
    script = (
        "import numpy as np; from roadsense.convoy.window import open_window\n"
        "shown = open_window(); shown.show(np.zeros((320, 960, 3), np.uint8))\n"
        "shown.show(np.zeros((640, 960, 3), np.uint8)); shown.close(); shown.close(); print('fine')"
    )
    run = subprocess.run(["xvfb-run", "-a", sys.executable, "-c", script], capture_output=True, text=True,
                         env={**os.environ, "PYTHONPATH": str(REPO)}, cwd=tmp_path)  # fmt: skip
    assert (run.returncode, run.stdout.strip()) == (0, "fine"), run.stderr


def test_a_box_covers_its_pixels_and_no_others():
    raster = Raster(20, 10, (0, 0, 0))
    raster.box(10.0, 5.0, 0.0, 4.0, 2.0, (255, 255, 255))
    rows, columns = np.nonzero(raster.pixels[..., 0])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (3, 6, 6, 13)
    assert (raster.pixels[3:7, 6:14] == 255).all()


def test_a_box_turned_by_a_right_angle_stands_upright_and_may_lie_over_the_edge():
    raster = Raster(20, 20, (0, 0, 0))
    raster.box(10.0, 10.0, np.pi / 2, 4.0, 2.0, (255, 255, 255))
    assert (raster.pixels[7:13, 9:11] == 255).all() and (raster.pixels[:, 13:] == 0).all()
    raster.box(0.0, 0.0, 0.3, 4.0, 2.0, (9, 9, 9))
    raster.box(-100.0, 0.0, 0.3, 4.0, 2.0, (9, 9, 9))
    raster.box(np.nan, 0.0, 0.3, 4.0, 2.0, (9, 9, 9))


def test_letters_differ_and_unknown_ones_are_blank():
    letters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ.-:/%+"
    shapes = {dots(letter).tobytes() for letter in letters}
    assert len(shapes) == len(letters)
    assert np.array_equal(dots("v"), dots("V"))
    assert not dots("²").any()
