"""What tests of fragments share."""

import numpy as np

from roadsense.policies.signature import Signature, Widths
from roadsense.policies.weights import parameter_shapes
from roadsense.training.episodes import Episodes
from roadsense.training.fragments import Weights

PEERS = 4


def some_weights(version=0, std=0.3, scale=0.2):
    """Of a random network."""
    rng, widths = np.random.default_rng(0), Widths()
    shapes = parameter_shapes(widths)
    tensors = {name: rng.normal(0.0, scale, shape).astype(np.float32) for name, shape in shapes.items()}
    return Weights(version, Signature.of(tensors, widths, "brake", 1), tensors, std)


def first_episodes(count, seed=7):
    return Episodes.begun(np.arange(count, dtype=np.uint64) + np.uint64(seed), np.ones(count, np.int64))


def equal(one, other):
    """Whether two fragments hold the same bits, however long they took."""
    kept = [(a, b) for name, a, b in zip(one._fields, one, other, strict=True) if name not in BESIDE]
    return all(equal(a, b) if isinstance(a, tuple) else np.array_equal(a, b) for a, b in kept)


BESIDE = ("busy_s", "repeated_steps")
