"""A network's parameters: their names and shapes, and the file they lie in."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from roadsense.convoy.observation import NUM_EGO, NUM_PEER
from roadsense.errors import InputMismatchError, RoadsenseError
from roadsense.extras import missing
from roadsense.policies.signature import WEIGHTS_NAME, Signature, Widths, weights_digest

REMEDY = "train or export the policy again"


def parameter_shapes(widths: Widths) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the actor's parameters, as in ``policy.safetensors``."""
    shapes: dict[str, tuple[int, ...]] = {}
    chains = {
        "phi.layers": (NUM_PEER + NUM_EGO, *widths.phi),
        "head": (widths.lstm or widths.pooled, *widths.head, 1),
    }
    for prefix, chain in chains.items():
        for k, (entering, leaving) in enumerate(itertools.pairwise(chain)):
            shapes[f"{prefix}.{k}.weight"], shapes[f"{prefix}.{k}.bias"] = (leaving, entering), (leaving,)
    if widths.lstm:
        gates = 4 * widths.lstm
        shapes |= {
            "lstm.weight_ih": (gates, widths.pooled), "lstm.weight_hh": (gates, widths.lstm), "lstm.bias": (gates,)
        }  # fmt: skip
    return shapes


def read_weights(folder: Path, signature: Signature) -> dict[str, NDArray[np.float32]]:
    """Reads ``policy.safetensors`` of a run folder and checks it against the signature.

    Raises:
        RoadsenseError: the file is missing or cut short.
        InputMismatchError: it holds other weights than the signature says.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load
    except ImportError as error:
        raise missing(error.name or "safetensors") from None
    path = folder / WEIGHTS_NAME
    try:
        tensors = load(path.read_bytes())
    except FileNotFoundError:
        raise RoadsenseError(f"{path}: no such file; {REMEDY}.") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise RoadsenseError(f"{path}: cannot be read ({error}); {REMEDY}.") from None
    if {name: value.shape for name, value in tensors.items()} != parameter_shapes(signature.widths):
        raise InputMismatchError(f"{path}: does not hold the layers that its signature states; {REMEDY}.")
    if any(value.dtype != np.float32 for value in tensors.values()) or (
        weights_digest(tensors) != signature.weights_digest
    ):
        raise InputMismatchError(f"{path}: holds other weights than its signature states; {REMEDY}.")
    return tensors
