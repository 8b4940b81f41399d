"""The radio of a batch of worlds as an object: arrays and the kernels over them, without Gymnasium."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from roadsense.espnow.kernels import begin_episode, step_radio
from roadsense.espnow.params import RadioParams
from roadsense.espnow.state import RadioArrays, RadioState
from roadsense.espnow.tables import TABLE_DTYPE, GammaQuantiles, fill_tables


class Emulator:
    """Radio and sensors of ``num_worlds`` worlds of up to ``max_cars`` cars, the ego in column 0.

    Example:
        >>> from roadsense.espnow.profiles import read_params
        >>> emulator = Emulator(num_worlds=1, max_cars=2, messages_per_peer=1)
        >>> emulator.reset(world=0, seed=7, params=read_params("ideal"))
        >>> x, still = np.array([[0.0, 30.0]]), np.zeros((1, 2))
        >>> here = np.ones((1, 2), np.bool_)
        >>> for step in range(2):
        ...     emulator.step(np.array([step]), x, still, still, still, still, here, here)
        >>> float(emulator.state.message_x_m[0, 1, 0])
        30.0

    Attributes:
        tables: [world] of ``TABLE_DTYPE``, parameters in force.
        arrays: all that is kept, rewritten in place by ``step``; for kernels.
        state: what was measured and heard, views of it.
        seeds: [world] uint64, episode seeds.
    """

    def __init__(self, num_worlds: int, max_cars: int, messages_per_peer: int = 1, max_frames: int = 0) -> None:
        self.num_worlds, self.max_cars, self.messages_per_peer = num_worlds, max_cars, messages_per_peer
        self.tables = np.zeros(num_worlds, TABLE_DTYPE)
        self._quantiles = GammaQuantiles(num_worlds)
        self.arrays = RadioArrays.zeros(num_worlds, max_cars, messages_per_peer, self._quantiles.rows, max_frames)
        self.state = RadioState.of(self.arrays)
        self.seeds = np.zeros(num_worlds, np.uint64)
        self._in_force: list[RadioParams | None] = [None] * num_worlds  # where the tables hold them as they are
        self._all = np.ones(num_worlds, np.bool_)

    def reset(self, world: int, seed: int, params: RadioParams, randomise: bool = False) -> None:
        """Begins an episode in one world with empty tables.

        Args:
            world: which one.
            seed: of the episode; every random number of the radio follows from it.
            params: parameters.
            randomise: whether they are varied within ``params.randomisation``.
        """
        self.prepare(world, seed, params, randomise)
        begin_episode(self.tables, self.arrays, self.seeds, world)

    def prepare(self, world: int, seed: int, params: RadioParams, randomise: bool = False) -> None:
        """Puts parameters in force in one world, for whoever begins its episode; see :meth:`reset`."""
        if randomise or self._in_force[world] is not params:
            fill_tables(self.tables, self._quantiles, world, params, seed if randomise else None)
            self._in_force[world] = None if randomise else params
        self.seeds[world] = seed

    def step(
        self,
        step: NDArray[np.int64],
        x_m: NDArray[np.float64],
        y_m: NDArray[np.float64],
        speed_mps: NDArray[np.float64],
        accel_mps2: NDArray[np.float64],
        heading_rad: NDArray[np.float64],
        alive: NDArray[np.bool_],
        transmits: NDArray[np.bool_],
        active: NDArray[np.bool_] | None = None,
    ) -> None:
        """Moves the ``active`` worlds (default: all) to the end of a step; see :func:`.kernels.step_radio`."""
        step_radio(
            self.tables, self.arrays, self.seeds, step, x_m, y_m, speed_mps, accel_mps2, heading_rad, alive, transmits,
            self._all if active is None else active, 0, self.num_worlds,
        )  # fmt: skip
