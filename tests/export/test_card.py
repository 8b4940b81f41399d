"""A card says what the run's files say, in their numbers; what they lack is said to be missing, never to be good."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from roadsense.errors import RoadsenseError
from roadsense.evaluation.promotion import GATES_NAME
from roadsense.export.c import export_c
from roadsense.export.card.page import renew_card, write_card, write_metadata
from roadsense.export.onnx import export_onnx
from roadsense.export.quantised import export_fp16
from roadsense.files import write_json
from roadsense.manifest import file_digest
from roadsense.policies.runtime import Policy
from roadsense.policies.signature import Signature, Widths
from roadsense.runs import METADATA, RunFolder

from ..policies.networks import random_actor, tensors_of, write_run

DATASET, SUITE = "d" * 64, "5" * 64
LOSSY = "lossy:0.37,4.1"
WHY_NO_INT8 = "its actions differ from the network's by 0.0613, at most 0.05 is allowed"


def proportion(count, n, low, high):
    return {"count": count, "n": n, "rate": count / n if n else None, "low": low, "high": high}


def summary(k=0, brakes=1.37):
    """Figures of a policy, other ones for every k."""
    return {
        "episodes": 1111 + k, "num_failed": 0, "invalid_episodes": 0,
        "collisions_in_hazards": proportion(3 + k, 1013, 0.00061234, 0.0123456),
        "collisions": proportion(4 + k, 1117, 0.00072345, 0.0234567),
        "impact_speed_mps": {"n": 3, "p50": 1.0, "max": 7.77 + k},
        "false_brakes_per_calm_km": {"n": 1109, "value": brakes + k, "low": 0.4567, "high": 9.876},
        "reaction_from_onset_s": {"n": 997, "p50": 0.30000000000000004, "p95": 0.7 + k},
        "never_reacted": proportion(5 + k, 1009, 0.0016161, 0.0115115),
    }  # fmt: skip


def played(weights, by_radio, buckets=()):
    """A judged policy in an evaluation."""
    overall = next(iter(by_radio.values()))
    confirmed = {"engine": "sumo", "episodes": list(range(17)), "differing": [3, 5]}
    return {**overall, "weights_digest": weights, "radios": by_radio, "buckets": list(buckets), "confirmed": confirmed}


def suite(weights, by_radio, others=(), buckets=()):
    return {
        "suite": {"name": "any", "version": 1, "digest": SUITE}, "episodes": 6789,
        "policies": {"mine": played(weights, by_radio, buckets), **dict(others)},
    }  # fmt: skip


def gate(name, passed=True, **facts):
    return {"group": "safety", "name": name, "passed": passed, "figure": "collisions.count", "value": 0.0, "n": 40,
            "bound": "at most 0", **facts}  # fmt: skip


FAILED = [
    gate("no contact", False, value=3.0, why="3 is above 0"),
    gate("calm roads", False, figure="false_brakes_per_calm_km.value", value=0.8765, low=0.6543, high=1.234, n=1919,
         bound="at most 0.123", why="0.876 is above 0.123"),
    gate("enough", False, n=7, why="rests on 7 episodes, at least 24 are needed"),
]  # fmt: skip


def verdict(verdicts, suites=("matrix", "radio_worth", "generalisation")):
    return {
        "gates": {"name": "odd", "version": 9, "digest": "9" * 64, "config": {"episodes_per_bucket": None}},
        "accepted": all(one["passed"] for one in verdicts), "suites": {name: {"digest": SUITE} for name in suites},
        "environment": {"git_commit": "beefbeef", "git_dirty": True, "versions": {"roadsense": "0.9.1"}},
        "verdicts": verdicts,
    }  # fmt: skip


def parity_of(run, name, file, **facts):
    return name, {
        "available": True, "file": file, "digest": file_digest(run / file), "passed": True, "observations": 23456,
        "largest": 0.000345678, "bound": 0.00111, "brake_agreement": 0.987654321, "least_agreement": 0.0, **facts,
    }  # fmt: skip


def closed_loop():
    hits = {"format": 6, "network": 4, "n": 1213, "low": -0.00141, "high": 0.00252}
    brakes = {"format": 0.6161, "network": 0.7272, "n": 1213, "low": -0.1717, "high": 0.2828}
    radios = {LOSSY: {"collisions_in_hazards": hits, "false_brakes_per_calm_km": brakes}}
    gates = {"asked": 15, "passed": 11, "passed_by_network": 12}
    return {"passed": True, "suite": {"name": "matrix"}, "episodes": 2626, "radios": radios, "gates": gates}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run with everything in it; tests copy it."""
    run = tmp_path_factory.mktemp("whole") / "odd-run"
    weights = write_run(run, random_actor(Widths(phi=(6, 5), head=(4,)))).weights_digest
    export_onnx(run)
    export_fp16(run)
    export_c(run)
    write_json(run / "training.json", {
        "finished": True, "weights_digest": weights, "dataset_digest": DATASET, "timesteps": 123456,
        "config": {"seed": 4711, "algorithm": "dagger", "emulator_params": None, "further_radios": [LOSSY]},
        "best": {"timesteps": 98765},
        "made_with": [{"from_step": 0, "git_commit": "c0ffee", "git_dirty": False, "versions": {"roadsense": "0.9.0"}}],
    })  # fmt: skip
    scenarios = {"train": [("up", 2), ("up", 5), ("down", 6)], "val": [("up", 1)], "eval": [("up", 3), ("hill", 4)]}
    write_json(run / "manifest.json", {
        "dataset_id": "odd-set", "seed": 99, "content_digest": DATASET, "emulator_params_hash": "e" * 64,
        "base_scenarios": ["up", "down", "hill"], "ranges": {"peer_count": [1, 6], "speed_mps": [7.7, 23.4]},
        "splits": {name: [{"base": base, "peer_count": peers} for base, peers in of] for name, of in scenarios.items()},
    })  # fmt: skip
    write_json(run / "metrics.json", {
        "run_id": "odd-run", "policy": "trained",
        "evaluation": {
            "episodes": 2345, "split": "eval", "dataset_digest": DATASET, "radios": {"convoy": "1"},
            "config": {"radio": None},
            "policies": {"trained": played(weights, {"convoy": summary(brakes=2.22)}), "always_brake": summary(30),
                         "none": summary(40), "v2v_tuned": summary(50), "oracle": summary(60)},
        },
    })  # fmt: skip
    both = {"convoy": summary(1), LOSSY: summary(2)}
    write_json(run / "suites" / "matrix.json", suite(weights, both, {"none": {"radios": both}}.items()))
    write_json(run / "suites" / "radio_worth.json", suite(weights, {"off": summary(7), "spoofed": summary(8)}))
    buckets = [{"bucket": f"peers={n} road=up radio=convoy", "n": 50, "collisions": n} for n in (5, 6, 7, 9)]
    write_json(run / "suites" / "generalisation.json", suite(weights, {"convoy": summary(9)}, buckets=buckets))
    write_json(run / "gates.json", verdict([*FAILED, *(gate(f"fine {k}") for k in range(8))]))
    write_json(run / "parity.json", {"schema_version": 2, "formats": dict([
        parity_of(run, "safetensors", "policy.safetensors"),
        parity_of(run, "onnx", "model.onnx", closed_loop=closed_loop()),
        parity_of(run, "fp16", "model.fp16.onnx", closed_loop={"available": False, "why": "the suite was not there"}),
        ("int8", {"available": True, "file": "model.int8.onnx", "digest": "0", "passed": False, "why": WHY_NO_INT8}),
        parity_of(run, "c", "model.c"),
        ("tensorrt", {"available": False, "why": "this machine has no NVIDIA driver"}),
    ])})  # fmt: skip
    timed = {
        name: {"measured": True, "digest": file_digest(run / file),
               "alone_by_peers": {"5": {"p50": 12.34 + k, "p99": 56.78 + k}}}
        for k, (name, file) in enumerate((("onnx", "model.onnx"), ("c", "model.c")))
    }  # fmt: skip
    write_json(run / "latency.json", {
        "decisions": 3210, "device": "Odd CPU", "core": 0, "threads": 1, "environment": {"platform": "Odd-OS-5"},
        "formats": {**timed, "fp16": {**timed["c"]}},
    })  # fmt: skip
    return run


@pytest.fixture
def run(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "odd-run")
    return tmp_path / "odd-run"


@pytest.fixture
def bare(tmp_path):
    """A run with nothing but its policy."""
    write_run(tmp_path / "bare", random_actor(Widths(phi=(6, 5), head=(4,))))
    return tmp_path / "bare"


def page_of(run):
    return write_card(run).read_text(encoding="utf-8")


def words(page):
    return re.sub(r"\s+", " ", page)


def part(page, title):
    """What stands below a heading."""
    return re.split(r"^#+ ", page.split(f"# {title}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def rows(page, title):
    """Cells of the tables of a part, by the first one; of several radios the last."""
    lines = [line for line in part(page, title).splitlines() if line.startswith("| ")]
    return {
        cells[0]: cells[1:] for cells in ([cell.strip() for cell in line.strip("|").split(" | ")] for line in lines)
    }


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def changed(run, name, change):
    document = json.loads((run / name).read_text())
    change(document)
    write_json(run / name, document)


# ---- what it says ----------------------------------------------------------------------------------------------------


def test_a_rejected_run_says_so_first_with_every_failed_gate(run):
    top = words(page_of(run).split("\n## ", 1)[0])
    assert top.startswith("# Policy `odd-run` **REJECTED: 8 of 11 gates passed, 3 failed** (gates `odd`, version 9).")
    assert "**safety: no contact**: 3 (n 40), where at most 0 was asked." in top
    assert "**safety: calm roads**: .876 [.654, 1.23] (n 1,919), where at most .123 was asked." in top
    assert "**safety: enough**: 0 (n 7), where at most 0 was asked: rests on 7 episodes, at least 24 are needed." in top
    assert top.count("**safety: ") == 3
    assert "not those that this version ships" in top


def test_an_accepted_run_is_accepted_in_words_and_rejected_where_either_record_says_no(run):
    write_json(run / "gates.json", verdict([gate("fine"), gate("too")]))
    assert "**accepted: 2 of 2 gates passed**" in page_of(run)
    changed(run, "gates.json", lambda document: document.update(accepted=False))
    assert "**REJECTED: " in page_of(run) and "accepted:" not in page_of(run)
    write_json(run / "gates.json", {**verdict(FAILED), "accepted": True})
    assert (
        "**REJECTED: " in page_of(run) and json.loads(write_metadata(run).read_text())["gates"]["verdict"] == "rejected"
    )


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda run: changed(run, "suites/matrix.json", lambda it: it["policies"]["mine"].update(weights_digest="0")),
         "suites/matrix.json was played by other weights"),
        (lambda run: changed(run, "suites/matrix.json", lambda it: it["suite"].update(digest="0")),
         "suites/matrix.json is not what the verdict rests on"),
        (lambda run: (run / "suites" / "matrix.json").unlink(), "suites/matrix.json is not in the run"),
        (lambda run: write_json(run / "gates.json", verdict([gate("fine")], suites=())), "rests on no suite"),
    ],
)  # fmt: skip
def test_a_verdict_that_may_be_of_other_weights_accepts_nothing(run, change, why):
    write_json(run / "gates.json", verdict([gate("fine"), gate("too")]))
    assert "**accepted" in page_of(run)
    change(run)
    top = words(page_of(run).split("\n## ", 1)[0])
    assert "**not judged**" in top and why in top and "**accepted" not in top


def test_figures_are_those_of_the_files(run):
    page = page_of(run)
    own = rows(page, "On `eval/`, which neither trained nor chose it")
    assert own["**this policy**"] == [
        "3 of 1,013 [.0612, 1.23 %]", "7.77", "2.22 [.457, 9.88] (n 1,109)", ".3 / .7 (n 997)",
        "5 of 1,009 [.162, 1.15 %]",
    ]  # fmt: skip
    assert own["`v2v_tuned`"][:3] == ["53 of 1,013 [.0612, 1.23 %]", "57.8", "51.4 [.457, 9.88] (n 1,109)"]
    assert list(own) == ["Policy", "**this policy**", "`v2v_tuned`", "`oracle`", "`none`"]
    assert "2,345 episodes of `eval/` of that dataset, radio `convoy`. 17 were played again on SUMO; 2 came" in words(
        page
    )
    matrix = part(page, "On the suite `matrix`")
    assert "6,789 episodes" in matrix and "Radio `convoy`:" in matrix and f"Radio `{LOSSY}`:" in matrix
    assert re.findall(r"\| \*\*this policy\*\* +\| (\d of 1,013)", matrix) == ["4 of 1,013", "5 of 1,013"]
    every = [line for line in part(page, "On every suite").splitlines() if "`radio_worth`" in line]
    assert len(every) == 2 and "11 of 1,117 [.0723, 2.35 %]" in every[0] and "9.37 [.457, 9.88] (n 1,109)" in every[1]


def test_episodes_that_it_broke_off_or_that_were_invalid_are_told(run):
    assert "broke off" not in page_of(run)
    changed(run, "suites/matrix.json", lambda it: it["policies"]["mine"].update(num_failed=2, invalid_episodes=1))
    told = words(part(page_of(run), "On the suite `matrix`"))
    assert "**It broke off 2 episodes**, taken as collisions; 1 episode had other cars touch" in told


def test_what_it_was_trained_on_is_told(run):
    page = page_of(run)
    told = rows(page, "What it was trained on")
    assert told["seed"] == ["4711"] and told["steps"] == ["123,456"] and told["further radios"] == [f"`{LOSSY}`"]
    assert told["radio"] == ["the dataset's (`convoy`)"] and "98,765 steps" in told["weights kept"][0]
    assert told["Split"] == ["Scenarios", "`up`", "`down`", "`hill`", "Peers"]
    assert told["`train/`"] == ["3", "2", "1", "0", "2 to 6"] and told["`eval/`"] == ["2", "1", "0", "1", "3 to 4"]
    text = words(page)
    assert f"Dataset `odd-set`, SHA-256 `{DATASET}`" in text and "`speed_mps` 7.7 to 23.4" in text
    assert "training never drove on `hill`." in text


def test_limits_are_those_of_the_training_and_of_the_suites(run):
    text = words(part(page_of(run), "Limits"))
    assert f"hold for `convoy` and `{LOSSY}`" in text and "(here 4711)" in text and "7.7 to 23.4 m/s" in text
    assert "training had at most 6. With more (suite `generalisation`) it collided in 16 of 100 [9.43, 24.7 %]" in text
    assert "(radio `off`, suite `radio_worth`), 11 of 1,117" in text
    assert "(radio `spoofed`, suite `radio_worth`), 12 of 1,117" in text


def test_the_signature_is_told(run):
    page = page_of(run)
    reads = part(page, "What it reads")
    assert re.search(r"`relative_speed` +\| peer's speed minus own +\| m/s +\| 20 +\| −3 +\| 3 ", reads)
    assert Policy.load(run).signature.layout_hash in reads
    assert "from 0 to 1" in page and "dead band of .05" in page and "8 m/s² times" in words(page)
    assert "**Without a decision the action is 0: ask for nothing" in words(page)


def test_a_policy_that_drives_alone_falls_back_on_full_braking(tmp_path):
    actor = random_actor(Widths(phi=(6,), head=()))
    write_run(tmp_path, actor)
    write_json(tmp_path / "signature.json", Signature.of(tensors_of(actor), actor.widths, "acceleration", 2).document())
    text = words(page_of(tmp_path))
    assert "**Without a decision the action is −1: brake fully." in text and "dead band of" not in text
    assert "from −1 to 1" in text and "2 newest messages" in text and "assists" not in text


# ---- formats ---------------------------------------------------------------------------------------------------------


def test_formats_are_told_with_their_proof_and_their_speed(run):
    page = page_of(run)
    compared = [line for line in part(page, "Formats").split("Played on")[0].splitlines() if line.startswith("| `")]
    lines = {cells[1]: cells[2:-1] for cells in ([cell.strip() for cell in line.split("|")] for line in compared)}
    digest = file_digest(run / "model.onnx")[:12]
    assert lines["`onnx`"] == [
        "`model.onnx`", f"`{digest}`", ".000346", ".00111", "23,456", "98.7654 %", "yes", "12.3 / 56.8",
    ]  # fmt: skip
    assert lines["`c`"][-2:] == ["not played", "13.3 / 57.8"]
    assert lines["`fp16`"][-2:] == ["not played", "not measured"]  # what was timed is another file
    assert list(lines) == ["`safetensors`", "`onnx`", "`fp16`", "`c`"]
    played = next(line for line in page.splitlines() if line.startswith(f"| `onnx` | `{LOSSY}`"))
    assert [cell.strip() for cell in played.split("|")[3:-1]] == [
        "6 / 4 of 1,213", "[−.141, .252 %]", ".616 / .727", "[−.172, .283]", "11 / 12 of 15",
    ]  # fmt: skip
    text = words(page)
    assert (
        "the suite was not there" in text and "3,210 decisions each, 1 thread on one core of Odd CPU (Odd-OS-5)" in text
    )


def test_a_format_that_is_not_there_says_why_and_is_not_loaded(run):
    page = page_of(run)
    missing = words(part(page, "Formats").split("Not to be loaded")[1])
    assert f"`int8`: refused: {WHY_NO_INT8}." in missing
    assert "`tensorrt`: not exported: this machine has no NVIDIA driver." in missing
    assert "model.int8" not in part(page, "How to load it") and "tensorrt" not in part(page, "How to load it")
    found = json.loads(write_metadata(run).read_text())["formats"]
    assert found["int8"] == {"passed": False, "why": f"refused: {WHY_NO_INT8}"} and found["tensorrt"]["passed"] is None
    assert found["onnx"]["passed"] is True and found["onnx"]["digest"] == file_digest(run / "model.onnx")


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda run: (run / "model.onnx").write_bytes(b"other"), "its file is not the one that was compared"),
        (lambda run: (run / "model.onnx").unlink(), "its file is not in the run"),
        (lambda run: changed(run, "parity.json", lambda it: it["formats"].pop("onnx")),
         "not compared with the network"),
        (lambda run: changed(run, "parity.json", lambda it: it["formats"]["safetensors"].update(digest="0")),
         "compared with other weights"),
    ],
)  # fmt: skip
def test_a_file_that_was_not_compared_is_not_loaded(run, spoil, why):
    assert 'Policy.load("model.onnx")' in page_of(run)
    spoil(run)
    page = page_of(run)
    assert f"`onnx`: {why}." in page
    assert '"model.onnx"' not in part(page, "How to load it")
    assert json.loads(write_metadata(run).read_text())["formats"]["onnx"] == {"passed": None, "why": why}


def test_an_engine_is_told_with_its_place_and_that_a_gpu_decides(run):
    plan = run / "engines" / "sm90-10.9" / "model.plan"
    plan.parent.mkdir(parents=True)
    plan.write_bytes(b"plan")
    facts = dict([parity_of(run, "tensorrt", "engines/sm90-10.9/model.plan")])
    changed(run, "parity.json", lambda it: it["formats"].update(facts))
    page = page_of(run)
    assert 'Policy.load("engines/sm90-10.9/model.plan")  # tensorrt: on the GPU it was built on' in page
    assert "A GPU decides for TensorRT" in page and "no NVIDIA driver" not in page


# ---- loading ---------------------------------------------------------------------------------------------------------


def executed(page, folder, monkeypatch):
    """What every block of Python leaves behind, one after another."""
    monkeypatch.chdir(folder)
    left = {}
    found = []
    for block in blocks(page, "python"):
        exec(block, left)
        found.append(dict(left))
    return found


@pytest.mark.usefixtures("require_compilers")
def test_the_loading_lines_run_and_decide_as_the_policy(run, monkeypatch):
    page = page_of(run)
    observation, loaded, decided, plain = executed(page, run, monkeypatch)
    wanted = Policy.load(run).act(observation["observation"])
    np.testing.assert_allclose(decided["action"], wanted, atol=1e-5)
    np.testing.assert_allclose(plain["action"], wanted[None], atol=1e-5)
    lines = re.findall(r'^policy = (Policy\.load\("(.*)"\)).*$', page, re.MULTILINE)
    assert [file for _, file in lines] == [".", "model.onnx", "model.fp16.onnx", "model.c"]
    for line, file in lines:
        action = eval(line, {"Policy": loaded["Policy"]}).act(observation["observation"])
        np.testing.assert_allclose(action, wanted, atol=1e-2, err_msg=file)


def test_what_is_no_number_falls_back_in_the_examples(run, monkeypatch):
    page = page_of(run).replace("np.zeros((4,), np.float32)", "np.full((4,), np.nan, np.float32)")
    *_, decided, plain = executed(page, run, monkeypatch)
    assert decided["action"] == [0.0] and plain["action"] == [[0.0]]


def test_a_policy_with_a_memory_is_begun_and_carries_it(tmp_path, monkeypatch):
    write_run(tmp_path, random_actor(Widths(phi=(6,), lstm=3, head=(4,))))
    export_onnx(tmp_path)
    formats = dict(
        [parity_of(tmp_path, "safetensors", "policy.safetensors"), parity_of(tmp_path, "onnx", "model.onnx")]
    )
    write_json(tmp_path / "parity.json", {"formats": formats})
    page = page_of(tmp_path)
    assert "policy.begin()" in blocks(page, "python")[2] and "empty memory" in page
    *_, decided, plain = executed(page, tmp_path, monkeypatch)
    np.testing.assert_allclose(plain["action"][0], decided["action"], atol=1e-5)
    assert [array.shape for array in plain["memory"]] == [(1, 3), (1, 3)]


@pytest.mark.usefixtures("require_compilers")
def test_the_c_example_compiles_strictly(run, tmp_path):
    (source,) = blocks(page_of(run), "c")
    (tmp_path / "use.c").write_text(source)
    command = ["gcc", "-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", f"-I{run}", "-c", "-o", "use.o", "use.c"]
    subprocess.run(command, cwd=tmp_path, check=True)


# ---- what is missing or damaged --------------------------------------------------------------------------------------


def test_a_policy_alone_says_what_is_missing_and_nothing_passed(bare):
    page = page_of(bare)
    text = words(page)
    assert "**not judged**" in text.split("## ")[0]
    assert text.count("Not evaluated") == 3 and "not evaluated" in part(page, "Limits")
    assert "`safetensors`: not compared with the network." in page and "`onnx`: not exported." in page
    assert "no training.json" in text and "no manifest.json" in text
    assert not re.search(r"accepted|REJECTED|\b0 of|\byes\b", text)
    assert re.findall(r'Policy\.load\("(.*)"\)', page) == ["."] and "onnxruntime" not in page and "```c" not in page
    found = json.loads(write_metadata(bare).read_text())
    assert found["gates"]["verdict"] == "not judged" and found["gates"]["gates"] is None
    assert found["training"] is None and found["dataset"] is None
    assert all(one["passed"] is None for one in found["formats"].values())


ABSENT = {
    "gates.json": "**not judged**",
    "metrics.json": "Not evaluated (no metrics.json).",
    "suites/matrix.json": "Not evaluated (no suites/matrix.json).",
    "training.json": "not recorded in the run (no training.json)",
    "manifest.json": "how many it saw in training is not recorded",
    "latency.json": "was not measured (no latency.json)",
    "suites/generalisation.json": "training had at most 6; with more it was not evaluated",
    "suites/radio_worth.json": "(radio `off`), it was not evaluated",
}


@pytest.mark.parametrize("name", list(ABSENT))
def test_each_file_may_be_missing(run, name):
    assert ABSENT[name] not in words(page_of(run))
    (run / name).unlink()
    assert ABSENT[name] in words(page_of(run))
    write_metadata(run)


@pytest.mark.parametrize("name", ["training.json", "metrics.json", "suites/matrix.json"])
def test_what_is_of_other_weights_is_left_out_and_named(run, name):
    write_run(run, random_actor(Widths(phi=(6, 5), head=(4,)), seed=1))
    page = page_of(run)
    assert f"`{name}`" in words(page.split("\n## ", 1)[0])
    assert "1,013" not in page and "4711" not in page and "`c0ffee`" not in page


def test_a_manifest_of_another_dataset_is_left_out(run):
    changed(run, "manifest.json", lambda document: document.update(content_digest="f" * 64))
    page = page_of(run)
    assert "manifest.json is of other weights or another dataset" in words(page) and "odd-set" not in page


@pytest.mark.parametrize("damage", ["{", "[1]", '{"a": 1}'])
@pytest.mark.parametrize(
    "name", ["training.json", "metrics.json", "gates.json", "parity.json", "suites/matrix.json", "signature.json"]
)
@pytest.mark.parametrize("write", [write_card, write_metadata])
def test_damaged_json_is_one_sentence_that_names_the_file(run, name, damage, write):
    if damage == '{"a": 1}' and name in ("training.json", "parity.json"):
        weights = Policy.load(run).signature.weights_digest
        damage = json.dumps({"weights_digest": weights, "config": 3} if name == "training.json" else {"formats": 3})
    (run / name).write_text(damage)
    with pytest.raises(RoadsenseError, match=re.escape(name)) as caught:
        write(run)
    assert "\n" not in str(caught.value)
    assert not (run / "CARD.md").exists() and not (run / "metadata.json").exists()


def test_text_of_a_file_stays_text(run):
    changed(run, "gates.json", lambda it: it["verdicts"][0].update(why="a | b\n# c <b> *d* `e` [f](g)"))
    page = page_of(run)
    assert "a \\| b # c \\<b> \\*d\\* \\`e\\` [f] (g)" in words(page) and "\n# c" not in page


# ---- bytes -----------------------------------------------------------------------------------------------------------


def test_the_same_files_give_the_same_bytes_in_another_process_and_place(run, tmp_path):
    own = write_card(run).read_bytes(), write_metadata(run).read_bytes()
    shutil.copytree(run, tmp_path / "elsewhere")
    program = "import sys, pathlib; from roadsense.export.card.page import *; run = pathlib.Path(sys.argv[1]);" \
              " write_card(run); write_metadata(run)"  # fmt: skip
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "elsewhere")], check=True)
    assert own == tuple((tmp_path / "elsewhere" / name).read_bytes() for name in ("CARD.md", "metadata.json"))


def test_the_metadata_names_where_it_comes_from(run):
    found = json.loads(write_metadata(run).read_text())
    signature = Policy.load(run).signature
    assert list(found) == sorted(found) and found["schema_version"] == 1 and found["name"] == "odd-run"
    assert found["policy"]["weights_digest"] == signature.weights_digest
    assert found["policy"]["layout_hash"] == signature.layout_hash and found["policy"]["widths"]["phi"] == [6, 5]
    assert (found["training"]["seed"], found["training"]["algorithm"]) == (4711, "dagger")
    assert found["training"]["timesteps"] == 123456 and found["training"]["further_radios"] == [LOSSY]
    assert found["dataset"]["id"] == "odd-set" and found["dataset"]["digest"] == DATASET
    assert found["dataset"]["base_scenarios"] == ["up", "down", "hill"] and found["dataset"]["radio"] == "convoy"
    assert found["dataset"]["emulator_params_hash"] == "e" * 64
    assert found["made_with"]["trained"][0]["git_commit"] == "c0ffee"
    assert found["made_with"]["judged"][0] == {
        "git_commit": "beefbeef", "git_dirty": True, "versions": {"roadsense": "0.9.1"}
    }  # fmt: skip
    assert found["gates"]["verdict"] == "rejected" and found["gates"]["gates"] == 11
    assert found["gates"]["failed"] == ["safety: no contact", "safety: calm roads", "safety: enough"]
    assert (found["gates"]["name"], found["gates"]["version"], found["gates"]["digest"]) == ("odd", 9, "9" * 64)


def test_a_card_written_anew_tells_the_verdict_and_keeps_the_checksums_true(run):
    folder, gates = RunFolder(run), (run / GATES_NAME).read_bytes()
    (run / GATES_NAME).unlink()
    write_card(run)
    write_metadata(run)
    assert "not judged" in page_of(run)[:400]
    (run / GATES_NAME).write_bytes(gates)
    folder.write_checksums()
    renew_card(run)
    folder.verify()
    assert "REJECTED" in page_of(run)[:400]
    assert json.loads((run / METADATA).read_text())["gates"]["verdict"] == "rejected"
    assert not (run / ".lock").exists()


def test_a_card_written_anew_signs_nothing_that_was_changed(run):
    RunFolder(run).write_checksums()
    (run / "metrics.json").write_bytes((run / "metrics.json").read_bytes() + b" ")
    signed = (run / "checksums.sha256").read_bytes()
    renew_card(run)
    assert (run / "checksums.sha256").read_bytes() == signed
