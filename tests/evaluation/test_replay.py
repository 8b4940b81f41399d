"""An episode as a page: what it holds is what was played, and a browser shows it."""

import itertools
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from roadsense.cli import main
from roadsense.convoy.observation import PEER_FEATURES
from roadsense.convoy.picture import MAX_FRAMES
from roadsense.convoy.player import Player
from roadsense.errors import EXIT_OK, EXIT_USAGE, UsageError
from roadsense.evaluation.evaluate import EvaluationConfig, ListConfig, evaluate
from roadsense.evaluation.metrics import measure
from roadsense.evaluation.replay import document, page, play_again, read_address, replay
from roadsense.evaluation.rollout import episodes_of, play_all
from roadsense.policies.baselines import make_baseline

from ..browser import chromium
from ..policies.networks import random_actor, write_run
from .test_suites import file_of

CONFIG = ListConfig(engine="native")
NUMBER = 2
"""An episode of the built-in list in which a car brakes hard and nobody helps."""


def played(policy, number, count=1, worlds=1, **kwargs):
    """Traces of a baseline's episodes from ``number`` on."""
    frames = MAX_FRAMES if kwargs.get("picture") else 0
    player = Player(worlds, split="eval", engine="native", max_frames=frames)
    listed = itertools.islice(episodes_of(player.source, player.radios), number, number + count)
    try:
        return list(play_all(make_baseline(policy), player.worlds, listed, **kwargs))
    finally:
        player.close()


@pytest.fixture(scope="module")
def recorded():
    """One episode with all that can be recorded."""
    (trace,) = played("none", NUMBER, picture=True, observations=True)
    return trace


@pytest.fixture(scope="module")
def shown():
    """Its document."""
    return document(play_again(f"none:{NUMBER}", CONFIG))


# ---- what is recorded ------------------------------------------------------------------------------------------------


def test_an_episode_played_alone_is_the_one_of_the_list():
    listed, (alone,) = played("none", 0, count=4), played("none", 3)
    assert (alone.scenario_id, alone.seed) == (listed[3].scenario_id, listed[3].seed)
    assert np.array_equal(alone.position_m, listed[3].position_m)


def test_recording_pictures_changes_nothing(recorded):
    (plain,) = played("none", NUMBER)
    assert plain.picture is None
    assert measure(plain) == measure(recorded)
    for name in ("position_m", "age_s", "reward", "beacons_lost", "beacons_received"):
        assert np.array_equal(getattr(plain, name), getattr(recorded, name), equal_nan=True), name


def test_told_places_are_those_of_the_observation(recorded):
    """Seen from V001's own estimate, they are the first two columns of the policy's rows, as a set."""
    picture, checked = recorded.picture, 0
    for k in range(0, recorded.num_steps, 7):
        dx, dy = picture.heard.x_m[k] - picture.own_x_m[k], picture.heard.y_m[k] - picture.own_y_m[k]
        cos, sin = np.cos(picture.own_heading_rad[k]), np.sin(picture.own_heading_rad[k])
        told = np.stack([cos * dx + sin * dy, cos * dy - sin * dx])[:, np.isfinite(dx)] / PEER_FEATURES[0].scale
        rows = recorded.peers[k][recorded.peer_mask[k] == 1]
        assert len(rows) == told.shape[1]
        for column in (0, 1):
            assert np.sort(told[column]) == pytest.approx(np.sort(rows[:, column]), abs=1e-6)
        checked += len(rows)
    assert checked > 50
    assert np.array_equal(picture.heard.age_s, recorded.age_s, equal_nan=True)


def test_frames_that_reach_v001_are_the_beacons_that_are_counted(recorded):
    """A source's beacon that arrived by any way within the episode was received, once."""
    frames = recorded.picture.frames
    mine = frames[(frames["receiver"] == 0) & (frames["arrival_s"] <= recorded.num_steps * 0.1)]
    assert recorded.picture.frames_left_out == 0
    for car in range(1, 5):
        arrived = set(mine["generation"][mine["source"] == car].tolist())
        before = recorded.beacons_received[car] - len(arrived)  # sent before t = 0, arrived after
        assert 0 <= before <= 1, car
    assert (frames["sent_s"][1:] >= frames["sent_s"][:-1]).all()
    assert set(np.unique(frames["receiver"])) == set(range(5))


def test_worlds_of_a_batch_keep_their_own_frames():
    together = played("none", NUMBER, count=2, worlds=2, picture=True)
    for one, alone in zip(together, played("none", NUMBER, count=2, picture=True), strict=True):
        fields = [name for name in alone.picture.frames.dtype.names if name != "world"]
        assert np.array_equal(one.picture.frames[fields], alone.picture.frames[fields])
        assert np.array_equal(one.picture.x_m, alone.picture.x_m)


# ---- what the page holds ---------------------------------------------------------------------------------------------


def test_the_document_tells_the_episode(shown, recorded):
    metrics = measure(recorded)
    assert shown["end"] == metrics.end_reason == "collision"
    assert shown["impact_speed_mps"] == pytest.approx(metrics.impact_speed_mps, abs=0.005)
    assert shown["steps"] == recorded.num_steps
    assert shown["names"] == ["V001", "V002", "V003", "V004", "V005"]
    assert shown["hazard"]["onset"] == recorded.onset_step
    assert shown["names"][shown["hazard"]["target"]] == f"V{recorded.hazard_target + 1:03}"
    assert len(shown["gap_m"]) == len(shown["cars"]["x"][0]) == recorded.num_steps + 1
    assert len(shown["action"]) == recorded.num_steps
    assert min(ttc for ttc in shown["ttc_s"] if ttc is not None) == pytest.approx(metrics.min_ttc_s, abs=0.005)
    assert None in shown["ttc_s"]  # no number for none
    lost = np.isinf(recorded.picture.frames["arrival_s"]).sum()
    assert shown["frames"]["arrived"].count(None) == lost > 50
    assert json.loads(json.dumps(shown, allow_nan=False)) == shown


def test_the_same_episode_gives_the_same_bytes_and_another_one_others(tmp_path):
    files = [tmp_path / name for name in ("one.html", "two.html", "three.html")]
    for file, episode in zip(files, ("v2v_rule:1", "v2v_rule:1", "v2v_rule:4"), strict=True):
        replay(episode, CONFIG, file)
    assert files[0].read_bytes() == files[1].read_bytes() != files[2].read_bytes()


def test_a_run_folder_is_replayed_and_its_page_names_the_weights(tmp_path):
    write_run(tmp_path / "run", random_actor(seed=3))
    run = tmp_path / "run"
    replay(f"{run}:1", CONFIG, tmp_path / "page.html")
    (data,) = re.findall(r'id="data">(.*?)</script>', (tmp_path / "page.html").read_text("utf-8"), re.DOTALL)
    about = json.loads(data)["about"]
    assert (about["policy"], about["number"]) == ("run", 1)
    assert re.fullmatch("[0-9a-f]{64}", about["weights_digest"])


class Addresses(HTMLParser):
    """Collects everything that could make a browser ask for another file."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        self.found += [value for name, value in attributes if name in ("src", "href", "action", "data", "poster")]


def test_the_page_names_no_other_file(shown):
    text = page(shown)
    finder = Addresses()
    finder.feed(text)
    assert finder.found == []
    assert not re.search(r"https?://|@import|url\(|import\(|fetch\(|XMLHttpRequest", text)


def test_no_name_can_break_out_of_the_page(shown):
    wicked = "</script><script>document.title='broken'</script>"
    text = page({**shown, "about": {**shown["about"], "policy": wicked}})
    assert "</script><script>document" not in text
    (data,) = re.findall(r'id="data">(.*?)</script>', text, re.DOTALL)
    assert json.loads(data)["about"]["policy"] == wicked


@pytest.mark.parametrize("episode", ["v2v_rule", "v2v_rule:", ":3", "v2v_rule:x", "v2v_rule:-1", "v2v_rule:1.5", "a:²"])
def test_what_is_no_address_is_refused(episode):
    with pytest.raises(UsageError, match=r"is no address; give <policy>:<number>"):
        read_address(episode)


def test_an_address_may_hold_further_colons():
    assert read_address("C:/runs/s7:12") == ("C:/runs/s7", 12)


def test_the_verb_writes_the_page_and_tells_where(tmp_path, capsys):
    file = tmp_path / "made" / "episode.html"
    assert main(["replay", "v2v_tuned:1", "--html", str(file), "--engine", "native"]) == EXIT_OK
    assert capsys.readouterr().out == f"{file}\n"
    assert "<title>v2v_tuned, episode 1</title>" in file.read_text(encoding="utf-8")
    for arguments, told in (
        (["v2v_tned:1", "--html", str(file)], "policy 'v2v_tned' is unknown; did you mean 'v2v_tuned'?"),
        (["v2v_tuned", "--html", str(file)], "is no address"),
        (["v2v_tuned:1", "--html", str(tmp_path)], "is a folder; name a file."),
        (["v2v_tuned:1", "--html", str(file), "--split", "evl"], "split 'evl' is unknown"),
    ):
        assert main(["replay", *arguments]) == EXIT_USAGE
        assert told in capsys.readouterr().err


# ---- in a browser ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def file(shown, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "episode.html"
    path.write_text(page(shown), encoding="utf-8")
    return path


@pytest.fixture
def opened(browser, file):
    """The page, in a window of a desk."""
    browser.problems.clear()
    browser.requests.clear()
    browser.open(file)
    yield browser
    assert browser.problems == []
    assert browser.requests == [file.resolve().as_uri()]


COLOURS = """
(id => {
  const canvas = document.getElementById(id), found = {}, copy = document.createElement("canvas");
  copy.width = canvas.width; copy.height = canvas.height;
  const g = copy.getContext("2d", {willReadFrequently: true});
  g.drawImage(canvas, 0, 0);
  const pixels = g.getImageData(0, 0, copy.width, copy.height).data;
  for (let i = 0; i < pixels.length; i += 4) {
    if (pixels[i + 3] < 255) continue;
    const colour = [pixels[i], pixels[i + 1], pixels[i + 2]].join();
    found[colour] = (found[colour] || 0) + 1;
  }
  return found;
})
"""
BLUE, RED, GREEN = "10,95,196", "204,41,54", "20,131,107"


def colours(browser, canvas):
    """How many pixels of each colour a canvas shows."""
    return browser.evaluate(f"{COLOURS}({json.dumps(canvas)})")


def test_the_page_shows_cars_and_curves_and_complains_of_nothing(opened, shown):
    assert opened.text("#title") == "none, episode 2 of eval"
    assert "It ends after 21.8 s with a collision at 13.7 m/s." in opened.text("#story")
    scene, charts = colours(opened, "scene"), colours(opened, "charts")
    assert scene[BLUE] > 100 and len(scene) > 20
    assert scene.get(RED, 0) < 100  # before the hazard
    assert len(charts) > 20
    assert opened.evaluate("document.querySelectorAll('#peers tr').length") == 4


def test_the_scrubber_moves_time_and_the_picture(opened, shown):
    assert opened.text("#time") == "0.0 s"
    before, onset = opened.text("#now"), shown["hazard"]["onset"]
    opened.evaluate(f"""(() => {{
        const bar = document.getElementById("scrubber");
        bar.value = {onset + 3}; bar.dispatchEvent(new Event("input"));
    }})()""")
    assert opened.text("#time") == f"{(onset + 3) / 10:.1f} s"
    assert opened.text("#now") != before
    assert "active" in opened.text("#now")
    assert colours(opened, "scene")[RED] > 100  # the target


def test_a_click_on_the_bar_and_one_in_the_charts_go_there(opened, shown):
    for place in ("scrubber", "charts"):
        opened.evaluate(f"document.getElementById('{place}').scrollIntoView({{block: 'start'}})")
        left, top, width = opened.evaluate(
            f"(b => [b.left, b.top, b.width])(document.getElementById('{place}').getBoundingClientRect())"
        )
        opened.click(left + width / 2, top + 8)
        assert int(opened.text("#step").split("/")[0]) == pytest.approx(shown["steps"] / 2, abs=0.05 * shown["steps"])
        opened.press("Home")


def test_keys_step_and_play(opened, shown):
    for key, shift, expected in (
        ("ArrowRight", False, "0.1 s"), ("ArrowRight", False, "0.2 s"), ("ArrowLeft", False, "0.1 s"),
        ("ArrowRight", True, "1.1 s"), ("ArrowLeft", True, "0.1 s"), ("Home", False, "0.0 s"),
        ("ArrowLeft", False, "0.0 s"), ("End", False, f"{shown['steps'] / 10:.1f} s"),
    ):  # fmt: skip
        opened.press(key, shift)
        assert opened.text("#time") == expected, key
    opened.press("Home")
    opened.press(" ")
    opened.wait_for("parseFloat(document.getElementById('time').textContent) >= 0.5")
    opened.press(" ")
    stopped = opened.text("#time")
    assert (
        opened.evaluate("new Promise(done => setTimeout(() => done(document.getElementById('time').textContent), 250))")
        == stopped
    )
    assert "play" in opened.text("#play")


def test_a_bar_that_has_the_focus_is_stepped_once_a_key(opened):
    opened.evaluate("document.getElementById('scrubber').focus()")
    opened.press("ArrowRight")
    assert opened.text("#time") == "0.1 s"
    opened.evaluate("document.getElementById('play').focus()")
    opened.press(" ")
    assert "stop" in opened.text("#play")
    opened.press(" ")
    assert "play" in opened.text("#play")


def test_the_figures_are_those_of_the_step(opened, shown):
    k = 100
    opened.evaluate(f"go({k})")
    assert f"{shown['gap_m'][k]:.1f} m" in opened.text("#now")
    row = opened.evaluate("[...document.querySelectorAll('#peers tr')[0].cells].map(cell => cell.textContent)")
    cars = shown["cars"]
    away = np.hypot(cars["x"][1][k] - cars["x"][0][k], cars["y"][1][k] - cars["y"][0][k])
    assert float(row[1]) == pytest.approx(away, abs=0.1)  # a straight stretch
    assert row[6] == str(shown["told"]["age_ms"][1][k])


def test_messages_between_peers_are_shown_where_they_are_asked_for(opened):
    image = "document.getElementById('scene').toDataURL()"
    opened.evaluate("go(60)")
    plain = opened.evaluate(image)
    opened.evaluate("document.getElementById('all-links').click()")
    assert opened.evaluate(image) != plain
    opened.evaluate("document.getElementById('all-links').click()")
    assert opened.evaluate(image) == plain


def test_a_message_is_seen_on_its_way_and_fades_once_it_arrived(opened, shown):
    frames = shown["frames"]
    flights = [(sent, arrived) for sent, arrived, to, hops in zip(
        frames["sent"], frames["arrived"], frames["to"], frames["hops"], strict=True
    ) if to == 0 and hops == 0 and arrived]  # fmt: skip
    sent, arrived = next(
        one for one in flights if one[0] > 2000 and one[1] - one[0] > 4
        and not any(other != one and other[0] < one[1] + 5 and other[1] > one[0] for other in flights)
    )  # fmt: skip

    def bright(ms):
        opened.evaluate(f"go({ms / 100})")
        return colours(opened, "scene").get(GREEN, 0)

    on_its_way = [bright(sent + share * (arrived - sent)) for share in (0.2, 0.6, 0.98)]
    assert 20 < on_its_way[0] <= on_its_way[1] <= on_its_way[2]
    assert bright(arrived + 3) < 0.3 * on_its_way[0]


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_shows_it_without_scrolling_sideways(browser, file, dark):
    browser.problems.clear()
    browser.open(file, width=390, height=844, scale=2.0, dark=dark)
    assert browser.evaluate("document.documentElement.scrollWidth") <= 390
    tops = browser.evaluate(
        "[...document.querySelectorAll('.controls > :not(input)')].map(one => one.getBoundingClientRect().top)"
    )
    assert max(tops) - min(tops) < 20  # all controls in one row
    small = browser.evaluate(
        "[...document.querySelectorAll('button, select')].filter(one => one.offsetHeight < 32).length"
    )
    assert small == 0
    assert len(colours(browser, "scene")) > 20
    assert browser.problems == []


def test_an_episode_of_a_suite_is_the_one_that_was_counted(tmp_path):
    config = ListConfig(suite=file_of(tmp_path), engine="native", max_peers=2)
    again = play_again("none:20", config)
    stated = EvaluationConfig(suite=config.suite, engine="native", max_peers=2)
    counted = evaluate([make_baseline("none")], stated, progress=False).rows[20]
    assert measure(again.trace) == counted.metrics
    assert again.listed.endswith(counted.bucket)
    with pytest.raises(UsageError, match="has 36 episodes from 0 on; there is no 36"):
        play_again("none:36", config)
