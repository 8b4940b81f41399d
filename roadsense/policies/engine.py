"""A policy from a TensorRT plan, on the GPU it was built on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from roadsense.convoy.observation import NUM_PEER, Observation, unscaled
from roadsense.errors import InputMismatchError, ObservationError, RoadsenseError, explain
from roadsense.policies.base import Truth
from roadsense.policies.forward import refuse
from roadsense.policies.gpu import REMEDY, Device, Engine, output_shapes, this_device
from roadsense.policies.runtime import Policy
from roadsense.policies.signature import Signature, read_signature

ENGINES_NAME = "engines"
PLAN_NAME = "model.plan"
RECORD_NAME = "engine.json"

Run = Callable[[Mapping[str, NDArray[Any]]], dict[str, NDArray[np.float32]]]
"""Decides on a batch within the profile; see :meth:`roadsense.policies.gpu.Engine.run`."""

_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class EngineRecord(BaseModel):
    """The content of ``engine.json``: what the plan beside it is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[2] = 2
    plan_sha256: _Digest
    onnx_sha256: _Digest
    """Of the file it was built from."""
    weights_digest: _Digest
    """Of the run's parameters, as in its signature."""
    device: Device
    max_batch: Annotated[int, Field(ge=1)]
    """Worlds that are decided on at once."""
    max_rows: Annotated[int, Field(ge=1)]

    def check_plan(self, plan: bytes, signature: Signature, where: object) -> None:
        """Refuses another plan than this was written for, and one of other weights.

        Args:
            plan: content of the file.
            signature: of the run it lies in.
            where: names the plan in the error.

        Raises:
            InputMismatchError: it is.
        """
        if hashlib.sha256(plan).hexdigest() != self.plan_sha256:
            raise InputMismatchError(f"{where}: is not the plan that its {RECORD_NAME} was written for; {REMEDY}.")
        if self.weights_digest != signature.weights_digest:
            raise InputMismatchError(f"{where}: was built from other weights than its run holds; {REMEDY}.")

    def check_device(self, here: Device, where: object) -> None:
        """Refuses to run on another device than it was made for; arguments and errors as in :meth:`check_plan`."""
        if here != self.device:
            raise InputMismatchError(f"{where}: was built for {self.device}, this is {here}; {REMEDY}.")


def read_record(path: Path) -> EngineRecord:
    """Reads ``engine.json``.

    Raises:
        RoadsenseError: it is missing or is no record of an engine.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RoadsenseError(f"{path}: no such file, so nobody knows what the plan beside it is; {REMEDY}.") from None
    except (OSError, ValueError) as error:
        raise RoadsenseError(f"{path}: cannot be read ({error}); {REMEDY}.") from None
    try:
        return EngineRecord.model_validate(document)
    except ValidationError as error:
        raise RoadsenseError(f"{path}: describes no engine ({explain(error, EngineRecord)}); {REMEDY}.") from None


class EnginePolicy(Policy):
    """The exported network as an engine.

    More worlds than its profile holds are decided on in parts. An observation without rows gets an unused one, which
    changes no bit. One with more rows than the profile holds is refused: no row is ever dropped.

    Args:
        name: of the policy in results.
        signature: of the network.
        run: decides on a batch.
        record: of the engine, whose profile is kept to.
        origin: what a result names it by.
    """

    def __init__(
        self, name: str, signature: Signature, run: Run, record: EngineRecord, origin: Mapping[str, str]
    ) -> None:
        super().__init__(name, signature, origin)
        self._run, self._max_batch, self._max_rows = run, record.max_batch, record.max_rows

    def act_many(self, observation: Observation, truth: Truth | None = None) -> NDArray[np.float64]:
        """Actions [world]; NaN, and no new memory, where an observation holds NaN or infinity.

        Raises:
            ObservationError: it has more rows than the engine was built for.
            RoadsenseError: the GPU fails, or the policy was closed.
        """
        worlds, rows = observation.peer_mask.shape
        if rows > self._max_rows:
            raise ObservationError(
                f"{self.name} takes up to {self._max_rows} rows, not {rows}; build the engine for more rows."
            )
        used = observation.peer_mask != 0
        # zeros where nothing is used: the graph multiplies by the mask, and zero times NaN is NaN
        raw = unscaled(observation)
        inputs = {"ego": raw.ego, "peers": np.where(used[:, :, None], raw.peers, 0), "peer_mask": used}
        if rows == 0:
            inputs["peers"], inputs["peer_mask"] = np.zeros((worlds, 1, NUM_PEER)), np.zeros((worlds, 1), np.bool_)
        remembers = self.signature.widths.lstm > 0
        if remembers:
            self._make_room(worlds)
            inputs |= {"hidden": self._hidden, "cell": self._cell}
        found = {name: np.empty(shape, np.float32) for name, shape in output_shapes(self.signature, worlds).items()}
        for start in range(0, worlds, self._max_batch):
            part = slice(start, start + self._max_batch)
            for name, value in self._run({name: array[part] for name, array in inputs.items()}).items():
                found[name][part] = value
        actions = found["action"][:, 0].astype(np.float64)
        refuse(*observation, actions)
        if remembers:
            self._keep(found["next_hidden"], found["next_cell"], actions)
        return actions

    def close(self) -> None:
        """Frees what it holds on the GPU; it decides no more. Done by itself where nobody holds the policy any more."""
        self._run = _closed


def _closed(inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
    raise RoadsenseError("this engine was closed; load the policy again.")


def open_engine(path: Path, name: str) -> EnginePolicy:
    """The policy of a plan in ``engines/<device>`` of a run; see :meth:`roadsense.policies.runtime.Policy.load`.

    Nothing is deserialised before the plan's digest, the run's weights, the GPU and TensorRT are those that
    ``engine.json`` beside it states. That finds a plan that is damaged, mixed up, or brought from another machine.
    It is no protection from somebody who can write into that folder: a plan is a program that runs with all you may
    do, and whoever forges it forges its digest too. Open what you built yourself, or what somebody you trust signed.

    Raises:
        InputMismatchError: the plan is another one, is of other weights, or was built for another device.
        RoadsenseError: it lies elsewhere, its record is missing, or what runs it is not here.
    """
    path = path.resolve()
    if len(path.parents) < 3 or path.parents[1].name != ENGINES_NAME:
        raise RoadsenseError(f"{path}: does not lie in {ENGINES_NAME}/<device> of a run; put it back where it was.")
    signature, record = read_signature(path.parents[2]), read_record(path.parent / RECORD_NAME)
    plan = path.read_bytes()
    record.check_plan(plan, signature, path)
    record.check_device(this_device(), path)
    engine = Engine(plan, signature, record.max_batch, record.max_rows, path)
    return EnginePolicy(name, signature, engine.run, record, {"path": str(path), "sha256": record.plan_sha256})
