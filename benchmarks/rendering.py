"""Pictures per second of `render_mode="rgb_array"`, against environment steps, in turns within one process.

    python benchmarks/rendering.py [--rounds 20] [--json FILE]

A round drives some steps on each base road, then draws the world it came to many times. Figures are medians over
rounds. Prints and writes JSON with versions.
"""

from __future__ import annotations

import statistics
import time

import gymnasium as gym
import numpy as np
from report import parse, report

import roadsense  # noqa: F401
from roadsense.convoy.rendering import HEIGHT, WIDTH

STEPS, PICTURES = 100, 20
ROADS = ("straight", "curve", "arterial")


def main() -> None:
    asked = parse(__doc__, rounds=20)
    action, results = np.zeros(1, np.float32), []
    for road in ROADS:
        env = gym.make("Convoy-v0", engine="native", scenario_list=[road], render_mode="rgb_array")
        env.reset(seed=0)
        env.render()
        steps_per_s, pictures_per_s = [], []
        for _ in range(asked.rounds):
            env.reset()
            began = time.perf_counter()
            for _ in range(STEPS):
                env.step(action)
            between = time.perf_counter()
            for _ in range(PICTURES):
                env.render()
            steps_per_s.append(STEPS / (between - began))
            pictures_per_s.append(PICTURES / (time.perf_counter() - between))
        env.close()
        results.append({
            "road": road, "width": WIDTH, "height": HEIGHT, "rounds": asked.rounds,
            "pictures_per_s": round(statistics.median(pictures_per_s), 1),
            "pictures_per_s_slowest_round": round(min(pictures_per_s), 1),
            "steps_per_s": round(statistics.median(steps_per_s)),
        })  # fmt: skip
    report("rendering", ("gymnasium", "numpy"), results, asked.json)


if __name__ == "__main__":
    main()
