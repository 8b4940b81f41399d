"""What the next bit of a training depends on beside weights and optimiser, as arrays that need no unpickling.

All of it is taken between two rollouts, when no buffer is half filled. Names begin with the part they belong to.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.logger import Logger

from roadsense.errors import InputMismatchError
from roadsense.training.episodes import DrivenOtherwiseError, Episodes
from roadsense.training.model import AnyPPO
from roadsense.training.remote import RemoteVecEnv
from roadsense.training.vec_env import ConvoyVecEnv

Arrays = dict[str, NDArray[Any]]


def random_state() -> Arrays:
    """Where the streams of python, numpy and torch are; all three are global because Stable-Baselines3 draws there."""
    version, words, gauss = random.getstate()
    name, key, place, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002
    assert (version, name) == (3, "MT19937")
    return {
        "random.python": np.array(words, np.uint64),
        "random.python_gauss": np.array([] if gauss is None else [gauss]),  # the second of a pair, if drawn
        "random.numpy": np.array(key),
        "random.numpy_place": np.array([place, has_gauss]),
        "random.numpy_gauss": np.array(cached),
        "random.torch": torch.get_rng_state().numpy().copy(),
    }


def restore_random(arrays: Mapping[str, NDArray[Any]]) -> None:
    """Takes over the streams of :func:`random_state`."""
    gauss = arrays["random.python_gauss"].tolist()
    random.setstate((3, tuple(arrays["random.python"].tolist()), gauss[0] if gauss else None))
    place, has_gauss = arrays["random.numpy_place"].tolist()
    cached = float(arrays["random.numpy_gauss"])
    np.random.set_state(("MT19937", arrays["random.numpy"], place, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(torch.from_numpy(arrays["random.torch"].copy()))


def pending_figures(logger: Logger) -> Arrays:
    """Figures that wait for the row of the next update, as those of a validation do."""
    return {f"pending.{name}": np.array(float(value)) for name, value in logger.name_to_value.items()}


def restore_pending(arrays: Mapping[str, NDArray[Any]], logger: Logger) -> None:
    """Takes over :func:`pending_figures`."""
    for name, value in arrays.items():
        if name.startswith("pending."):
            logger.record(name.removeprefix("pending."), float(value))


def explorer_state(model: AnyPPO, env: ConvoyVecEnv | RemoteVecEnv) -> Arrays:
    """Where PPO stands in its worlds: their episodes, what it saw last, its memory, its last hundred episodes."""
    learner: Any = model
    ended = list(learner.ep_info_buffer)
    memory = [] if getattr(learner, "_last_lstm_states", None) is None else _flat(learner._last_lstm_states)
    return {
        **{f"worlds.{name}": array for name, array in env.open_episodes().items()},
        **{f"seen.{name}": array for name, array in learner._last_obs.items()},
        "learner.starts": np.array(learner._last_episode_starts, np.bool_),
        "learner.updates": np.array(learner._n_updates),
        **{f"learner.memory.{place}": tensor.detach().numpy() for place, tensor in enumerate(memory)},
        "ended.returns": np.array([episode["r"] for episode in ended], np.float64),
        "ended.steps": np.array([episode["l"] for episode in ended], np.int64),
        "ended.collisions": np.array([episode["collision"] for episode in ended], np.bool_),
    }


def restore_explorer(arrays: Mapping[str, NDArray[Any]], model: AnyPPO, env: ConvoyVecEnv | RemoteVecEnv) -> None:
    """Takes over :func:`explorer_state`; the open episodes are driven again.

    Raises:
        InputMismatchError: they do not come to what was observed.
    """
    learner: Any = model
    try:
        seen = env.reopen({name: arrays[f"worlds.{name}"] for name in Episodes._fields})
    except DrivenOtherwiseError as error:
        raise _driven_otherwise(str(error)) from None
    other = [name for name, array in seen.items() if not np.array_equal(array, arrays[f"seen.{name}"])]
    if other:
        raise _driven_otherwise(f"another {', '.join(other)} is observed where the episodes that were under way stood.")
    learner._last_obs, learner._last_episode_starts = seen, arrays["learner.starts"]
    learner._n_updates = int(arrays["learner.updates"])
    if hasattr(learner, "_last_lstm_states"):
        a, b, c, d = (torch.from_numpy(arrays[f"learner.memory.{place}"].copy()) for place in range(4))
        learner._last_lstm_states = RNNStates((a, b), (c, d))
    ended = (arrays[f"ended.{name}"].tolist() for name in ("returns", "steps", "collisions"))
    learner.ep_info_buffer = deque(
        ({"r": r, "l": steps, "collision": hit} for r, steps, hit in zip(*ended, strict=True)),
        maxlen=learner._stats_window_size,
    )
    learner.ep_success_buffer = deque(maxlen=learner._stats_window_size)


def _flat(states: RNNStates) -> list[torch.Tensor]:
    return [*states.pi, *states.vf]


def _driven_otherwise(what: str) -> InputMismatchError:
    return InputMismatchError(
        f"{what.rstrip('.')}; go on with the versions that the training was begun with (made_with in its checkpoint)."
    )
