"""RLlib's module is the actor that everything else runs: the same names, the same action, and peers are a set to it."""

from importlib.util import find_spec

import gymnasium as gym
import numpy as np
import pytest
import torch

from roadsense.convoy.spaces import action_space, observation_space
from roadsense.policies.runtime import DeepSetsPolicy
from roadsense.policies.signature import Signature, Widths
from roadsense.policies.weights import parameter_shapes

from ..policies.networks import random_observations

if find_spec("ray") is not None:
    from roadsense.training.rllib_module import DeepSetsRLModule, actor_tensors

pytestmark = [
    pytest.mark.usefixtures("require_ray"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
]

WIDTHS = Widths(phi=(12, 8), head=(10, 6))


def module_of(inference_only=False, rows=6, seed=0):
    """A fresh module whose actions lie well inside [0, 1] and differ from observation to observation."""
    torch.manual_seed(seed)
    told = {"phi_widths": WIDTHS.phi, "head_widths": WIDTHS.head, "critic_widths": (9,), "log_std": -1.5,
            "initial_action": -0.1}  # fmt: skip
    module = DeepSetsRLModule(
        observation_space=observation_space(rows), action_space=action_space("brake"),
        model_config=told, inference_only=inference_only,
    )  # fmt: skip
    with torch.no_grad():
        module.actor.head[-1].weight.mul_(120.0)
        module.actor.head[-1].bias.fill_(0.3)
    return module


def batch_of(observations):
    return {"obs": {name: torch.from_numpy(array.copy()) for name, array in observations._asdict().items()}}


def action(module, observations):
    return module.forward_inference(batch_of(observations))["actions"].numpy()


def all_outputs(module, observations):
    """Everything that is learnt from: the Gaussian's inputs and the value."""
    batch = batch_of(observations)
    return module.forward_train(batch)["action_dist_inputs"], module.compute_values(batch)


def test_the_deterministic_action_is_that_of_the_runtime_under_the_same_names():
    module, seen = module_of(), random_observations(500, 6)
    tensors = actor_tensors(module)
    assert {name: value.shape for name, value in tensors.items()} == parameter_shapes(WIDTHS)
    policy = DeepSetsPolicy("same", Signature.of(tensors, WIDTHS, "brake", 1), tensors)
    decided = action(module, seen)
    assert np.ptp(decided) > 0.2 and decided.min() == 0.0
    assert np.abs(policy.act_many(seen) - decided[:, 0]).max() <= 1e-6


def test_a_fresh_actor_asks_for_next_to_nothing_whatever_it_sees():
    torch.manual_seed(1)
    told = {"phi_widths": (32, 32), "head_widths": (64,), "critic_widths": (64, 64), "log_std": -1.0,
            "initial_action": -0.1}  # fmt: skip
    module = DeepSetsRLModule(
        observation_space=observation_space(16), action_space=action_space("brake"), model_config=told
    )
    found = module.forward_exploration(batch_of(random_observations(500, 16)))["action_dist_inputs"]
    assert (found[:, 0] + 0.1).abs().max() < 0.03
    assert (found[:, 1] == -1.0).all()


def test_the_order_of_rows_and_the_capacity_change_action_and_value_by_at_most_1e_6():
    module, seen = module_of(), random_observations(500, 6)
    order = np.random.default_rng(1).permutation(6)
    shuffled = seen._replace(peers=seen.peers[:, order], peer_mask=seen.peer_mask[:, order])
    wide = seen._replace(
        peers=np.pad(seen.peers, ((0, 0), (0, 20), (0, 0))), peer_mask=np.pad(seen.peer_mask, ((0, 0), (0, 20)))
    )
    for other in (shuffled, wide):
        assert np.abs(action(module, seen) - action(module, other)).max() <= 1e-6
        for a, b in zip(all_outputs(module, seen), all_outputs(module, other), strict=True):
            assert (a - b).abs().max() <= 2e-6


@pytest.mark.parametrize("rubbish", [1e6, float("nan"), float("inf")])
def test_a_masked_row_changes_no_bit_of_action_value_or_gradient(rubbish):
    module, clean = module_of(), random_observations(200, 6)
    dirty = clean._replace(peers=np.where(clean.peer_mask[:, :, None] == 0, np.float32(rubbish), clean.peers))
    assert not np.array_equal(clean.peers, dirty.peers)
    assert action(module, clean).tobytes() == action(module, dirty).tobytes()
    found = []
    for observations in (clean, dirty):
        module.zero_grad()
        batch = batch_of(observations)
        batch["obs"]["peers"].requires_grad_()
        (module.forward_train(batch)["action_dist_inputs"].sum() + module.compute_values(batch).sum()).backward()
        of_rows = batch["obs"]["peers"].grad
        assert (of_rows[observations.peer_mask == 0] == 0).all() and (of_rows[observations.peer_mask == 1] != 0).any()
        found.append({name: parameter.grad.numpy().tobytes() for name, parameter in module.named_parameters()})
    assert found[0] == found[1]


def test_the_critic_has_an_encoder_of_its_own_and_the_noise_is_not_learned():
    module, seen = module_of(), random_observations(50, 6)
    assert "log_std" not in dict(module.named_parameters()) and "log_std" in module.get_state()
    module.compute_values(batch_of(seen)).sum().backward()
    assert all(parameter.grad is None for parameter in module.actor.parameters())
    assert all(parameter.grad is not None for parameter in module.critic.parameters())


def test_a_runner_is_sent_the_actor_and_the_noise_and_no_critic():
    learner, runner = module_of(seed=0), module_of(inference_only=True, seed=1)
    learner.log_std.fill_(-2.25)
    sent = learner.get_state(inference_only=True)
    assert not any(name.startswith("critic") for name in sent) and not hasattr(runner, "critic")
    runner.set_state(sent)
    seen = random_observations(50, 6)
    assert action(learner, seen).tobytes() == action(runner, seen).tobytes()
    assert (runner.forward_exploration(batch_of(seen))["action_dist_inputs"][:, 1] == -2.25).all()


def test_with_acceleration_the_action_reaches_from_braking_to_speeding_up():
    told = {"phi_widths": (4,), "head_widths": (4,), "critic_widths": (4,), "log_std": -1.0, "initial_action": 0.0}
    module = DeepSetsRLModule(
        observation_space=observation_space(3), action_space=action_space("acceleration"), model_config=told
    )
    assert isinstance(module.action_space, gym.spaces.Box)
    for bias, expected in ((-7.0, -1.0), (7.0, 1.0)):
        module.actor.head[-1].bias.data.fill_(bias)
        assert (action(module, random_observations(5, 3)) == expected).all()
