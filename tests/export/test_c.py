"""The exported C decides as the runtime does, to the bit, under the sanitizers too; and refuses what is no number."""

import contextlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from roadsense.convoy.observation import NUM_EGO, NUM_PEER, Observation, layout_hash
from roadsense.convoy.player import Player
from roadsense.errors import InputMismatchError, RoadsenseError, UsageError
from roadsense.evaluation.rollout import play, record_observations
from roadsense.export.c import c_report, export_c
from roadsense.export.formats import FORMATS, measure
from roadsense.export.network import load_network
from roadsense.export.onnx import export_onnx
from roadsense.export.parity import compare
from roadsense.policies import compiled
from roadsense.policies.c_source import render
from roadsense.policies.compiled import CompiledPolicy
from roadsense.policies.runtime import Policy
from roadsense.policies.signature import Widths, read_signature

from ..policies.networks import random_actor, random_observations, write_run

pytestmark = pytest.mark.usefixtures("require_compilers")

HERE = Path(__file__).parent
SANITIZED = [
    "gcc", "-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O1", "-g",
    "-fsanitize=address,undefined", "-fno-sanitize-recover=all",
]  # fmt: skip
CAPACITY = 16


@pytest.fixture(
    scope="module", params=[Widths(), Widths(phi=(7,), head=()), Widths(phi=(5, 40, 9), head=(3, 11))], ids=str
)
def run(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    write_run(folder, random_actor(request.param))
    export_c(folder)
    return folder


@pytest.fixture(scope="module")
def standard(tmp_path_factory):
    folder = tmp_path_factory.mktemp("standard")
    write_run(folder, random_actor())
    export_c(folder)
    return folder


@pytest.fixture(scope="module")
def program(run, tmp_path_factory):
    return build(run, tmp_path_factory.mktemp("program"))


def build(folder, into):
    """The program that decides on the observations of a file, compiled with the sanitizers."""
    command = [*SANITIZED, f"-I{folder}", str(HERE / "act.c"), str(folder / "model.c"), "-o", str(into / "act")]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return into / "act"


def decide(program, observations, stated_rows=None):
    """What the program decides on each; NaN where it refuses."""
    packed = b"".join(
        np.int32(len(mask) if stated_rows is None else stated_rows).tobytes()
        + ego.tobytes() + (b"" if stated_rows is not None else peers.tobytes() + mask.tobytes())
        for ego, peers, mask in zip(*observations, strict=True)
    )  # fmt: skip
    given = program.with_name("given")
    given.write_bytes(packed)
    done = subprocess.run([str(program), str(given)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return np.array([np.nan if line == "refused" else float(line) for line in done.stdout.split()])


def as_float32(actions):
    return np.asarray(actions, np.float32)


@pytest.mark.parametrize("rows", [*range(CAPACITY + 1), 2 * CAPACITY + 1])
def test_every_number_of_peers_decides_as_the_runtime(run, program, rows):
    seen = random_observations(300, rows, seed=rows)
    seen.peer_mask[::2] = 1  # also all rows used
    wanted = Policy.load(run).act_many(seen, None)
    assert np.ptp(wanted) > 0.01
    np.testing.assert_array_equal(as_float32(decide(program, seen)), as_float32(wanted))


def test_every_bound_and_every_size_decides_as_the_runtime_or_is_refused(run, program):
    runtime, seen, rng = Policy.load(run), random_observations(1000, 5), np.random.default_rng(0)
    signed = [part * rng.choice([-1, 1], part.shape).astype(np.float32) for part in (seen.ego, seen.peers)]
    seen, refused = Observation(*signed, seen.peer_mask), 0
    for size in (0.0, 1e-45, 1e-30, 4.0, 1e4, 1e20, 1e37, 3e38):
        large = Observation(seen.ego * np.float32(size), seen.peers * np.float32(size), seen.peer_mask)
        wanted = runtime.act_many(large, None)
        refused += np.isnan(wanted).sum()
        np.testing.assert_array_equal(as_float32(decide(program, large)), as_float32(wanted))
    assert refused > 0  # sums without a result


def test_order_and_unused_rows_change_nothing(run, program):
    seen = random_observations(400, 9, seed=3)
    own = decide(program, seen)
    rng = np.random.default_rng(0)
    order = rng.permuted(np.tile(np.arange(9), (400, 1)), axis=1)
    mixed = Observation(
        seen.ego, np.take_along_axis(seen.peers, order[:, :, None], 1), np.take_along_axis(seen.peer_mask, order, 1)
    )
    assert np.abs(decide(program, mixed) - own).max() <= 1e-6
    wide = Observation(
        seen.ego,
        np.pad(seen.peers, ((0, 0), (0, 4), (0, 0)), constant_values=np.nan),
        np.pad(seen.peer_mask, ((0, 0), (0, 4))),
    )
    np.testing.assert_array_equal(decide(program, wide), own)  # not even NaN in an unused row


@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused_in_every_place(run, program, value):
    columns = NUM_EGO + 2 * NUM_PEER
    seen = random_observations(columns, 2)
    seen.peer_mask[:] = 1
    for column in range(NUM_EGO):
        seen.ego[column, column] = value
    for place in range(2 * NUM_PEER):
        seen.peers[NUM_EGO + place, place // NUM_PEER, place % NUM_PEER] = value
    assert np.isnan(decide(program, seen)).all()
    seen.peer_mask[:] = 0
    assert np.isnan(decide(program, seen)).tolist() == [k < NUM_EGO for k in range(columns)]


def test_a_negative_number_of_rows_is_refused(program):
    assert np.isnan(decide(program, random_observations(3, 0), stated_rows=-1)).all()


def test_actions_are_clipped(tmp_path):
    actor = random_actor()
    actor.head[-1].weight.data.mul_(100.0)
    write_run(tmp_path, actor)
    export_c(tmp_path)
    seen = random_observations(500, 4)
    actions = Policy.load(tmp_path / "model.c").act_many(seen)
    assert actions.min() == 0.0 and actions.max() == 1.0
    np.testing.assert_array_equal(actions, Policy.load(tmp_path).act_many(seen, None))


def test_weights_read_back_to_the_same_bits(tmp_path):
    actor = random_actor(Widths(phi=(64, 64)))
    rng = np.random.default_rng(1)
    for parameter in actor.parameters():
        bits = rng.integers(0, 2**32, parameter.numel(), dtype=np.uint32)
        bits[(bits & 0x7F800000) == 0x7F800000] = 0  # NaN and infinity
        bits[:3] = (0x80000000, 1, 0x7F7FFFFF)[: len(bits)]  # -0, the smallest, the largest
        values = bits.view(np.float32).reshape(tuple(parameter.shape))
        parameter.data.copy_(type(parameter.data)(values.tolist()).reshape(parameter.shape))
    write_run(tmp_path, actor)
    export_c(tmp_path)
    names = re.findall(r"^static const float (\w+)\[", (tmp_path / "model.c").read_text(), re.MULTILINE)
    body = "".join(f"fwrite({name}, 1, sizeof {name}, stdout);" for name in names)
    (tmp_path / "dump.c").write_text(f'#include "model.c"\n#include <stdio.h>\nint main(void) {{{body} return 0;}}\n')
    subprocess.run(["gcc", "-std=c99", str(tmp_path / "dump.c"), "-o", str(tmp_path / "dump")], check=True)
    told = subprocess.run([str(tmp_path / "dump")], capture_output=True, check=True).stdout
    wanted = [values.detach().numpy().T.tobytes() for values in actor.parameters()]
    assert told == b"".join(wanted)
    assert c_report(tmp_path)["weights_bytes"] == len(told)
    assert f"#define ROADSENSE_WEIGHTS_BYTES {len(told)}\n" in (tmp_path / "model.h").read_text()


def test_the_files_say_what_they_are_and_are_the_same_bytes_elsewhere(standard, tmp_path):
    signature = write_run(tmp_path, random_actor())
    code = (
        "import sys; from roadsense.export.c import export_c; export_c(sys.argv[1]); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True)
    for name in ("model.h", "model.c"):
        assert (tmp_path / name).read_bytes() == (standard / name).read_bytes()
    told = (standard / "model.h").read_text()
    assert f'"{layout_hash(1)}"' in told and f'"{signature.weights_digest}"' in told
    kept = ["model.c", "model.h", "policy.safetensors", "signature.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == kept


def test_a_header_of_other_weights_does_not_compile_with_the_source(standard, tmp_path):
    write_run(tmp_path, random_actor(seed=5))
    header, _ = render(tmp_path)
    with pytest.raises(RoadsenseError, match="belongs to other weights"):
        CompiledPolicy("x", read_signature(standard), header, (standard / "model.c").read_text(), {})


def test_it_compiles_as_a_part_of_a_cpp_program(standard, tmp_path):
    (tmp_path / "use.cpp").write_text(
        '#include "model.h"\nfloat act(const float *e) { return roadsense_act(e, 0, 0, 0); }'
    )
    for file in (tmp_path / "use.cpp", standard / "model.c"):
        command = ["g++", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", f"-I{standard}", "-x", "c++", str(file)]
        subprocess.run(command, check=True)


def test_a_network_with_a_memory_is_refused(tmp_path):
    write_run(tmp_path, random_actor(Widths(lstm=8)))
    with pytest.raises(UsageError, match="has a memory"):
        export_c(tmp_path)
    assert not (tmp_path / "model.c").exists() and not (tmp_path / "model.h").exists()


def test_weights_that_are_no_numbers_are_refused_by_name(tmp_path):
    actor = random_actor()
    actor.head[0].bias.data[3] = np.nan
    write_run(tmp_path, actor)
    with pytest.raises(RoadsenseError, match=r"head\.0\.bias holds NaN"):
        export_c(tmp_path)


def test_parity_over_what_a_policy_saw_and_the_same_episodes(tmp_path):
    write_run(tmp_path, random_actor())
    export_c(tmp_path)
    export_onnx(tmp_path)
    runtime, c = Policy.load(tmp_path), Policy.load(tmp_path / "model.c")
    player = Player(2, engine="native")
    with contextlib.closing(player):
        seen = record_observations(runtime, player, 2)
        found = measure(tmp_path, "c", seen)
        assert found.passed and found.observations > 50
        assert found.from_onnx is not None and found.from_onnx <= 1e-6
        np.testing.assert_array_equal(c.act_many(seen), runtime.act_many(seen))
        of_runtime, of_c = (list(play(policy, player, 2)) for policy in (runtime, c))
    for one, other in zip(of_runtime, of_c, strict=True):
        np.testing.assert_array_equal(one.reward, other.reward)


def test_parity_finds_one_weight_that_is_another(standard):
    header, source = render(standard)
    start = source.index("head_1_bias[1] = {") + len("head_1_bias[1] = {\n    ")
    end = source.index("f\n", start)
    changed = f"{source[:start]}{float(source[start:end]) + 3e-6:.9g}{source[end:]}"
    found = {}
    for name, text in (("same", source), ("changed", changed)):
        policy = CompiledPolicy(name, read_signature(standard), header, text, {})
        found[name] = compare(
            policy, standard / "model.c", load_network(standard), None, random_observations(50, 4),
            FORMATS["c"].bounds, folder=standard,
        )  # fmt: skip
    assert found["same"].passed and FORMATS["c"].bounds.difference == 1e-6
    assert re.match(r"its actions differ from the network's by (3|2\.9)", found["changed"].why)


@pytest.mark.parametrize("name", ["model.h", "model.c"])
def test_files_that_the_weights_do_not_give_are_not_run(standard, tmp_path, name):
    write_run(tmp_path, random_actor())
    with pytest.raises(RoadsenseError, match=r"model\.c: no such run folder or file"):
        Policy.load(tmp_path / "model.c")
    export_c(tmp_path)
    (tmp_path / "model.h").rename(tmp_path / "away.h")
    with pytest.raises(RoadsenseError, match=r"model\.h: cannot be read .* export the policy as C first"):
        Policy.load(tmp_path / "model.c")
    (tmp_path / "away.h").rename(tmp_path / "model.h")
    (tmp_path / name).write_text((tmp_path / name).read_text().replace("0.05f", "0.06f").replace("count++", "count--"))
    with pytest.raises(InputMismatchError, match=rf"{name}: is not what the weights"):
        Policy.load(tmp_path / "model.c")


def test_without_a_compiler_one_sentence(standard, monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(compiled.shutil, "which", lambda command: None)
    with pytest.raises(RoadsenseError, match="no C compiler found"):
        Policy.load(standard / "model.c")
    with pytest.raises(RoadsenseError, match="no C compiler xtensa-gcc"):
        c_report(standard, "xtensa-gcc")


def test_the_stack_does_not_grow_with_rows_and_is_reported(standard):
    report = c_report(standard)
    own = report["stack_by_function"]["roadsense_act"]
    arrays = 4 * (32 + 64 + 64 + 68)  # of ego, two layers, pooled
    assert arrays <= own <= arrays + 256
    assert own < report["stack_bytes"] <= own + 256
    assert report["weights_bytes"] == 4 * (12 * 32 + 32 + 32 * 32 + 32 + 68 * 64 + 64 + 64 + 1)
