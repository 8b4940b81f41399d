"""The closed loop agrees for what is played as stated, and does not for anything else."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import roadsense
from roadsense.cli import main
from roadsense.errors import EXIT_ERROR, EXIT_GATE_FAILED, EXIT_OK, EXIT_USAGE
from roadsense.espnow.play import play
from roadsense.espnow.profiles import read_params, shipped_names
from roadsense.espnow.verification import verify as module
from roadsense.espnow.verification.verify import table, verify
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


@pytest.mark.parametrize(
    "sections",
    [
        {"latency": {"scale_ms": 0.0, "tail_probability": 0.1}},
        {"latency": {"scale_ms": 0.0, "tail_probability": 0.1, "tail_ms": (10.0, 10.0)}},
        {"loss": {"probability": (0.0, 0.0, 0.0, 0.0)}, "placement": {"door_probability": 0.002}},
        {"loss": {"probability": (5e-5, 5e-5, 5e-5, 5e-5)}},
        {"beacon": {"interval_ms": 250.0}},
        {"beacon": {"interval_ms": 50.0, "drift_ppm_sd": 0.0}},
        {"phy": None},
        {"loss": {"from_m": (0.0,), "probability": (0.3,), "mean_burst": (40.0,), "range_m": 12.0}},
        {"gps": {"sigma_m": 0.0}, "relays": {"max_hops": 1, "cone_deg": 170.0}},
    ],
)
def test_odd_parameters_are_played_as_stated_too(sections):
    verdict = verify(changed("convoy", **sections), (2, 4), 8000)
    assert verdict.judged
    assert not verdict.outside, table(verdict)


def test_what_is_stated_to_be_rare_and_is_not_is_found(monkeypatch):
    def play_others(params, *args, **kwargs):
        return play(changed("convoy", relays=params.relays), *args, **kwargs)

    monkeypatch.setattr(module, "play", play_others)
    stated = changed("convoy", loss={"probability": (5e-5, 5e-5, 5e-5, 5e-5)})
    outside = [one.name for one in verify(stated, (2,), 4000).outside]
    assert "loss from 0 m" in outside


def test_a_radio_that_never_gets_through_is_judged_too():
    verdict = verify(read_params("off"), car_counts=(2, 3), beacons=2000)
    assert verdict.judged and not verdict.outside


def test_physics_and_lies_are_left_out():
    params = with_sections("convoy", propagation={"sensitivity_dbm": -60.0}, alarms={})
    assert not verify(params, car_counts=(2,), beacons=5000).outside


def test_the_command_prints_all_figures_and_writes_them(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(module, "verify", lambda params, **kwargs: verify(params, (2, 3), 20_000))
    out = tmp_path / "figures.json"
    assert main(["calibrate", "--verify", "convoy", "--json", str(out)]) == EXIT_OK
    printed = capsys.readouterr().out.splitlines()
    document = json.loads(out.read_text())
    assert len(printed) == len(document["figures"]) + 3
    assert document["params"] == "convoy" and document["agrees"] and document["judged"] > 40


def test_the_command_fails_the_gate_when_one_figure_is_off(monkeypatch, capsys):
    def play_others(params, *args, **kwargs):
        return play(changed("convoy", relays=params.relays, latency={"shift_ms": 0.9}), *args, **kwargs)

    monkeypatch.setattr(module, "play", play_others)
    monkeypatch.setattr(module, "verify", lambda params, **kwargs: verify(params, (2,), 20_000))
    assert main(["calibrate", "--verify=convoy"]) == EXIT_GATE_FAILED
    assert "OUTSIDE" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--verify"], EXIT_USAGE, "calibrate: "),
        (["--verify", "convoi"], EXIT_USAGE, "did you mean 'convoy'"),
        (["--verify", "nowhere/field.json"], EXIT_ERROR, "nowhere/field.json: cannot be read"),
        (["--verify", "convoy", "--jsn", "x"], EXIT_USAGE, "did you mean '--json'"),
        (["--verify", "convoy", "--json", "/dev/null/figures.json"], EXIT_ERROR, "cannot be written"),
    ],
)
def test_what_cannot_be_verified_is_one_sentence(arguments, code, said, capsys):
    assert main(["calibrate", *arguments]) == code
    error = capsys.readouterr().err
    assert said in error and len(error.splitlines()) == 1


@pytest.mark.proof
@pytest.mark.parametrize("name", shipped_names())
def test_all_shipped_profiles_are_played_as_stated(name, capsys):
    assert main(["calibrate", "--verify", name]) == EXIT_OK, capsys.readouterr().out


LOSES = "            lost = lost or frame < turn.collided\n"
ADVANCES = "lost = is_lost(link, table, fate, sent_s, distance_m, cars[sender], cars[receiver])"
BROKEN = {
    "a relay draws its losses again": (
        "kernels.py", LOSES, "            lost = (lost if own else chance < link.loss) or frame < turn.collided\n",
        "relayed frame lost after a loss",
    ),
    "a relay draws until nothing is lost": (
        "kernels.py", LOSES, "            lost = (lost and own) or frame < turn.collided\n", "loss of relayed frames",
    ),
    "bursts are of the sender, not of the link": (
        "kernels.py", "copy, link = links[receiver, source], links[receiver, sender]",
        "copy, link = links[receiver, source], links[0, sender]", "lost on two links at once",
    ),
    "the cap of a burst is below its loss": (
        "channel.py", "    return link.bad\n", "    return link.bad and (draw * 1e6) % 1.0 < 0.8\n", "loss from",
    ),
    "bursts advance by beacon, not in time": (
        "channel.py", "    elapsed_s = sent_s - link.drawn_s\n",
        "    elapsed_s = 0.1 if sent_s > link.drawn_s else 0.0\n", "relayed frame lost after a loss",
    ),
    "a relay repeats itself": (
        "relay.py", "        link.considered_generation = link.newest_generation\n",
        "        link.considered_generation = link.newest_generation - 1\n", "relayed more than once",
    ),
    "what collides is heard": ("kernels.py", LOSES, "", "collided and yet heard"),
    "nobody waits": (
        "medium.py", "    if ticks[first].tick_s >= busy_until_s:\n", "    if number > 0:\n", "on the air at once",
    ),
    "nothing is relayed": (
        "kernels.py", "    elif table.relay_hops > 0:\n", "    elif table.relay_hops > 9:\n", "nothing is relayed",
    ),
    "relays look behind too": (
        "relay.py", " and is_ahead(table, cars[relayer], message):", ":", "relayed from behind",
    ),
    "relays take no time": (
        "kernels.py", " + latency_s(table, quantiles, body, chance, place)",
        " + own * latency_s(table, quantiles, body, chance, place)",
        "latency of relayed frames",
    ),
    "the step of the table is never looked up again": (
        "channel.py", "    if here != link.loss_step:\n", "    if link.loss_step < 0:\n", "loss while cars part",
    ),
    "there is no end of range": (
        "channel.py", "here + 1 < table.loss_from_m.shape[0]", "here + 1 < 4", "heard from out of range",
    ),
    "only the receiver's board counts": (
        "channel.py", "+ sender.placement + receiver.placement", "+ math.sqrt(2.0) * receiver.placement",
        "loss with a badly mounted",
    ),
    "all cars send at once": (
        "kernels.py", "        car.beacon_phase_s = beacon * table.beacon_interval_s\n",
        "        car.beacon_phase_s = 0.5 * table.beacon_interval_s\n", "phases of two cars",
    ),
}  # fmt: skip


@pytest.mark.proof
@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_emulator_fails(what, tmp_path):
    file, right, wrong, figure = BROKEN[what]
    copy = shutil.copytree(
        Path(roadsense.__file__).parent, tmp_path / "roadsense", ignore=shutil.ignore_patterns("__pycache__")
    )
    data = copy / "_data"
    for folder in ("params", "scenarios"):
        if not (data / folder).exists():
            shutil.copytree(Path(roadsense.__file__).parents[1] / folder, tmp_path / folder)
    source = (copy / "espnow" / file).read_text()
    assert source.count(right) == 1
    (copy / "espnow" / file).write_text(source.replace(right, wrong))
    done = subprocess.run(
        [sys.executable, "-m", "roadsense", "calibrate", "--verify", "convoy"],
        env={**os.environ, "PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "cache")},
        cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == EXIT_GATE_FAILED, done.stderr
    assert any(figure in line for line in done.stdout.splitlines() if "OUTSIDE" in line), done.stdout
