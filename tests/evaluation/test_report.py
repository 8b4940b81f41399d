"""A run as one page: its numbers are those of the run's files, what is missing is said, and it asks no network."""

import json
import re
import shutil
from html.parser import HTMLParser

import pytest
import torch
import yaml

from roadsense.cli import main
from roadsense.errors import EXIT_OK, EXIT_USAGE, UsageError
from roadsense.evaluation.promotion import GateConfig, judge_run
from roadsense.evaluation.report import ReportConfig, write_report
from roadsense.evaluation.report_against import compare
from roadsense.evaluation.report_figures import loss_maps, read_bucket
from roadsense.evaluation.report_run import SuiteResult, read_run
from roadsense.evaluation.report_svg import nice_axis
from roadsense.evaluation.report_text import number, plain, proportion
from roadsense.evaluation.report_worst import worst_episodes
from roadsense.files import write_json
from roadsense.runs import COMPLETE, RunFolder

from ..browser import chromium
from ..policies.networks import random_actor, write_run
from .test_suites import SMALL

pytestmark = pytest.mark.usefixtures("require_sumo")

SECTIONS = ("verdict", "radio", "gates", "baselines", "loss", "reaction", "false-brakes", "string", "generalisation",
            "learning", "worst", "provenance")  # fmt: skip
QUICK = ReportConfig(replays=0)
CALM = {"hazard.share": 0.0, "hazard.kind": "none"}
RELEASE = SMALL["axes"]["release"]

SUITES = {
    "matrix": {"axes": {"peers": [1, 2], "release": RELEASE, "radio": ["convoy", "lossy:0.3,4.6"]}},
    "radio_worth": {"axes": {"radio": ["convoy", "off"]}},
    "loss_sweep": {"axes": {"loss": [0.0, 0.3], "burst": [1, 5], "gps_m": [1, 2]}, "episodes_per_bucket": 2},
    "calm": {"axes": {"peers": [1, 2], "radio": ["convoy"]}, "episode": CALM},
    "string": {"axes": {"radio": ["convoy"]},
               "episode": {**CALM, "wave.amplitude_mps": 2.778, "wave.frequency_hz": 0.2, "ordinary.brakings": [0, 0]}},
    "generalisation": {"axes": {"peers": [1, 2], "road": ["straight", "curve"], "radio": ["convoy"]}},
}  # fmt: skip


def hesitant(seed=0):
    """A random network that brakes in some episodes only."""
    actor = random_actor(seed=seed)
    with torch.no_grad():
        actor.head[-1].bias.fill_(0.0)
    return actor


def gates_of(folder):
    """Small suites of the shipped names, and gates that need them."""
    for name, changes in SUITES.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({**SMALL, "name": name, **changes}, sort_keys=False))
    of = {name: str(folder / f"{name}.yaml") for name in SUITES}
    gates = [
        {"group": "integrity", "name": "files", "check": "integrity"},
        {"group": "safety", "name": "collisions", "suite": of["matrix"], "figure": "collisions_in_hazards.rate",
         "at_most": 0.01},
        {"group": "safety", "name": "contacts", "suite": of["matrix"], "figure": "collisions.count", "at_most": 1000},
        {"group": "causality", "name": "radio helps", "suite": of["radio_worth"], "radio": "convoy",
         "fewer_collisions_than": {"radio": "off"}},
    ]  # fmt: skip
    path = folder / "gates.yaml"
    shown = {of[name]: ["none", "v2v_tuned"] for name in SUITES}
    path.write_text(yaml.safe_dump({"name": "mine", "version": 1, "about": "", "gates": gates, "shown": shown}))
    return str(path)


LOG = "timesteps,episode_reward,odd column\n100,-5,1\n200,-3,\n300,-2.5,4\n"


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """A run that was judged; tests copy it or leave it as it is."""
    root = tmp_path_factory.mktemp("judged")
    run = RunFolder(root / "hesitant")
    write_run(run.path, hesitant())
    (run.path / "training.csv").write_text(LOG)
    write_json(run.path / "environment.json", {"git_commit": "c0ffee", "python": "3.11", "versions": {"numpy": "2"}})
    run.set_status(COMPLETE)
    run.write_checksums()
    judge_run(run.path, GateConfig(gates=gates_of(root), confirm=0), progress=False)
    return run.path


@pytest.fixture(scope="module")
def reported(judged):
    write_report(judged, ReportConfig(replays=2))
    return judged


@pytest.fixture
def copied(judged, tmp_path):
    """A copy that a test may spoil; without checksums, for it was not packaged so."""
    shutil.copytree(judged, tmp_path / "copy")
    (tmp_path / "copy" / "checksums.sha256").unlink()
    return tmp_path / "copy"


def page_of(run, **kwargs):
    return write_report(run, ReportConfig(**{"replays": 0, **kwargs})).read_text()


def words(html):
    """What the page says, without markup, blanks as one."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))


class Tags(HTMLParser):
    """Counts elements and keeps their attributes."""

    def __init__(self, html):
        super().__init__()
        self.found = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def all(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


def suite_of(run, name):
    return json.loads((run / "suites" / f"{name}.json").read_text())["policies"]


# ---- what it says ----------------------------------------------------------------------------------------------------


def test_all_sections_stand_in_order(reported):
    html = (reported / "report.html").read_text()
    sections = [one["id"] for one in Tags(html).all("section")]
    assert sections == list(SECTIONS)
    assert "Cannot be shown" not in html and "was not played" not in html
    assert all(f'href="#{name}"' in html for name in SECTIONS[1:])


def test_the_verdict_names_what_failed_and_why(reported):
    gates = json.loads((reported / "gates.json").read_text())
    failed = [one for one in gates["verdicts"] if not one["passed"]]
    top = words((reported / "report.html").read_text().partition("<nav")[0])
    assert failed and not gates["accepted"]
    assert "rejected : hesitant" in top
    assert f"{len(failed)} of 4 gates failed" in top
    for one in failed:
        assert f"{one['group']}: {one['name']}" in top and plain(one["why"]) in top


def test_numbers_are_those_of_the_files(reported):
    html = words((reported / "report.html").read_text())
    for policies in (suite_of(reported, "matrix"), suite_of(reported, "radio_worth")):
        for policy in policies.values():
            for radio in policy["radios"].values():
                assert proportion(radio["collisions_in_hazards"]) in html
    for one in json.loads((reported / "gates.json").read_text())["verdicts"]:
        assert number(one["value"]) in html
    brakes = suite_of(reported, "calm")["v2v_tuned"]["radios"]["convoy"]["false_brakes_per_calm_km"]
    assert f"{number(brakes['value'])} [{number(brakes['low'])}, {number(brakes['high'])}]" in html
    for bucket in suite_of(reported, "loss_sweep")["none"]["buckets"]:
        assert f"{bucket['collisions']}/{bucket['n']} [" in html
    assert "episode_reward (n 3, last −2.5)" in html and "odd column (n 2, last 4)" in html
    weights = suite_of(reported, "matrix")["hesitant"]["weights_digest"]
    assert weights in html and "c0ffee" in html and "numpy 2" in html


def test_figures_draw_where_the_numbers_are(reported):
    """A dot of the judged policy under a radio stands at its rate, between 0 and 100 % of the axis."""
    html = (reported / "report.html").read_text()
    radio = html[html.index('id="radio"') : html.index('id="gates"')]
    dots = [float(x) for x in re.findall(r'<circle cx="([\d.]+)"[^>]*class="c0 dot"', radio)]
    found = suite_of(reported, "radio_worth")["hesitant"]["radios"]
    rates = [one["collisions_in_hazards"]["rate"] for one in found.values()]
    assert dots == pytest.approx([100 + 144 * rate for rate in rates], abs=0.06)


def test_the_reaction_curve_ends_at_the_share_that_answered(reported):
    rows = [row for row in read_run(reported).suites["matrix"].rows if row.radio == "convoy"]
    called = [row.metrics for row in rows if row.metrics.hazard_called]
    times = [one.reaction_from_onset_s for one in called]
    share = sum(time < 3.0 for time in times) / len(called)
    html = (reported / "report.html").read_text()
    curve = re.findall(r'<path d="([^"]*)" class="c0 curve"', html[html.index('id="reaction"') :])[0]
    top, bottom = 6 + 30, 200 + 30
    assert float(curve.split()[-1]) == pytest.approx(bottom - (bottom - top) * share, abs=0.06)
    assert 0.0 < share < 1.0  # else this shows little


def test_the_worst_are_collisions_by_impact_then_close_calls(judged):
    run = read_run(judged)
    worst = [one.row.metrics for one in worst_episodes(run, 1000)]
    crashed = [one for one in worst if one.collision]
    assert crashed and worst[: len(crashed)] == crashed
    impacts = [one.impact_speed_mps for one in crashed]
    assert impacts == sorted(impacts, reverse=True)
    rest = [one.min_ttc_s for one in worst[len(crashed) :] if one.min_ttc_s == one.min_ttc_s]
    assert rest == sorted(rest)
    found = worst_episodes(run, 1000)
    assert all(one.row.radio != "off" for one in found)
    drawn = [(one.suite.stem, one.row.metrics.scenario_id, one.row.metrics.seed) for one in found]
    assert len(drawn) == len(set(drawn))


def test_links_to_replays_exist_and_replays_are_of_those_episodes(reported):
    links = [one["href"] for one in Tags((reported / "report.html").read_text()).all("a") if "/" in one["href"]]
    assert len(links) == 2
    worst = worst_episodes(read_run(reported), 2)
    for link, one in zip(links, worst, strict=True):
        replayed = (reported / link).read_text()
        assert f'"seed":"{one.row.metrics.seed}"' in replayed
    assert "otherwise" not in words((reported / "report.html").read_text()).partition("The worst")[2]


# ---- what is missing or spoilt ---------------------------------------------------------------------------------------


def test_an_empty_run_is_said_to_be_one(tmp_path):
    html = words(page_of(tmp_path))
    assert "not judged" in html and "The run was not judged yet" in html
    for name in ("radio_worth", "matrix", "loss_sweep", "string", "generalisation", "calm"):
        assert f"The suite {name} was not played" in html
    assert "There is no training.csv" in html and "There are no episodes" in html


@pytest.mark.parametrize("spoilt", ["{", "[]", "{}", '{"policies": {"a": 3}}', '{"policies": {"a": {"radios": {}}}}'])
def test_a_spoilt_file_costs_its_section_alone(copied, spoilt):
    (copied / "suites" / "matrix.json").write_text(spoilt)
    html = page_of(copied)
    sections = [one["id"] for one in Tags(html).all("section")]
    assert [name for name in SECTIONS[1:] if name not in sections] == []
    assert proportion(suite_of(copied, "radio_worth")["none"]["radios"]["off"]["collisions_in_hazards"]) in words(html)
    assert "Cannot be shown" in html or "holds no evaluation" in html or "cannot be read" in html


@pytest.mark.parametrize("name", ["gates.json", "training.csv", "suites/matrix.csv", "metrics.json"])
def test_spoilt_records_do_no_harm(copied, name):
    for spoilt in (b"\xff\xfe\x00", b'{"a": 1}', b"a,b\n1\n"):
        (copied / name).write_bytes(spoilt)
        assert "What the radio is worth" in page_of(copied)


def test_hostile_names_are_text(copied):
    evil = "<img src=x onerror=alert(1)>&\"'%BODY%"
    for file in (copied / "suites").iterdir():
        file.write_text(file.read_text().replace("v2v_tuned", json.dumps(evil)[1:-1] if file.suffix == ".json" else ""))
    text = (copied / "suites" / "matrix.csv").read_text()
    (copied / "suites" / "matrix.csv").write_text(text.replace("straight", "<script>alert(2)</script>"))
    gates = json.loads((copied / "gates.json").read_text())
    gates["verdicts"][1] |= {"name": evil, "why": evil, "bound": evil, "figure": evil, "group": evil}
    write_json(copied / "gates.json", gates)
    (copied / "training.csv").write_text(f"timesteps,<script>\n1,2\n2,3\n{evil},3\n")
    (copied / "command.txt").write_text(evil)
    for tags in (Tags(page_of(copied)), Tags(page_of(copied, against=copied))):
        assert not tags.all("img") and not tags.all("script")
        assert len([one for one in tags.all("section") if one["id"] == "radio"]) == 1
    assert "&lt;img src=x" in page_of(copied)


def test_stale_suites_and_other_weights_are_called_out(copied):
    assert "judge the run again" not in page_of(copied)
    file = copied / "suites" / "calm.json"
    document = json.loads(file.read_text())
    document["suite"]["digest"] = "0" * 64
    document["policies"]["hesitant"]["weights_digest"] = "1" * 64
    write_json(file, document)
    html = page_of(copied)
    assert "suites/calm.json is not what the verdict rests on" in html
    assert "not all played by the same weights" in html


def test_checksums_follow_and_a_changed_file_is_not_covered_up(judged, tmp_path, capsys):
    shutil.copytree(judged, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    before = run.status
    write_report(run.path, QUICK)
    assert "report.html" in (run.path / "checksums.sha256").read_text() and run.status == before
    run.verify()
    (run.path / "training.csv").write_text("timesteps\n1\n")
    listed = (run.path / "checksums.sha256").read_bytes()
    assert "Do not trust this run" in page_of(run.path)
    assert (run.path / "checksums.sha256").read_bytes() == listed
    assert "training.csv: is missing or has changed" in capsys.readouterr().err


def test_a_replay_that_comes_out_otherwise_is_said_to(copied):
    write_run(copied, hesitant(seed=5))
    assert "played again it comes out otherwise" in page_of(copied, replays=2)
    (copied / "policy.safetensors").unlink()
    html = page_of(copied, replays=2)
    assert "cannot be played again" in html and "replays/" not in html
    assert list((copied / "replays").glob("*.html")) == []


def test_a_new_verdict_takes_the_page_of_the_old_one_away(copied, judged):
    write_report(copied, QUICK)
    judge_run(copied, GateConfig(gates=str(judged.parent / "gates.yaml"), confirm=0), progress=False)
    assert not (copied / "report.html").exists()
    assert "rejected" in page_of(copied)


# ---- against another run ---------------------------------------------------------------------------------------------


def verdict(value, low=None, high=None, passed=True, bound="at most 1", figure="f.rate"):
    return {"group": "g", "name": "n", "value": value, "low": low, "high": high, "n": 10, "passed": passed,
            "bound": bound, "figure": figure}  # fmt: skip


@pytest.mark.parametrize(
    ("now", "then", "worse", "doubtful", "said"),
    [
        (verdict(0.5, 0.4, 0.6), verdict(0.1, 0.0, 0.2), True, False, "worse, beyond both intervals"),
        (verdict(0.1, 0.0, 0.2), verdict(0.5, 0.4, 0.6), False, False, "better, beyond both intervals"),
        (verdict(0.5, 0.0, 0.9), verdict(0.1, 0.0, 0.2), False, False, "worse, within the intervals"),
        (verdict(0.1, 0.0, 0.2, bound="at least 1"), verdict(0.5, 0.4, 0.6), True, False, "worse, beyond"),
        (verdict(0.5), verdict(0.1), False, True, "worse, without intervals"),
        (verdict(0.5, passed=False), verdict(0.1), True, False, "passed then, fails now"),
        (verdict(None, passed=False), verdict(0.1), True, False, "no figure to compare; passed then, fails now"),
        (verdict(14, bound="all of each"), verdict(12, bound="all of each"), False, False, "better, without intervals"),
        (verdict(0.1), verdict(0.1), False, False, "the same"),
        (verdict(5, 0.2, 0.8, figure="c.count"), verdict(1, 0.0, 0.1, figure="c.count"), True, False, "beyond both"),
    ],
)
def test_worse_is_what_lies_outside_both_intervals(now, then, worse, doubtful, said):
    (change,) = compare({"verdicts": [now]}, {"verdicts": [then]}).values()
    assert (change.worse, change.doubtful) == (worse, doubtful)
    assert said in change.said


def test_against_another_run_names_what_got_worse(copied, judged):
    gates = json.loads((copied / "gates.json").read_text())
    gates["verdicts"][1] |= {"value": 0.999, "low": 0.99, "high": 1.0}
    write_json(copied / "gates.json", gates)
    html = page_of(copied, against=judged)
    top = words(html.partition("<nav")[0])
    assert "1 figure got worse" in top and "safety: collisions — 0.999 [0.99, 1] now, " in top
    value = json.loads((judged / "gates.json").read_text())["verdicts"][1]["value"]
    assert number(value) in words(html[html.index('id="gates"') :])
    assert "none got worse" in page_of(judged, against=judged)
    gates["suites"] = {
        f"elsewhere/{name.rpartition('/')[2]}": {**suite, "digest": "other"} for name, suite in gates["suites"].items()
    }
    write_json(copied / "gates.json", gates)
    assert "must not be compared" in page_of(copied, against=judged)
    (copied / "gates.json").unlink()
    assert "was not judged, so there is nothing to compare with" in page_of(judged, against=copied)


# ---- its parts -------------------------------------------------------------------------------------------------------


def test_small_parts():
    assert read_bucket("loss=0.3 burst=5 lead=0.3 g radio=lossy:0.3,4.6") == {
        "loss": "0.3", "burst": "5", "lead": "0.3 g", "radio": "lossy:0.3,4.6",
    }  # fmt: skip
    assert nice_axis(0.0, 1.0, "").ticks == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert nice_axis(-3.1, 0.4, "").ticks[0] <= -3.1 and nice_axis(5.0, 5.0, "").ticks[-1] > 5.0
    assert plain("x_mps.max is 3.5") == "x mps, largest is 3.5"
    assert number(float("nan")) == number(None) == "–" and number(-1234.5) == "−1,234"


def test_the_verb(tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    assert main(["report", str(run)]) == EXIT_OK
    assert capsys.readouterr().out.strip() == str(run / "report.html")
    assert main(["report", str(tmp_path / "none")]) == EXIT_USAGE
    assert "no run folder" in capsys.readouterr().err
    with pytest.raises(UsageError, match="replays is -1"):
        ReportConfig(replays=-1)


def test_a_loss_map_puts_every_bucket_in_its_field():
    """One bucket is missing, and no two have the same figure."""
    figures = {("0.06", "1"): 3, ("0.06", "5"): 4, ("0.9", "5"): 5}
    buckets = [
        {"bucket": f"loss={loss} burst={burst} gps_m=2", "n": 10, "collisions": count}
        for (loss, burst), count in figures.items()
    ]
    html = loss_maps(SuiteResult("loss_sweep", {"policies": {"mine": {"buckets": buckets}}}, []))
    texts = re.findall(r'<text x="([^"]*)" y="([^"]*)"[^>]*>([^<]*)<', html)
    at = {said: (float(x), float(y)) for x, y, said in texts}
    assert html.count("<svg") == 1 and "mine, GPS error 2 m" in html
    for (loss, burst), count in figures.items():
        x, y = at[f"{10 * count} %"]
        assert x == at[burst][0]
        assert abs(y - at[f"{100 * float(loss):g} %"][1]) < 10
    assert at["–"][0] == at["1"][0]


def test_buckets_are_pooled_by_each_axis(reported):
    html = words((reported / "report.html").read_text())
    shown = html.partition("What training never showed")[2].partition("What training never showed")[2]
    for policy in suite_of(reported, "generalisation").values():
        for said, label in (("peers 2", "peers=2 "), ("road curve", "road=curve "), ("convoy", "radio=convoy")):
            kept = [one for one in policy["buckets"] if label in f"{one['bucket']} "]
            count, n = sum(one["collisions"] for one in kept), sum(one["n"] for one in kept)
            assert n == (12 if said == "convoy" else 6)
            assert f"{said}: {count}/{n} [" in shown


# ---- in a browser ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    with chromium() as running:
        yield running


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_the_page_in_a_browser(browser, reported, width, dark):
    browser.problems.clear()
    browser.requests.clear()
    browser.open(reported / "report.html", width=width, dark=dark)
    assert browser.problems == []
    assert browser.requests == [(reported / "report.html").resolve().as_uri()]
    drawn = browser.evaluate("[...document.querySelectorAll('svg')].map(s => s.getBoundingClientRect().width)")
    assert len(drawn) > 12 and min(drawn) > 250
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    wide = browser.evaluate("[...document.querySelectorAll('.scroll')].some(b => b.scrollWidth > b.clientWidth)")
    assert wide  # tables that are wider than the page scroll inside of it
    outside = browser.evaluate(
        """[...document.querySelectorAll('svg text')].filter(t => {
            const a = t.getBoundingClientRect(), b = t.ownerSVGElement.getBoundingClientRect();
            return a.left < b.left - 2 || a.right > b.right + 2;
        }).map(t => t.textContent)"""
    )
    assert outside == []


def test_dark_and_light_are_both_readable(browser, reported):
    """Text of figures has the page's ink in either."""
    seen = []
    for dark in (False, True):
        browser.open(reported / "report.html", dark=dark)
        seen.append(browser.evaluate("getComputedStyle(document.querySelector('svg text:not(.soft)')).fill"))
    assert seen == ["rgb(28, 36, 48)", "rgb(232, 236, 241)"]
