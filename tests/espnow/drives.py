"""Cars on a line, driven past an emulator tick by tick."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np

from roadsense.espnow.emulator import Emulator
from roadsense.espnow.params import RadioParams
from roadsense.espnow.profiles import read_params

STEP_S = 0.1


def changed(name: str, **sections: dict[str, object]) -> RadioParams:
    """A shipped parameter set with some values of some sections replaced, validated anew."""
    document = read_params(name).model_dump()
    for section, values in sections.items():
        document[section] = {**document[section], **values} if isinstance(values, dict) else values
    return RadioParams.model_validate(document)


def links_alone(name: str, **sections: dict[str, object]) -> RadioParams:
    """A shipped parameter set of which only links are left: no common medium, nobody relays, all boards alike."""
    return changed(name, **sections, phy=None, relays=None, placement=None)


def with_sections(name: str, **sections: dict[str, object]) -> RadioParams:
    """A shipped parameter set with optional sections in force; what they do not state has its default."""
    document = read_params(name).model_dump(mode="json")
    return RadioParams.model_validate_json(json.dumps({**document, **sections}))


class Drive:
    """Cars that keep their speed along x; reported accelerations are the number of the tick, so messages are dated.

    Args:
        params: of the radio.
        ahead_m: distance of every peer from the ego.
        speed_mps: of all cars.
        seeds: one world each.
        first: number of the first tick.
    """

    def __init__(self, params, ahead_m, *, speed_mps=0.0, seeds=(7,), first=0, max_cars=None, kept=1, randomise=False):
        cars = len(ahead_m) + 1
        shape = (len(seeds), max_cars or cars)
        self.emulator = Emulator(*shape, messages_per_peer=kept)
        for world, seed in enumerate(seeds):
            self.emulator.reset(world, seed, params, randomise)
        self.state, self.arrays = self.emulator.state, self.emulator.arrays
        self.start_x = np.zeros(shape)
        self.start_x[:, 1:cars] = ahead_m
        self.speed = np.full(shape, float(speed_mps))
        self.alive = np.zeros(shape, np.bool_)
        self.alive[:, :cars] = True
        self.transmits = np.ones(shape, np.bool_)
        self.active = np.ones(len(seeds), np.bool_)
        self.tick = first - 1
        self.zero = np.zeros(shape)
        self.y = self.zero

    @property
    def now_s(self) -> float:
        return self.tick * STEP_S

    def x(self, tick) -> np.ndarray:
        return self.start_x + self.speed * STEP_S * tick

    def step(self) -> None:
        self.tick += 1
        shape = self.zero.shape
        self.emulator.step(
            np.full(shape[0], self.tick), self.x(self.tick), self.y, self.speed, np.full(shape, float(self.tick)),
            self.zero, self.alive, self.transmits, self.active,
        )  # fmt: skip

    def steps(self, count: int) -> Iterator[int]:
        """Takes ``count`` steps, stopping after each for a look."""
        for _ in range(count):
            self.step()
            yield self.tick

    def run(self, count: int) -> Drive:
        for _ in self.steps(count):
            pass
        return self

    def snapshot(self) -> dict[str, np.ndarray]:
        """Copies of what readers see, unused message entries blanked."""
        used = np.arange(self.state.message_x_m.shape[2]) < self.state.message_count[..., None]
        return {
            name: np.where(used, array, 0) if name.startswith("message_") and array.ndim == 3 else array.copy()
            for name, array in self.state._asdict().items()
        }
