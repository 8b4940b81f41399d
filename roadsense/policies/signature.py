"""What travels with a network: the layout it reads, what its action means, its widths, and a digest of its weights."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roadsense.convoy.control import DEAD_BAND, MAX_BRAKE_MPS2, action_bounds
from roadsense.convoy.observation import EGO_FEATURES, NUM_EGO, NUM_PEER, PEER_FEATURES, layout, layout_hash
from roadsense.convoy.world import Control
from roadsense.errors import InputMismatchError, RoadsenseError

SIGNATURE_NAME = "signature.json"
WEIGHTS_NAME = "policy.safetensors"
ONNX_NAME = "model.onnx"
FORMAT = 1
OPSET = 20
"""Of the ONNX files."""
KIND = "deep-sets"


def weights_digest(state_dict: Mapping[str, Any]) -> str:
    """SHA-256 (hex) over parameter names and bytes, sorted by name; takes numpy arrays or CPU tensors."""
    digest = hashlib.sha256()
    for name in sorted(state_dict):
        digest.update(name.encode() + b"\0" + np.ascontiguousarray(np.asarray(state_dict[name])).tobytes())
    return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Widths:
    """Layer widths of the actor."""

    phi: tuple[int, ...] = (32, 32)
    """Of the encoder that every peer row passes, each layer followed by ReLU."""
    lstm: int = 0
    """Of the memory between encoder and head; 0: none."""
    head: tuple[int, ...] = (64,)
    """Of the hidden layers between the pooled set and the action."""

    @property
    def pooled(self) -> int:
        """Numbers that describe the set and the ego: maximum, mean, ego."""
        return 2 * self.phi[-1] + NUM_EGO

    def multiply_adds(self, peers: int = 8) -> int:
        """Multiply-adds of one decision with that many peers.

        The ego's share of the first layer is the same for all rows and computed once.
        """
        first = self.phi[0]
        per_row = NUM_PEER * first + sum(a * b for a, b in itertools.pairwise(self.phi))
        entering = self.pooled
        memory = 0
        if self.lstm:
            memory = 4 * self.lstm * (entering + self.lstm)
            entering = self.lstm
        layers = (entering, *self.head, 1)
        return NUM_EGO * first + peers * per_row + memory + sum(a * b for a, b in itertools.pairwise(layers))


@dataclass(frozen=True, kw_only=True)
class Signature:
    """What a reader of the weights must know and agree on."""

    control: str
    """``"brake"`` or ``"acceleration"``."""
    messages_per_peer: int
    """Newest messages of each peer in the observation."""
    widths: Widths
    """Of the actor."""
    weights_digest: str
    """Of the actor's parameters."""
    layout_hash: str
    """Of the observation it was trained on."""

    @property
    def bounds(self) -> tuple[float, float]:
        """Lowest and highest action."""
        return action_bounds(self.control)

    @property
    def dead_band(self) -> float:
        """Below this an action asks for nothing."""
        return DEAD_BAND if self.control == "brake" else 0.0

    def brakes(self, actions: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether actions ask for braking, beyond the dead band."""
        return actions >= DEAD_BAND if self.control == "brake" else actions <= -DEAD_BAND

    @classmethod
    def of(cls, tensors: Mapping[str, Any], widths: Widths, control: str, messages_per_peer: int) -> Signature:
        """The signature of an actor trained in this version's environment."""
        return cls(
            control=control, messages_per_peer=messages_per_peer, widths=widths,
            weights_digest=weights_digest(tensors), layout_hash=layout_hash(messages_per_peer),
        )  # fmt: skip

    def document(self) -> dict[str, Any]:
        """The content of ``signature.json``."""
        low, high = self.bounds
        return {
            "format": FORMAT,
            "kind": KIND,
            "control": self.control,
            "action": {
                "decoding": "clip(mean, low, high)", "low": low, "high": high,
                "full_brake_mps2": MAX_BRAKE_MPS2, "dead_band": self.dead_band,
            },
            "onnx_opset": OPSET,
            "inputs": self._inputs(),
            "outputs": self._outputs(),
            "messages_per_peer": self.messages_per_peer,
            "layout_hash": self.layout_hash,
            "layout": layout(self.messages_per_peer),
            "widths": dataclasses.asdict(self.widths),
            "multiply_adds_at_8_peers": self.widths.multiply_adds(8),
            "weights_digest": self.weights_digest,
        }  # fmt: skip

    def _inputs(self) -> list[dict[str, Any]]:
        """Of ONNX files and engines; batch and rows may be any number, rows also 0.

        They take raw values, in the units of the features, and divide by the scales and clip by themselves.
        """
        features = {
            name: [dataclasses.asdict(feature) for feature in of]
            for name, of in (("ego", EGO_FEATURES), ("peers", PEER_FEATURES))
        }
        found = [
            _tensor("ego", "float32", "batch", NUM_EGO, value="raw values", features=features["ego"]),
            _tensor(
                "peers", "float32", "batch", "rows", NUM_PEER, value="raw values; rows in any order",
                features=features["peers"],
            ),
            _tensor("peer_mask", "float32", "batch", "rows", value="1 where a row is used, 0 where it is not read"),
        ]  # fmt: skip
        return [*found, *self._states("")]

    def _outputs(self) -> list[dict[str, Any]]:
        low, high = self.bounds
        meaning = f"from {low:g} to {high:g}, clipped; see action"
        return [_tensor("action", "float32", "batch", 1, value=meaning), *self._states("next_")]

    def _states(self, prefix: str) -> list[dict[str, Any]]:
        names = ("hidden", "cell") if self.widths.lstm else ()
        return [_tensor(prefix + name, "float32", "batch", self.widths.lstm, value="0 at first") for name in names]

    def text(self) -> str:
        """The document as one line of JSON, the same bytes for the same signature."""
        return json.dumps(self.document(), sort_keys=True, ensure_ascii=False)


def _tensor(name: str, dtype: str, *shape: int | str, **about: Any) -> dict[str, Any]:
    return {"name": name, "dtype": dtype, "shape": list(shape), **about}


def parse_signature(text: str, where: object) -> Signature:
    """Reads a signature and checks that this version's observations are the ones it was made for.

    Args:
        text: JSON.
        where: names the source in errors.

    Raises:
        RoadsenseError: it is no signature.
        InputMismatchError: the model reads another observation layout.
    """
    try:
        document = json.loads(text)
        kind = (document["format"], document["kind"])
        widths = document["widths"]
        signature = Signature(
            control=document["control"],
            messages_per_peer=int(document["messages_per_peer"]),
            widths=Widths(phi=tuple(widths["phi"]), lstm=int(widths["lstm"]), head=tuple(widths["head"])),
            weights_digest=str(document["weights_digest"]),
            layout_hash=str(document["layout_hash"]),
        )
        known = signature.control.upper() in Control.__members__ and signature.widths.phi
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RoadsenseError(f"{where}: is not the signature of a policy ({error!r}); train or export again.") from None
    if kind != (FORMAT, KIND) or not known:
        raise RoadsenseError(f"{where}: describes a policy this version cannot run; use the version that made it.")
    expected = layout_hash(signature.messages_per_peer)
    if signature.layout_hash != expected:
        raise InputMismatchError(
            f"{where}: the model reads observation layout {signature.layout_hash[:12]}, this version gives layout "
            f"{expected[:12]}; train it again or use the version that made it."
        )
    return signature


def read_signature(folder: Path) -> Signature:
    """Reads ``signature.json`` of a run folder; see :func:`parse_signature`."""
    path = folder / SIGNATURE_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RoadsenseError(f"{path}: no such file; give the folder of a finished training.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RoadsenseError(f"{path}: cannot be read ({error}).") from None
    return parse_signature(text, path)
