"""Trainings in processes of their own, which die by SIGKILL at a stated point.

As a script it reads one training a line, imports and compiles once, and forks for each: a process an algorithm and
point would cost ten seconds. No gradient was computed and no thread runs where it forks, so the fork is a safe one.
"""

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

POINTS = {
    "start": "before anything is written",
    "step": "in a rollout of PPO or a round of DAgger",
    "workers": "while workers drive a rollout or a round",
    "gradient": "in an update of PPO or a fit of DAgger",
    "validation": "after its first episode",
    "half": "while last.zip is written beside",
    "written": "before it is renamed",
    "renamed": "after it was renamed",
    "best": "after best.zip was renamed, with the last checkpoint an older one",
    "kept": "after a further checkpoint was written, before another one is removed",
    "experience": "after a round of DAgger's experience was written, before the checkpoint that counts on it",
    "finishing": "before training.json is renamed",
}


class Killer:
    """Runs trainings that are killed.

    Raises:
        AssertionError: one was not.
    """

    def __init__(self) -> None:
        self._script = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, config, point: str, nth: int = 1) -> None:
        assert self._script.stdin is not None and self._script.stdout is not None
        print(json.dumps([config.document(), point, nth]), file=self._script.stdin, flush=True)
        ended = self._script.stdout.readline().strip()
        assert ended == f"{-signal.SIGKILL}", f"{point} {nth}: ended with {ended}"

    def close(self) -> None:
        assert self._script.stdin is not None and self._script.stdout is not None
        self._script.stdin.close()
        self._script.wait(timeout=60)
        self._script.stdout.close()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _at(nth: int, function, before: bool = True, passed=None):
    """The function, whose nth call is the end; ``passed`` counts calls of several together."""
    passed = passed or itertools.count(1)

    def counted(*arguments, **named):
        call = next(passed)
        if call == nth and before:
            _die()
        result = function(*arguments, **named)
        if call == nth:
            _die()
        return result

    return counted


def _arm(point: str, nth: int) -> None:
    """Lets this process die there."""
    import torch

    from roadsense.training import sb3, validation
    from roadsense.training.driven_worlds import DrivenWorlds
    from roadsense.training.ray_workers import RayWorkers
    from roadsense.training.vec_env import ConvoyVecEnv

    if point == "start":
        sb3.build_model = _at(nth, sb3.build_model)
    elif point == "step":
        passed = itertools.count(1)
        ConvoyVecEnv.step_wait = _at(nth, ConvoyVecEnv.step_wait, False, passed)
        DrivenWorlds._move = _at(nth, DrivenWorlds._move, False, passed)
    elif point == "workers":
        RayWorkers.gather = _at(nth, RayWorkers.gather)
    elif point == "gradient":
        torch.optim.Adam.step = _at(nth, torch.optim.Adam.step, before=False)
    elif point == "validation":
        play, calls = validation.play, 0

        def played(*arguments, **named):
            nonlocal calls
            calls += 1
            for trace in play(*arguments, **named):
                yield trace
                if calls == nth:
                    _die()

        validation.play = played
    else:
        name, after = {
            "half": ("last.zip", False), "written": ("last.zip", False), "renamed": ("last.zip", True),
            "best": ("best.zip", True), "kept": ("step-", True), "experience": ("experience-", True),
            "finishing": ("training.json", False),
        }[point]  # fmt: skip
        replace, calls = os.replace, 0

        def replaced(beside, path):
            nonlocal calls
            ours = Path(path).name.startswith(name)
            calls += ours
            if ours and calls == nth and not after:
                if point == "half":
                    os.truncate(beside, os.path.getsize(beside) // 2)
                _die()
            replace(beside, path)
            if ours and calls == nth:
                _die()

        os.replace = replaced


def _warm() -> None:
    """Imports and compiles all that a training needs."""
    import numpy as np
    import torch

    from roadsense.policies.signature import Signature
    from roadsense.training.config import TrainConfig
    from roadsense.training.dagger import Imitation
    from roadsense.training.experience import training_player, validation_player
    from roadsense.training.model import actor_tensors, build_model
    from roadsense.training.validation import validate
    from roadsense.training.vec_env import ConvoyVecEnv

    torch.set_num_threads(1)
    config = TrainConfig(engine="native", algorithm="dagger", n_envs=2, n_steps=4, batch_size=8, eval_episodes=1)
    env, judged = ConvoyVecEnv(training_player(config)), validation_player(config)
    model = build_model(config, env)
    with tempfile.TemporaryDirectory() as folder:
        Imitation(config, env, model, Path(folder))._drive()
    tensors = actor_tensors(model)
    validate(judged, 1, tensors, Signature.of(tensors, config.widths, config.control, 1), 0)
    env.step(np.zeros((2, 1), np.float32))
    env.close()
    judged.close()


def main() -> None:
    """Reads trainings and writes how each ended."""
    from roadsense.training.config import TrainConfig
    from roadsense.training.sb3 import train

    _warm()
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    for line in sys.stdin:
        document, point, nth = json.loads(line)
        process = os.fork()
        if process == 0:
            _arm(point, nth)
            values = {name: tuple(v) if isinstance(v, list) else v for name, v in document.items() if name in fields}
            train(TrainConfig(**values), progress=False)
            os._exit(0)
        _, status = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
