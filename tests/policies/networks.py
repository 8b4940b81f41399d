"""Networks with plain random weights, and random observations, for tests."""

from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save

from roadsense.convoy.observation import EGO_FEATURES, NUM_EGO, NUM_PEER, PEER_FEATURES, Observation
from roadsense.files import write_bytes, write_json
from roadsense.policies.deep_sets import DeepSetsActor
from roadsense.policies.signature import SIGNATURE_NAME, WEIGHTS_NAME, Signature, Widths


def random_actor(widths: Widths = Widths(), seed: int = 0) -> DeepSetsActor:  # noqa: B008 - frozen
    """An actor whose actions lie well inside [0, 1] and differ from observation to observation."""
    torch.manual_seed(seed)
    actor = DeepSetsActor(widths, (0.0, 1.0))
    with torch.no_grad():
        if actor.lstm is not None:
            for parameter in actor.lstm.parameters():
                parameter.normal_(std=0.3)
        actor.head[-1].weight.mul_(2.0)
        actor.head[-1].bias.fill_(0.5)
    return actor


def tensors_of(actor: DeepSetsActor) -> dict[str, np.ndarray]:
    """Its parameters as numpy arrays."""
    return {name: value.numpy().copy() for name, value in actor.state_dict().items()}


def write_run(folder: Path, actor: DeepSetsActor, messages_per_peer: int = 1, control: str = "brake") -> Signature:
    """A run folder with that actor."""
    tensors = tensors_of(actor)
    signature = Signature.of(tensors, actor.widths, control, messages_per_peer)
    write_bytes(folder / WEIGHTS_NAME, save(tensors))
    write_json(folder / SIGNATURE_NAME, signature.document())
    return signature


def random_observations(count: int, rows: int, seed: int = 0) -> Observation:
    """Used rows anywhere, at most all; unused rows are zeros. Features are within [-1, 1] and their bounds."""
    rng = np.random.default_rng(seed)
    mask = (rng.random((count, rows)) < 0.6).astype(np.int8)
    low_ego, low_peer = ([max(-1.0, feature.low) for feature in of] for of in (EGO_FEATURES, PEER_FEATURES))
    peers = rng.uniform(low_peer, 1.0, (count, rows, NUM_PEER)).astype(np.float32) * mask[:, :, None]
    return Observation(rng.uniform(low_ego, 1.0, (count, NUM_EGO)).astype(np.float32), peers, mask)
