"""Many worlds of the convoy as a Gymnasium vector environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from roadsense.convoy.arguments import check_names, checked, mapping, seed_of
from roadsense.convoy.core import HORIZON_STEPS, RENDERING, check_render_mode
from roadsense.convoy.player import Player
from roadsense.convoy.show import make_show
from roadsense.convoy.spaces import action_space, observation_space
from roadsense.convoy.world import MAX_PEERS, is_termination, is_truncation
from roadsense.errors import ActionError, UsageError, nearest


class ConvoyVectorEnv(gym.vector.VectorEnv[dict[str, NDArray[Any]], NDArray[np.float32], NDArray[Any]]):
    """``num_envs`` worlds stepped together; world i of a batch seeded s is the environment seeded s + i.

    Args:
        num_envs: how many worlds.
        autoreset_mode: NEXT_STEP (default), SAME_STEP or DISABLED, as in Gymnasium.
        max_peers: as in :class:`roadsense.convoy.env.ConvoyEnv`, like all further arguments.
    """

    def __init__(
        self,
        num_envs: int = 1,
        *,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        control: str = "brake",
        max_peers: int = MAX_PEERS,
        messages_per_peer: int = 1,
        horizon_steps: int = HORIZON_STEPS,
        render_mode: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.closed = True  # until there is something to close
        num_envs = checked(num_envs=num_envs)["num_envs"]
        if num_envs < 1:
            raise UsageError(f"num_envs is {num_envs}; it must be at least 1.")
        modes = [mode.value for mode in AutoresetMode]
        if not isinstance(autoreset_mode, AutoresetMode) and autoreset_mode not in modes:
            raise UsageError(f"autoreset_mode {autoreset_mode!r} is unknown; {nearest(str(autoreset_mode), modes)}")
        check_render_mode(render_mode)
        self.num_envs, self.render_mode = num_envs, render_mode
        self._show = make_show(render_mode)
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**RENDERING, "autoreset_mode": self.autoreset_mode}
        self.player = Player(
            num_envs, control=control, max_peers=max_peers, messages_per_peer=messages_per_peer,
            horizon_steps=horizon_steps, **kwargs,
        )  # fmt: skip
        self.closed = False
        self.worlds = self.player.worlds
        self.single_observation_space = observation_space(self.player.config.num_rows)
        self.single_action_space = action_space(control)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._ended = np.zeros(num_envs, np.bool_)
        self._rooted = False  # whether every world has a seed that its episodes come from
        self._begun = np.zeros(num_envs, np.bool_)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Begins an episode in every world, or in those of ``options["reset_mask"]``.

        Args:
            seed: of the batch, or a list with one seed (or None: its next episode) a world.
            options: as in :class:`roadsense.convoy.env.ConvoyEnv`, and ``reset_mask``, a bool array [world].

        Raises:
            ValueError: there are not as many seeds, or entries of the mask, as worlds.
            UsageError: a seed is no whole number or negative, or an option is unknown.
        """
        options = dict(mapping(options))
        check_names(options, "reset_mask")
        chosen = self._reset_mask(options.pop("reset_mask", None))
        roots: list[int | None] = [None] * self.num_envs
        first: int | None = None
        listed: Any = seed.tolist() if isinstance(seed, np.ndarray) else seed  # a number where the array has no axis
        if isinstance(listed, Sequence) and not isinstance(listed, str | bytes):
            roots = [None if one is None else seed_of(one) for one in listed]
        elif seed is not None:
            first = seed_of(seed)
            roots = [first + world for world in range(self.num_envs)]
        super().reset(seed=first)
        if len(roots) != self.num_envs:
            raise ValueError(f"{len(roots)} seeds for {self.num_envs} worlds; give one seed a world, or one int.")
        if not self._rooted:
            for world, root in enumerate(self.np_random.integers(2**31, size=self.num_envs).tolist()):
                self.player.reseed(world, root)
            self._rooted = True
        for world, root in enumerate(roots):
            if root is not None and chosen[world]:
                self.player.reseed(world, root)
        self.player.begin(chosen, options)
        self._ended[chosen] = False
        self._begun[chosen] = True
        if self._show is not None and self._begun.all():
            self._show.moved(self.worlds)
        return self._observation(), self._info(chosen)

    def _reset_mask(self, given: Any) -> NDArray[np.bool_]:
        mask = np.ones(self.num_envs, np.bool_) if given is None else np.asarray(given)
        if mask.dtype != np.bool_ or mask.shape != (self.num_envs,) or not mask.any():
            raise ValueError(
                f"reset_mask must be {self.num_envs} booleans, at least one of them True; it is {given!r}."
            )
        return mask

    def step(
        self, actions: NDArray[np.float32]
    ) -> tuple[dict[str, NDArray[Any]], NDArray[Any], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Applies one action a world; ended worlds are reset as the autoreset mode says."""
        if not self._begun.all():
            raise gym.error.ResetNeeded("a world was never reset; call reset() for all of them before step().")
        asked = self._asked(actions)
        restart = self._ended.copy() if self.autoreset_mode == AutoresetMode.NEXT_STEP else np.zeros_like(self._ended)
        if self.autoreset_mode == AutoresetMode.DISABLED and self._ended.any():
            raise ValueError("a world has ended; reset it with options={'reset_mask': ...} before stepping on.")
        self.worlds.step(asked, ~restart)
        if restart.any():
            self.player.begin(restart)
        reasons = self.worlds.records["end_reason"].copy()
        rewards, terminated, truncated = self.worlds.rewards.copy(), is_termination(reasons), is_truncation(reasons)
        self._ended = reasons > 0
        info: dict[str, Any] = {}
        if self.autoreset_mode == AutoresetMode.SAME_STEP and self._ended.any():
            info = {
                "final_obs": self._final_observations(),
                "_final_obs": self._ended.copy(),
                "final_info": self._info(self._ended),
                "_final_info": self._ended.copy(),
            }
            self.player.begin(self._ended)
            self._ended = np.zeros_like(self._ended)
        if self._show is not None:
            self._show.moved(self.worlds)
        return self._observation(), rewards, terminated, truncated, {**self._info(np.ones_like(self._ended)), **info}

    def _asked(self, actions: Any) -> NDArray[np.float64]:
        """One number a world, [world].

        Raises:
            ActionError: the actions are no numbers, or not [world, 1] or [world].
        """
        try:
            asked = np.asarray(actions, np.float64)
        except (TypeError, ValueError):
            raise ActionError(f"the actions are {actions!r}; give an array of numbers, [{self.num_envs}, 1].") from None
        if asked.shape not in ((self.num_envs, 1), (self.num_envs,)):
            raise ActionError(f"the actions have shape {asked.shape}; give one a world, ({self.num_envs}, 1).")
        return asked.reshape(self.num_envs)

    def _observation(self) -> dict[str, NDArray[Any]]:
        return {name: array.copy() for name, array in self.worlds.observation._asdict().items()}

    def _final_observations(self) -> NDArray[np.object_]:
        """One observation for each ended world, None for the others, as Gymnasium's wrappers expect them."""
        seen, found = self.worlds.observation, np.full(self.num_envs, None, object)
        for world in np.flatnonzero(self._ended):
            found[world] = {name: array[world].copy() for name, array in seen._asdict().items()}
        return found

    def _info(self, present: NDArray[np.bool_]) -> dict[str, Any]:
        """Infos in Gymnasium's batched form: every key with a mask ``_key`` of the worlds that state it."""
        info: dict[str, Any] = {}
        for name, value in self.worlds.infos().items():
            if isinstance(value, dict):
                value = {key: array.copy() for key, array in value.items()}
                value.update({f"_{key}": present.copy() for key in list(value)})
            else:
                value = value.copy()
            info[name], info[f"_{name}"] = value, present.copy()
        return info

    def render(self) -> tuple[str | NDArray[np.uint8], ...] | None:  # type: ignore[override]
        """A line of text or a picture a world, as :meth:`roadsense.convoy.env.ConvoyEnv.render`; None where a window
        shows the first worlds.
        """
        if self._show is None:
            gym.logger.warn('render() needs a render_mode at gym.make_vec: "ansi", "rgb_array" or "human".')
            return None
        return self._show.of(self.worlds)

    def close_extras(self, **kwargs: Any) -> None:
        """Gives the engines back."""
        self.player.close()
        if self._show is not None:
            self._show.close()
