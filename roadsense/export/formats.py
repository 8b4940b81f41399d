"""The formats a policy is exported in, how far each may be from the network, and what was found."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from roadsense.convoy.observation import Observation
from roadsense.convoy.player import Player
from roadsense.errors import InputMismatchError, RoadsenseError, UsageError, nearest
from roadsense.evaluation.rollout import record_observations
from roadsense.export.onnx import export_onnx, load_actor, parity
from roadsense.export.parity import PARITY_BOUND, actions_of_network, actions_of_policy, made_up, memory
from roadsense.export.quantised import FP16_NAME, INT8_NAME, export_fp16, export_int8
from roadsense.export.sets import SET_BOUND, largest, padded, permuted
from roadsense.files import write_json
from roadsense.manifest import file_digest
from roadsense.policies.runtime import load_policy
from roadsense.policies.signature import ONNX_NAME
from roadsense.runs import read_record

PARITY_NAME = "parity.json"
RECORDED = 10_000
"""So many recorded observations are compared at least where a format is exported by hand."""
_WORLDS = 32
"""Worlds that record, and episodes at first; each is up to some hundred decisions."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """A form of the policy, and what counts as the same decision."""

    file: str
    """Name in the run folder; the runtime reads it by its path."""
    write: Callable[[Path, Observation], Path]
    """Writes it into a run folder; recorded observations are at hand."""
    bound: float
    """Largest difference of its actions from the network's."""
    brake_agreement: float = 0.0
    """Least share of recorded decisions on the network's side of the dead band."""


FORMATS = {
    "onnx": Format(file=ONNX_NAME, write=lambda run, _: export_onnx(run), bound=PARITY_BOUND),
    "fp16": Format(file=FP16_NAME, write=lambda run, _: export_fp16(run), bound=1e-2),
    "int8": Format(file=INT8_NAME, write=export_int8, bound=5e-2, brake_agreement=0.995),
}
"""By name, in the order they are made: later ones are made from the first."""


@dataclass(frozen=True, kw_only=True)
class FormatParity:
    """How far the actions of one file are from the network's."""

    file: str
    digest: str
    """SHA-256 (hex) of the file."""
    observations: int
    """Recorded ones."""
    recorded: float
    """Largest difference on them."""
    made_up: float
    """On every number of peers, and on stale and extreme values (:func:`roadsense.export.parity.made_up`)."""
    brake_agreement: float
    """Share of recorded decisions on the same side of the dead band."""
    permuted: float
    """Largest difference from its own actions, with the rows of every observation in another order."""
    padded: float
    """The same with more capacity."""
    bound: float
    least_agreement: float

    @property
    def largest(self) -> float:
        """Difference from the network; NaN where any is."""
        return float(np.max([self.recorded, self.made_up]))

    @property
    def why(self) -> str:
        """What is out of bounds; empty where nothing is."""
        found = []
        if not self.largest <= self.bound:
            found.append(f"its actions differ from the network's by {self.largest:.3g}, at most {self.bound:g} is"
                         " allowed")  # fmt: skip
        if not self.brake_agreement >= self.least_agreement:
            found.append(f"it brakes as the network in {self.brake_agreement:.2%} of decisions, at least "
                         f"{self.least_agreement:.1%} is asked")  # fmt: skip
        sets = float(np.max([self.permuted, self.padded]))
        if not sets <= SET_BOUND:
            found.append(f"other rows change its actions by {sets:.3g}, at most {SET_BOUND:g} is allowed")
        return "; ".join(found)

    @property
    def passed(self) -> bool:
        """Whether everything is within its bound; NaN is not."""
        return not self.why

    def document(self) -> dict[str, Any]:
        """As JSON; what is no number is null."""
        return {
            "file": self.file, "digest": self.digest, "passed": self.passed, "observations": self.observations,
            "largest": _finite(self.largest), "bound": self.bound, "recorded": _finite(self.recorded),
            "made_up": _finite(self.made_up), "brake_agreement": self.brake_agreement,
            "least_agreement": self.least_agreement, "set_bound": SET_BOUND, "permuted": _finite(self.permuted),
            "padded": _finite(self.padded), **({} if self.passed else {"why": self.why}),
        }  # fmt: skip


def measure(run_dir: str | Path, name: str, observations: Observation, *, seed: int = 0) -> FormatParity:
    """Compares the file of a format with the torch network of its run.

    Args:
        run_dir: folder that holds weights and the file.
        name: of the format.
        observations: recorded ones along the leading axis.
        seed: of what is made up, of the order rows are put in, and of a memory's state.

    Raises:
        UsageError: there is no such format or file.
        RoadsenseError: a file cannot be read, or was made from other weights.
    """
    run_dir, form = Path(run_dir), _format(name)
    path, actor = run_dir / form.file, load_actor(run_dir)
    policy: Any = load_policy(path)
    _refuse_other_weights(run_dir, path)
    rng = np.random.default_rng(seed)
    found = {}
    for kind, shown in (("recorded", observations), ("made_up", made_up(observations, rng))):
        state = memory(actor, len(shown.ego), rng)
        wanted, own = actions_of_network(actor, shown, state), actions_of_policy(policy, shown, state)
        band = policy.signature.document()["action"]["dead_band"]
        found[kind] = {
            "difference": largest(own - wanted),
            "agreement": float(np.mean((own >= band) == (wanted >= band))) if len(own) else 1.0,
            "permuted": largest(actions_of_policy(policy, permuted(shown, rng), state) - own),
            "padded": largest(actions_of_policy(policy, padded(shown), state) - own),
        }
    both = {key: float(np.max([one[key] for one in found.values()])) for key in ("permuted", "padded")}
    return FormatParity(
        file=form.file, digest=file_digest(path), observations=len(observations.ego),
        recorded=found["recorded"]["difference"], made_up=found["made_up"]["difference"],
        brake_agreement=found["recorded"]["agreement"], bound=form.bound, least_agreement=form.brake_agreement, **both,
    )  # fmt: skip


def export(run_dir: str | Path, formats: Sequence[str], observations: Observation) -> list[Path]:
    """Writes a run's policy in every named format, compares each with the network, and records that in ``parity.json``.

    What ``parity.json`` says of ``model.onnx`` and of formats that are not named stays as it is, as long as their files
    do.

    Args:
        run_dir: the run folder.
        formats: names in :data:`FORMATS`.
        observations: recorded ones along the leading axis.

    Returns:
        The files, in the order of :data:`FORMATS`.

    Raises:
        UsageError: a format is unknown, or none is named.
        RoadsenseError: a format is out of its bounds, its file was removed, the others are there; or a file cannot be
            read or written.
    """
    run_dir = Path(run_dir)
    asked = check_formats(formats)
    if len(observations.ego) == 0:
        raise RoadsenseError(f"{run_dir}: there is no observation to compare on; record at least one episode.")
    record, files, refused = read_record(run_dir / PARITY_NAME), [], []
    before = record.pop("formats", None)
    known: dict[str, Any] = {
        name: facts for name, facts in (before if isinstance(before, dict) else {}).items()
        if name in FORMATS and name not in asked and isinstance(facts, dict)
        and _digest(run_dir / FORMATS[name].file) == facts.get("digest")
    }  # fmt: skip
    for name in asked:
        if name != "onnx":
            _refuse_other_weights(run_dir, run_dir / ONNX_NAME)
        path = FORMATS[name].write(run_dir, observations)
        found = measure(run_dir, name, observations)
        known[name] = found.document()
        try:
            if not found.passed:
                raise RoadsenseError(f"{path}: {found.why}, over {found.observations} observations; it was removed.")
            if name == "onnx":
                record = parity(run_dir, observations).document()
            files.append(path)
        except RoadsenseError as error:
            path.unlink()
            refused.append(str(error))
            if name == "onnx":  # the others are made from it
                break
    ordered = {name: known[name] for name in FORMATS if name in known}
    write_json(run_dir / PARITY_NAME, {**record, "formats": ordered})
    if refused:
        raise RoadsenseError(" ".join(refused))
    return files


def record(run_dir: str | Path, at_least: int = RECORDED) -> Observation:
    """What a run's policy sees in so many decisions or more, in the shipped scenarios on the native engine.

    Raises:
        UsageError, RoadsenseError, InputMismatchError: see :func:`roadsense.policies.runtime.load_policy`.
    """
    policy = load_policy(Path(run_dir))
    player = Player(
        _WORLDS, split="val", engine="native", control=policy.control, messages_per_peer=policy.messages_per_peer
    )
    try:
        episodes = _WORLDS
        while True:
            seen = record_observations(policy, player, episodes)
            if len(seen.ego) >= at_least or episodes >= at_least:
                return seen
            episodes *= 2
    finally:
        player.close()


def check_formats(names: Sequence[str]) -> list[str]:
    """The formats, each once, in the order of :data:`FORMATS`.

    Raises:
        UsageError: one is unknown, or there is none.
    """
    if not names:
        raise UsageError(f"no format is named; known are: {', '.join(FORMATS)}.")
    for name in names:
        _format(name)
    return [name for name in FORMATS if name in names]


def _format(name: str) -> Format:
    if name not in FORMATS:
        raise UsageError(f"format {name!r} is unknown; {nearest(name, FORMATS)}")
    return FORMATS[name]


def _refuse_other_weights(run_dir: Path, path: Path) -> None:
    if not path.is_file():
        raise UsageError(f"{path}: no such file; name the format onnx as well, others are made from it.")
    exported: Any = load_policy(path)
    own: Any = load_policy(run_dir)
    if exported.signature != own.signature:
        raise InputMismatchError(f"{path}: was exported from other weights; export it again.")


def _digest(path: Path) -> str | None:
    return file_digest(path) if path.is_file() else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
