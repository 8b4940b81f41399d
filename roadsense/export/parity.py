"""How far the decisions of an exported file are from those of the network, observation for observation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roadsense.convoy.observation import Observation
from roadsense.export.sets import largest, made_up, padded, permuted
from roadsense.files import json_number
from roadsense.manifest import file_digest
from roadsense.policies.onnx_file import OnnxPolicy
from roadsense.policies.runtime import Policy

SET_BOUND = 1e-6
"""Largest difference that the order of rows or the capacity may make."""
_CHUNK = 4096

State = NDArray[np.float32]
"""What a memory holds, [hidden or cell, observation, lstm]."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What counts as the same decision."""

    difference: float
    """Largest difference of an action from the network's."""
    brake_agreement: float = 0.0
    """Least share of recorded decisions on the network's side of the dead band."""


@dataclass(frozen=True, kw_only=True)
class FormatParity:
    """How far the actions of one file are from the network's."""

    file: str
    """Its place in the run folder."""
    digest: str
    """SHA-256 (hex) of the file."""
    observations: int
    """Recorded ones."""
    recorded: float
    """Largest difference on them."""
    made_up: float
    """On every number of peers, and on stale and extreme values (:func:`roadsense.export.sets.made_up`)."""
    from_onnx: float | None
    """Largest difference from the actions of ``model.onnx`` on all of them; None without one."""
    brake_agreement: float
    """Share of recorded decisions on the same side of the dead band."""
    permuted: float
    """Largest difference from its own actions, with the rows of every observation in another order."""
    padded: float
    """The same with more capacity."""
    bounds: Bounds

    @property
    def largest(self) -> float:
        """Difference from the network; NaN where any is."""
        return float(np.max([self.recorded, self.made_up]))

    @property
    def why(self) -> str:
        """What is out of bounds; empty where nothing is."""
        found, bound = [], self.bounds.difference
        if not self.largest <= bound:
            found.append(f"its actions differ from the network's by {self.largest:.3g}, at most {bound:g} is allowed")
        if self.from_onnx is not None and not self.from_onnx <= bound:
            found.append(f"they differ from those of model.onnx by {self.from_onnx:.3g}, at most {bound:g} is allowed")
        if not self.brake_agreement >= self.bounds.brake_agreement:
            found.append(f"it brakes as the network in {self.brake_agreement:.2%} of decisions, at least "
                         f"{self.bounds.brake_agreement:.1%} is asked")  # fmt: skip
        sets = float(np.max([self.permuted, self.padded]))
        if not sets <= SET_BOUND:
            found.append(
                f"the order of rows, or unused ones, change its actions by {sets:.3g}, at most {SET_BOUND:g} is allowed"
            )
        return "; ".join(found)

    @property
    def passed(self) -> bool:
        """Whether everything is within its bound; NaN is not."""
        return not self.why

    def document(self) -> dict[str, Any]:
        """As JSON; what is no number is null."""
        return {
            "file": self.file, "digest": self.digest, "passed": self.passed, "observations": self.observations,
            "largest": json_number(self.largest), "bound": self.bounds.difference,
            "recorded": json_number(self.recorded), "made_up": json_number(self.made_up),
            "from_onnx": None if self.from_onnx is None else json_number(self.from_onnx),
            "brake_agreement": self.brake_agreement, "least_agreement": self.bounds.brake_agreement,
            "set_bound": SET_BOUND, "permuted": json_number(self.permuted), "padded": json_number(self.padded),
            **({} if self.passed else {"why": self.why}),
        }  # fmt: skip


def compare(
    policy: Policy, path: Path, network: Policy, onnx: Policy | None, observations: Observation, bounds: Bounds,
    *, folder: Path, seed: int = 0,
) -> FormatParity:  # fmt: skip
    """Compares actions, and the memory after them, with those of the network, and with the own ones on other rows.

    Args:
        policy: the format.
        path: its file.
        network: of the same weights.
        onnx: ``model.onnx`` of the same weights, where there is one and it is not what is compared.
        observations: recorded ones along the leading axis.
        bounds: what counts as the same.
        folder: of the run.
        seed: of what is made up, of the order rows are put in, and of a memory's state.
    """
    rng = np.random.default_rng(seed)
    if isinstance(policy, OnnxPolicy):
        policy = policy.unpacked()  # or the runtime would keep rows from the graph that it must not heed
    found: dict[str, dict[str, float]] = {}
    for kind, shown in (("recorded", observations), ("made_up", made_up(observations, rng))):
        state = _states(rng, len(shown.ego), policy.signature.widths.lstm)
        wanted, own = decisions(network, shown, state), decisions(policy, shown, state)
        brakes = [policy.signature.brakes(actions[:, 0]) for actions in (own, wanted)]
        found[kind] = {
            "difference": largest(own - wanted),
            "from_onnx": math.nan if onnx is None else largest(own - decisions(onnx, shown, state)),
            "agreement": float(np.mean(brakes[0] == brakes[1])) if len(own) else 1.0,
            "permuted": largest(decisions(policy, permuted(shown, rng), state) - own),
            "padded": largest(decisions(policy, padded(shown), state) - own),
        }
    worst = {key: float(np.max([one[key] for one in found.values()])) for key in ("from_onnx", "permuted", "padded")}
    return FormatParity(
        file=path.relative_to(folder).as_posix(), digest=file_digest(path), observations=len(observations.ego),
        recorded=found["recorded"]["difference"], made_up=found["made_up"]["difference"],
        from_onnx=None if onnx is None else worst["from_onnx"], brake_agreement=found["recorded"]["agreement"],
        permuted=worst["permuted"], padded=worst["padded"], bounds=bounds,
    )  # fmt: skip


def decisions(policy: Policy, observations: Observation, state: State) -> NDArray[np.float64]:
    """What a policy decides from a state of its memory: [observation, action and the state after it]."""
    lstm = policy.signature.widths.lstm
    found = np.empty((len(observations.ego), 1 + 2 * lstm))
    for start in range(0, len(found), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        policy.remember(state[0, chunk].copy(), state[1, chunk].copy())
        shown = Observation._make(np.ascontiguousarray(array[chunk]) for array in observations)
        found[chunk, 0] = policy.act_many(shown, None)
        found[chunk, 1 : 1 + lstm], found[chunk, 1 + lstm :] = policy.memory if lstm else (0.0, 0.0)
    return found


def _states(rng: np.random.Generator, count: int, lstm: int) -> State:
    """Any states of a memory; what is shown of a cell lies in [-1, 1], what it holds does not."""
    reach = np.array([1.0, 4.0])[:, None, None]
    return (reach * rng.uniform(-1.0, 1.0, (2, count, lstm))).astype(np.float32)
