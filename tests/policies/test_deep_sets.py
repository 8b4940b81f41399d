"""Peers are a set: what the network must not see, it does not see."""

import numpy as np
import pytest
import torch

from roadsense.convoy.spaces import observation_space
from roadsense.policies.deep_sets import actor_of
from roadsense.policies.signature import Signature, Widths
from roadsense.training.model import DeepSetsExtractor

from .networks import random_actor, random_observations, tensors_of

TOLERANCE = 1e-6


def as_torch(observations):
    return [torch.from_numpy(array.copy()) for array in observations]


def action(actor, observations):
    with torch.no_grad():
        return actor(*as_torch(observations)).numpy()


@pytest.mark.parametrize("rubbish", [1e6, float("nan"), float("inf")])
def test_a_masked_row_changes_no_bit_of_the_action_nor_of_a_gradient(rubbish):
    actor, clean = random_actor(), random_observations(200, 6)
    dirty = clean._replace(peers=np.where(clean.peer_mask[:, :, None] == 0, np.float32(rubbish), clean.peers))
    assert not np.array_equal(clean.peers, dirty.peers)
    assert action(actor, clean).tobytes() == action(actor, dirty).tobytes()

    gradients = []
    for observations in (clean, dirty):
        actor.zero_grad()
        inputs = as_torch(observations)
        inputs[1].requires_grad_()
        actor(*inputs).sum().backward()
        assert (inputs[1].grad[observations.peer_mask == 0] == 0).all()
        assert (inputs[1].grad[observations.peer_mask == 1] != 0).any()
        gradients.append({name: parameter.grad.numpy().tobytes() for name, parameter in actor.named_parameters()})
    assert gradients[0] == gradients[1]


def test_used_rows_matter():
    actor, seen = random_actor(), random_observations(200, 6)
    other = seen._replace(peers=seen.peers * np.float32(0.5))
    moved = np.abs(action(actor, seen) - action(actor, other)).max(1) > 1e-4
    assert moved[seen.peer_mask.any(1)].mean() > 0.9


def test_the_order_of_rows_and_the_capacity_change_the_action_by_at_most_1e_6():
    actor, seen = random_actor(), random_observations(500, 8)
    expected = action(actor, seen)
    assert np.ptp(expected) > 0.1
    order = np.random.default_rng(1).permutation(8)
    shuffled = seen._replace(peers=seen.peers[:, order], peer_mask=seen.peer_mask[:, order])
    wide = seen._replace(
        peers=np.pad(seen.peers, ((0, 0), (0, 24), (0, 0))), peer_mask=np.pad(seen.peer_mask, ((0, 0), (0, 24)))
    )
    for variant in (shuffled, wide):
        assert np.abs(action(actor, variant) - expected).max() <= TOLERANCE


def test_two_equal_messages_are_as_one_to_the_maximum_but_a_set_is_not_a_sum():
    actor, one = random_actor(), random_observations(50, 1)
    one = one._replace(peer_mask=np.ones_like(one.peer_mask))
    twice = one._replace(peers=np.repeat(one.peers, 2, 1), peer_mask=np.repeat(one.peer_mask, 2, 1))
    assert np.abs(action(actor, one) - action(actor, twice)).max() <= TOLERANCE


def test_the_empty_set_is_a_set():
    actor, seen = random_actor(), random_observations(20, 4)
    masked = seen._replace(peers=seen.peers * 0, peer_mask=seen.peer_mask * 0)
    none = seen._replace(peers=seen.peers[:, :0], peer_mask=seen.peer_mask[:, :0])
    assert np.isfinite(action(actor, none)).all()
    assert np.abs(action(actor, none) - action(actor, masked)).max() <= TOLERANCE


def test_the_features_extractor_reads_the_environments_space():
    space = observation_space(5)
    extractor = DeepSetsExtractor(space, (16, 24))
    sample = {name: torch.as_tensor(np.stack([value] * 3)).float() for name, value in space.sample().items()}
    assert extractor(sample).shape == (3, extractor.features_dim) == (3, 2 * 24 + 4)


def test_the_default_network_is_small_enough_for_the_edge_and_counted_by_hand():
    small = Widths(phi=(3, 2), head=(5,))
    # ego's share of the first layer 4·3, two rows of 8·3 + 3·2, head of (2·2 + 4)·5 + 5·1
    assert small.multiply_adds(2) == 12 + 2 * 30 + 45
    with_memory = Widths(phi=(3, 2), lstm=6, head=(5,))
    assert with_memory.multiply_adds(2) == 12 + 2 * 30 + 4 * 6 * (8 + 6) + 6 * 5 + 5
    assert Widths().multiply_adds(8) <= 20_000
    assert Widths(lstm=16).multiply_adds(8) <= 20_000


def test_an_actor_is_rebuilt_from_its_parameters():
    actor, seen = random_actor(seed=3), random_observations(20, 4)
    rebuilt = actor_of(tensors_of(actor), Signature.of(tensors_of(actor), actor.widths, "brake", 1))
    assert action(actor, seen).tobytes() == action(rebuilt, seen).tobytes()
