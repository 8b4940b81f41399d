"""Link-packets of the radio per second, in turns with bare sensing, within one process.

    python benchmarks/radio.py [--rounds 15] [--json FILE]

A link-packet is one beacon on one directed link; all cars send, everybody hears everybody, one medium, relays on (what
is relayed is not counted). The reference is the same call with all radios off, that is, the cars' sensors alone. Both
alternate, because a shared machine changes its speed from one second to the next; figures are medians over rounds.
Prints and writes JSON with versions.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
from report import parse, report

from roadsense.espnow.emulator import Emulator
from roadsense.espnow.params import RadioParams
from roadsense.espnow.profiles import read_params

SIZES = ((1, 6), (256, 6), (256, 12), (256, 24))
"""(environments, cars) that are measured."""

LINK_PACKETS = 1_500_000
"""About as many in each measurement."""


class Convoy:
    """Cars at 25 m and 20 m/s that keep going; a measurement moves them on by some steps."""

    def __init__(self, params: RadioParams, worlds: int, cars: int, radios: bool) -> None:
        self.emulator = Emulator(worlds, cars)
        for world in range(worlds):
            self.emulator.reset(world, world, params)
        shape = (worlds, cars)
        self.start_m, self.zero = np.tile(25.0 * np.arange(cars), (worlds, 1)), np.zeros(shape)
        self.speed_mps, self.alive, self.transmits = np.full(shape, 20.0), np.ones(shape, bool), np.full(shape, radios)
        self.tick = 0
        self.run(20)

    def run(self, steps: int) -> float:
        """Seconds of a step."""
        began = time.perf_counter()
        for _ in range(steps):
            self.emulator.step(
                np.full(len(self.start_m), self.tick), self.start_m + 2.0 * self.tick, self.zero, self.speed_mps,
                self.zero, self.zero, self.alive, self.transmits,
            )  # fmt: skip
            self.tick += 1
        return (time.perf_counter() - began) / steps


def main() -> None:
    arguments = parse(__doc__, rounds=15)
    params = read_params("convoy")
    convoys = {size: [Convoy(params, *size, radios=radios) for radios in (True, False)] for size in SIZES}
    seconds: dict[tuple[int, int], list[tuple[float, float]]] = {size: [] for size in SIZES}
    for _ in range(arguments.rounds):
        for (worlds, cars), (sending, silent) in convoys.items():
            steps = max(10, LINK_PACKETS // (worlds * cars * (cars - 1)) // 4)
            seconds[worlds, cars].append((sending.run(steps), silent.run(steps)))
    results = []
    for (worlds, cars), pairs in seconds.items():
        links = worlds * cars * (cars - 1)
        sending_s = statistics.median(sending for sending, _ in pairs) / worlds
        results.append({
            "environments": worlds,
            "cars": cars,
            "rounds": len(pairs),
            "link_packets_per_s": round(statistics.median(links / sending for sending, _ in pairs)),
            "step_us_per_environment": round(1e6 * sending_s, 3),
            "step_ns_per_cars_squared": round(1e9 * sending_s / cars**2, 1),
            "sensors_alone_us": round(1e6 * statistics.median(silent for _, silent in pairs) / worlds, 3),
            "ratio_to_sensors_alone": round(statistics.median(sending / silent for sending, silent in pairs), 2),
        })  # fmt: skip
    report("radio", ("numba", "numpy"), results, arguments.json)


if __name__ == "__main__":
    main()
