"""The policy as C99 for a microcontroller: constant arrays, no heap, the same order of sums as the runtime.

Where the compiler fuses no multiply-adds (``-ffp-contract=off``) it decides as the runtime to the bit.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roadsense.convoy.control import MAX_BRAKE_MPS2
from roadsense.convoy.observation import EGO_FEATURES, NUM_EGO, NUM_PEER, PEER_FEATURES, Feature
from roadsense.errors import RoadsenseError, UsageError
from roadsense.policies.signature import WEIGHTS_NAME, Signature, Widths, read_signature
from roadsense.policies.weights import read_weights

HEADER_NAME = "model.h"
SOURCE_NAME = "model.c"

REFUSED = -2.0
"""What ``roadsense_act`` returns instead of an action: below every action, so that it can be told apart.

Clipped to the actions it asks for nothing where a driver drives, and brakes fully where the policy drives alone.
"""

_PER_LINE = 8


def render(run_dir: Path) -> tuple[str, str]:
    """The text of ``model.h`` and ``model.c`` for the weights of a run folder.

    Raises:
        UsageError: the network has a memory.
        RoadsenseError: the weights cannot be read, or are no numbers.
    """
    signature = read_signature(run_dir)
    if signature.widths.lstm:
        raise UsageError(f"{run_dir}: the network has a memory, which the C export does not know; export it as ONNX.")
    tensors = read_weights(run_dir, signature)
    broken = [name for name, values in tensors.items() if not np.isfinite(values).all()]
    if broken:
        raise RoadsenseError(f"{run_dir / WEIGHTS_NAME}: {broken[0]} holds NaN or infinity; train the policy again.")
    return _header(signature, tensors), _source(signature, tensors)


def weights_bytes(tensors: Mapping[str, NDArray[np.float32]]) -> int:
    """Size of the constant arrays [bytes]."""
    return sum(values.nbytes for values in tensors.values())


def _number(value: Any) -> str:
    """A float32 as a C constant that reads back to the same bits."""
    text = f"{float(value):.9g}"
    return f"{text}f" if any(mark in text for mark in ".e") else f"{text}.0f"


def _list(values: Iterable[float]) -> str:
    return "{" + ", ".join(_number(value) for value in values) + "}"


def _array(name: str, values: NDArray[np.float32]) -> str:
    flat = [_number(value) for value in values.ravel()]
    lines = [", ".join(flat[start : start + _PER_LINE]) for start in range(0, len(flat), _PER_LINE)]
    return f"static const float {name}[{values.size}] = {{\n    " + ",\n    ".join(lines) + "\n};\n"


def _model_id(signature: Signature) -> str:
    return f"0x{signature.weights_digest[:8]}UL"


def _features(prefix: str, features: tuple[Feature, ...]) -> str:
    rows = [f"{'_'.join((prefix, f.name)).upper()} {column}" for column, f in enumerate(features)]
    lines = [f"#define ROADSENSE_{row}" for row in rows]
    for what in ("scale", "low", "high"):
        values = _list(getattr(f, what) for f in features)
        lines.append(f"#define ROADSENSE_{prefix}_{what.upper()}S {values}")
    return "\n".join(lines)


def _header(signature: Signature, tensors: Mapping[str, NDArray[np.float32]]) -> str:
    low, high = signature.bounds
    return f"""/* A braking policy of roadsense: what goes in, what comes out. Written by its C export; do not edit. */
#ifndef ROADSENSE_MODEL_H
#define ROADSENSE_MODEL_H

#define ROADSENSE_LAYOUT_HASH "{signature.layout_hash}"
#define ROADSENSE_WEIGHTS_DIGEST "{signature.weights_digest}"
#define ROADSENSE_MODEL_ID {_model_id(signature)}
#define ROADSENSE_CONTROL "{signature.control}"
#define ROADSENSE_MESSAGES_PER_PEER {signature.messages_per_peer}
#define ROADSENSE_NUM_EGO {NUM_EGO}
#define ROADSENSE_NUM_PEER {NUM_PEER}
#define ROADSENSE_WEIGHTS_BYTES {weights_bytes(tensors)}

/* Lowest and highest action; below the dead band it asks for nothing; 1 of braking in m/s^2. */
#define ROADSENSE_LOW ({_number(low)})
#define ROADSENSE_HIGH ({_number(high)})
#define ROADSENSE_DEAD_BAND {_number(signature.dead_band)}
#define ROADSENSE_FULL_BRAKE_MPS2 {_number(MAX_BRAKE_MPS2)}

/* Returned where there is no decision. It lies below every action: test for it before an action is applied. */
#define ROADSENSE_REFUSED ({_number(REFUSED)})

/* Columns; a feature is the raw value / scale, clipped to low and high. */
{_features("EGO", EGO_FEATURES)}
{_features("PEER", PEER_FEATURES)}

#ifdef __cplusplus
extern "C" {{
#endif

extern const char roadsense_layout_hash[65];
extern const char roadsense_weights_digest[65];

/* The action for one observation, in ROADSENSE_LOW to ROADSENSE_HIGH.
   ego: ROADSENSE_NUM_EGO features. peers: rows x ROADSENSE_NUM_PEER features, row after row, in any order.
   mask: one for each row, not 0 where it is used; other rows are not read. rows: 0 or more; with 0 neither peers nor
   mask is read, and they may be null.
   ROADSENSE_REFUSED: a number that is read is NaN or infinite, rows is negative, a pointer is null, or numbers are so
   large that the sums have no result. */
float roadsense_act(const float ego[ROADSENSE_NUM_EGO], const float *peers, const signed char *mask, int rows);

#ifdef __cplusplus
}}
#endif
#endif
"""


_HELPERS = """
/* By its bits, which holds under every compiler switch. */
static int all_finite(const float *values, int size)
{
    for (int i = 0; i < size; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        if ((bits & UINT32_C(0x7f800000)) == UINT32_C(0x7f800000))
            return 0;
    }
    return 1;
}

/* y = bias + x * weight, weight is [inputs][outputs]. */
static void dense(const float *x, int inputs, const float *weight, const float *bias, int outputs, float *y)
{
    for (int j = 0; j < outputs; j++)
        y[j] = bias[j];
    for (int i = 0; i < inputs; i++)
        for (int j = 0; j < outputs; j++)
            y[j] += x[i] * weight[i * outputs + j];
}

/* NaN stays NaN. */
static void relu(float *x, int size)
{
    for (int j = 0; j < size; j++)
        if (x[j] < 0.0f)
            x[j] = 0.0f;
}
"""


def _chain(prefix: str, widths: tuple[int, ...], first: str, start: int) -> tuple[list[str], str]:
    """Calls for the layers from ``start`` on, the first of which reads ``first``; and where the last one wrote."""
    calls, read = [], first
    for k, (entering, leaving) in enumerate(itertools.pairwise(widths), start=start):
        write = "other" if read == "one" else "one"
        calls.append(f"dense({read}, {entering}, {prefix}_{k}_weight, {prefix}_{k}_bias, {leaving}, {write});")
        calls.append(f"relu({write}, {leaving});")
        read = write
    return calls, read


def _act(widths: Widths) -> str:
    width, first = widths.phi[-1], widths.phi[0]
    widest = max(*widths.phi, *widths.head, 1)
    encode, encoded = _chain("phi", widths.phi, "one", 1)
    head, decided = _chain("head", (widths.pooled, *widths.head, 1), "pooled", 0)
    head.pop()  # the action itself passes no ReLU
    other = f", other[{widest}]" if any("other" in call for call in encode + head) else ""
    in_row, in_body = "\n        ", "\n    "
    return f"""
float roadsense_act(const float ego[ROADSENSE_NUM_EGO], const float *peers, const signed char *mask, int rows)
{{
    float of_ego[{first}], one[{widest}]{other};
    float pooled[{widths.pooled}] = {{0.0f}}; /* maximum, mean, ego */
    int count = 0;

    if (ego == NULL || rows < 0 || (rows > 0 && (peers == NULL || mask == NULL)))
        return ROADSENSE_REFUSED;
    if (!all_finite(ego, ROADSENSE_NUM_EGO))
        return ROADSENSE_REFUSED;
    dense(ego, ROADSENSE_NUM_EGO, phi_0_weight + ROADSENSE_NUM_PEER * {first}, phi_0_bias, {first}, of_ego);
    for (int row = 0; row < rows; row++) {{
        const float *peer = peers + (size_t)row * ROADSENSE_NUM_PEER;
        if (mask[row] == 0)
            continue;
        if (!all_finite(peer, ROADSENSE_NUM_PEER))
            return ROADSENSE_REFUSED;
        count++;
        dense(peer, ROADSENSE_NUM_PEER, phi_0_weight, of_ego, {first}, one);
        relu(one, {first});
        {in_row.join(encode)}
        for (int j = 0; j < {width}; j++) {{
            if ({encoded}[j] > pooled[j])
                pooled[j] = {encoded}[j];
            pooled[{width} + j] += {encoded}[j];
        }}
    }}
    for (int j = 0; j < {width}; j++)
        pooled[{width} + j] /= (float)(count > 0 ? count : 1);
    memcpy(pooled + {2 * width}, ego, ROADSENSE_NUM_EGO * sizeof *ego);
    {in_body.join(head)}
    if ({decided}[0] < ROADSENSE_LOW)
        return ROADSENSE_LOW;
    if ({decided}[0] > ROADSENSE_HIGH)
        return ROADSENSE_HIGH;
    return all_finite({decided}, 1) ? {decided}[0] : ROADSENSE_REFUSED;
}}
"""


def _source(signature: Signature, tensors: Mapping[str, NDArray[np.float32]]) -> str:
    arrays = []
    for prefix, place in (("phi", "phi.layers"), ("head", "head")):
        for k in range(len(signature.widths.phi) if prefix == "phi" else len(signature.widths.head) + 1):
            arrays.append(_array(f"{prefix}_{k}_weight", np.ascontiguousarray(tensors[f"{place}.{k}.weight"].T)))
            arrays.append(_array(f"{prefix}_{k}_bias", tensors[f"{place}.{k}.bias"]))
    return f"""/* A braking policy of roadsense: weights and decision. Written by its C export; do not edit. */
#include "{HEADER_NAME}"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if ROADSENSE_MODEL_ID != {_model_id(signature)}
#error "{HEADER_NAME} belongs to other weights; export both files again"
#endif

const char roadsense_layout_hash[65] = ROADSENSE_LAYOUT_HASH;
const char roadsense_weights_digest[65] = ROADSENSE_WEIGHTS_DIGEST;

/* Weights are [in][out]. */
{"".join(arrays)}{_HELPERS}{_act(signature.widths)}"""
