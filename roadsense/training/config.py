"""What a training is told: a preset or YAML file, then overrides from the command line."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from roadsense._data import params_dir
from roadsense.convoy.world import Control
from roadsense.errors import InputMismatchError, ParamsError, RoadsenseError, UsageError, explain, nearest
from roadsense.policies.signature import Widths
from roadsense.traffic.engines import ENGINES
from roadsense.training.ray_connection import check_address

ALGORITHMS = ("ppo", "recurrent-ppo", "dagger", "dagger+ppo", "rllib-ppo")
WITH_WORKERS = ("ppo", "dagger", "dagger+ppo")
"""Those whose worlds Ray workers can drive."""
PRESETS = tuple(sorted(path.stem for path in (params_dir() / "train").glob("*.yaml")))
"""Names of the shipped presets."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything a training depends on; two trainings with equal configs give the same weights."""

    dataset_dir: str | None = None
    """Root of the dataset trained on (its split ``train``); none: the built-in scenarios."""
    eval_dir: str | None = None
    """Root of the dataset whose split ``val`` selects the best checkpoint; none: ``dataset_dir``."""
    run_dir: str = "runs/train"
    """Folder of the result."""
    seed: int = 0
    """Seeds weights, exploration and episodes; world i is seeded seed + i."""
    emulator_params: str | None = None
    """Radio parameters instead of the dataset's: a name or a JSON file."""
    further_radios: tuple[str, ...] = ()
    """More of them: every episode of training and validation draws one of these and the one above."""
    control: str = "brake"
    """``brake`` (assistant over a driver) or ``acceleration`` (the policy drives alone)."""
    messages_per_peer: int = 1
    """Newest messages of each peer in the observation."""
    max_peers: int | None = None
    """Cars that a world has room for beside V001; none: as many as the scenarios list, at least 16 with a flow."""
    engine: str = "sumo"
    """Who moves the cars: ``sumo``, ``native`` (SUMO's car following, many times as fast) or ``auto``."""

    init_from: str | None = None
    """Run folder or checkpoint whose weights a new training begins with; none: random ones."""
    algorithm: str = "ppo"
    """``ppo``, ``recurrent-ppo``, ``dagger`` (imitates an oracle), ``dagger+ppo`` (one after the other), or
    ``rllib-ppo`` (PPO of RLlib)."""
    total_timesteps: int = 1_000_000
    """Steps of experience over all worlds; rounded up to whole rollouts."""
    n_envs: int = 8
    """Worlds that drive side by side; with ``sumo`` each is a process."""
    n_env_runners: int = 0
    """Processes that ``rllib-ppo`` spreads the worlds over; 0: they are in the learner's. Each number of them gives
    other weights."""
    n_steps: int = 512
    """Steps of each world between two updates."""
    batch_size: int = 1024
    """Most steps in one gradient; the largest part of ``n_envs * n_steps`` up to it is taken."""
    n_epochs: int = 10
    """Passes over a rollout in one update."""
    learning_rate: float = 5e-4
    """Of Adam, at the start."""
    learning_rate_end: float = 1e-4
    """Of Adam, at the end; linear in between, and all the time of PPO after DAgger."""
    gamma: float = 0.99
    """Discount of a step."""
    gae_lambda: float = 0.95
    """Decay of generalised advantage estimation."""
    clip_range: float = 0.2
    """Clip range of PPO."""
    vf_coef: float = 0.5
    """Weight of the critic's loss."""
    max_grad_norm: float = 0.5
    """Largest norm of a gradient."""
    target_kl: float | None = None
    """Ends an update early above 1.5 times this divergence; none: never."""
    reward_clip: float = 100.0
    """Largest normalised reward; lower ones (10 is common) make a hard collision cost no more than a soft one."""
    log_std_start: float = -1.0
    """Logarithm of the exploration noise at the start; annealed, not learned. From -2, which seldom passes
    the dead band, nothing was learned in 160,000 steps."""
    log_std_end: float = -3.4
    """And at the end: clipped noise can only brake, and the policy must not come to rely on it."""
    initial_action: float = -0.1
    """Mean action at the start; a little below 0, so that noise seldom passes the dead band."""

    dagger_timesteps: int | None = None
    """Steps of ``dagger+ppo`` that are DAgger's, the first ones; none: half of them."""
    critic_warmup: int = 100_000
    """Steps of ``dagger+ppo`` after DAgger's in which the critic learns alone: a fresh one would ruin the student."""
    reminders: int = 50
    """Minibatches of DAgger's experience after each update of ``dagger+ppo``: PPO alone forgets the teacher's care."""
    dagger_margin_m: float = 8.0
    """Gap that the teacher leaves in hazards beyond the oracle's 2 m: what the student may be wrong about [m]."""
    dagger_stop_s: float = 1.0
    """For that gap alone the teacher never stops a car in less than this time [s]."""
    dagger_match: float = 1.0
    """Share of the next car's deceleration with which the teacher brakes at least in a hazard."""
    dagger_creep_mps2: float = 1.0
    """What the teacher brakes with at least where a slow car creeps up to the next one [m/s²]."""
    dagger_ordinary_mps2: float = 3.0
    """Required deceleration from which the teacher acts where there is no hazard and the driver looks [m/s²]."""
    dagger_student_share: float = 0.5
    """Share of worlds that the student drives; the teacher drives the others, and all in the first round."""
    dagger_braking_weight: float = 16.0
    """Weight of samples in which the teacher brakes and the student at least as hard."""
    dagger_short_weight: float = 16.0
    """Weight of samples in which the teacher brakes and the student brakes less."""
    dagger_gradients: int = 400
    """Minibatches of ``batch_size`` after each round of ``n_envs * n_steps`` steps."""
    dagger_average: float = 0.999
    """Share of the running mean of weights that stays with each gradient; the mean is the policy. 0: the last weights
    are."""
    dagger_most_samples: int = 600_000
    """Samples kept; beyond it the oldest rounds are forgotten."""

    phi_widths: tuple[int, ...] = (32, 32)
    """Widths of the encoder of a peer row."""
    head_widths: tuple[int, ...] = (64,)
    """Widths of the actor's hidden layers after pooling."""
    critic_widths: tuple[int, ...] = (64, 64)
    """Widths of the critic's hidden layers after pooling; its encoder is its own."""
    lstm_width: int = 16
    """Width of the memory of ``recurrent-ppo``."""

    eval_every: int = 100_000
    """Steps between two validations."""
    eval_episodes: int = 40
    """Episodes of a validation, always the same ones."""
    checkpoint_every: int = 100_000
    """Steps between two checkpoints."""
    keep_best: int = 3
    """Checkpoints that are kept beside the last and the best one: those that did best on ``val``."""
    torch_threads: int = 1
    """Threads of torch; more gain nothing with networks of this size."""
    tensorboard: bool = True
    """Whether to write TensorBoard files."""

    workers: int = 0
    """Ray workers that drive the worlds, a divisor of ``n_envs``; 0: they are driven here. Any number but 0 gives the
    same weights."""
    ray_address: str | None = None
    """``auto`` or ``host:port`` of a Ray cluster whose workers drive; none: workers on this machine."""
    asynchronous: bool = False
    """Whether workers drive the next rollout of PPO while this one is learned from, with weights one update old."""
    fragment_limit_s: float = 60.0
    """A worker that takes longer for its ``n_steps`` counts as hung, and another one drives them again [s]."""

    worker_start_limit_s: float = 180.0
    """If no worker came up in that time, training ends with an error [s]; a cluster that grows first takes longer."""

    def __post_init__(self) -> None:
        _known("algorithm", self.algorithm, ALGORITHMS)
        _known("engine", self.engine, [engine for engine in ENGINES if engine != "traci"])
        _known("control", self.control, [control.name.lower() for control in Control])
        _require("max_peers", self.max_peers, self.max_peers is None or self.max_peers >= 1, "at least 1")
        for name in ("total_timesteps", "n_envs", "n_steps", "n_epochs", "messages_per_peer", "lstm_width",
                     "eval_every", "eval_episodes", "checkpoint_every", "torch_threads", "dagger_gradients",
                     "dagger_most_samples"):  # fmt: skip
            _require(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        _require("batch_size", self.batch_size, self.batch_size >= 2, "at least 2")
        rollout = self.n_envs * self.n_steps
        # one step's advantage cannot be normalised, so a prime number beyond batch_size cannot be cut
        _require("n_envs * n_steps", rollout, self.minibatch_size >= 2, "divisible into parts of 2 or more steps")
        self._check_runners()
        if self.dagger_steps and self.control != "brake":
            told = f"the teacher of {self.algorithm} only brakes; take 'brake', or --config ppo"
            raise UsageError(f"control is {self.control!r}; {told}.")
        average = self.dagger_average
        _require("dagger_average", average, 0.0 <= average < 1.0, "from 0 to below 1")
        share = self.dagger_student_share
        _require("dagger_student_share", share, 0.0 <= share <= 1.0, "from 0 to 1")
        _require("dagger_margin_m", self.dagger_margin_m, 0.0 <= self.dagger_margin_m <= 100.0, "from 0 to 100")
        for name in ("dagger_match", "dagger_creep_mps2", "dagger_ordinary_mps2"):
            _require(name, getattr(self, name), getattr(self, name) >= 0.0, "0 or more")
        _require("dagger_timesteps", self.dagger_timesteps, 0 < self._dagger_part < self.total_timesteps
                 or self.algorithm != "dagger+ppo", "at least 1 and less than total_timesteps")  # fmt: skip
        for name in ("critic_warmup", "reminders", "keep_best"):
            _require(name, getattr(self, name), getattr(self, name) >= 0, "0 or more")
        for name in (
            "learning_rate",
            "learning_rate_end",
            "dagger_stop_s",
            "dagger_braking_weight",
            "dagger_short_weight",
            "vf_coef",
            "max_grad_norm",
            "reward_clip",
        ):
            _require(name, getattr(self, name), getattr(self, name) > 0.0, "above 0")
        for name in ("gamma", "gae_lambda", "clip_range"):
            _require(name, getattr(self, name), 0.0 < getattr(self, name) <= 1.0, "above 0 and at most 1")
        for name in ("phi_widths", "head_widths", "critic_widths"):
            widths = getattr(self, name)
            _require(name, widths, len(widths) >= 1 and min(widths) >= 1, "one or more positive numbers")
        _require("seed", self.seed, 0 <= self.seed < 2**32 - self.n_envs, "from 0 to 2^32 - n_envs - 1")
        self._check_workers()

    def _check_workers(self) -> None:
        whole = self.workers >= 0 and (self.workers == 0 or self.n_envs % self.workers == 0)
        _require("workers", self.workers, whole, f"0 or a divisor of n_envs, which is {self.n_envs}")
        known = self.workers == 0 or self.algorithm in WITH_WORKERS
        _require("workers", self.workers, known, f"0 for {self.algorithm}; {', '.join(WITH_WORKERS)} can have them")
        for name in ("fragment_limit_s", "worker_start_limit_s"):
            _require(name, getattr(self, name), getattr(self, name) > 0.0, "above 0")
        if self.ray_address is not None:
            check_address(self.ray_address)
        _require("ray_address", self.ray_address, self.ray_address is None or self.workers > 0, "none without workers")
        reinforced = self.workers > 0 and self.dagger_steps < self.total_timesteps
        _require("asynchronous", self.asynchronous, not self.asynchronous or reinforced, "off without workers of PPO")

    def _check_runners(self) -> None:
        _require("n_env_runners", self.n_env_runners, self.n_env_runners >= 0, "0 or more")
        if self.algorithm != "rllib-ppo":
            _require("n_env_runners", self.n_env_runners, self.n_env_runners == 0, "0 but for rllib-ppo")
            return
        whole = self.n_env_runners == 0 or self.n_envs % self.n_env_runners == 0
        _require("n_envs", self.n_envs, whole, f"a multiple of n_env_runners, which is {self.n_env_runners}")
        _require("target_kl", self.target_kl, self.target_kl is None, "none for rllib-ppo, which ends no update early")
        _require("init_from", self.init_from, self.init_from is None, "none for rllib-ppo, which begins at random")

    @property
    def minibatch_size(self) -> int:
        """Steps in one gradient: a rollout is cut into equal parts, at most ``batch_size`` each."""
        rollout = self.n_envs * self.n_steps
        return next(size for size in range(min(self.batch_size, rollout), 0, -1) if rollout % size == 0)

    @property
    def _dagger_part(self) -> int:
        return self.total_timesteps // 2 if self.dagger_timesteps is None else self.dagger_timesteps

    @property
    def dagger_rounds(self) -> int:
        """Rounds of DAgger; 0: none."""
        wanted = {"dagger": self.total_timesteps, "dagger+ppo": self._dagger_part}.get(self.algorithm, 0)
        return -(-wanted // (self.n_envs * self.n_steps))

    @property
    def dagger_steps(self) -> int:
        """Steps of all worlds in the rounds of DAgger."""
        return self.dagger_rounds * self.n_envs * self.n_steps

    @property
    def critic_alone_until(self) -> int:
        """Step up to which the actor stays as DAgger left it."""
        return self.dagger_steps + self.critic_warmup if self.algorithm == "dagger+ppo" else 0

    @property
    def widths(self) -> Widths:
        """Layer widths of the actor."""
        lstm = self.lstm_width if self.algorithm == "recurrent-ppo" else 0
        return Widths(phi=self.phi_widths, lstm=lstm, head=self.head_widths)

    def document(self) -> dict[str, Any]:
        """The configuration as JSON."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in dataclasses.asdict(self).items()}


def decisive(document: Mapping[str, Any]) -> dict[str, Any]:
    """What of a configuration's document changes the weights that come of it: not where it was trained, or by whom."""
    beside = ("run_dir", "ray_address", "fragment_limit_s", "worker_start_limit_s")
    found = {key: value for key, value in document.items() if key not in beside}
    return {**found, "workers": bool(found["workers"])} if "workers" in found else found


def _known(name: str, value: str, choices: Any) -> None:
    if value not in choices:
        raise UsageError(f"{name} {value!r} is unknown; {nearest(value, choices)}")


def _require(name: str, value: object, holds: bool, what: str) -> None:
    if not holds:
        raise UsageError(f"{name} is {value}; it must be {what}.")


_ADAPTER: TypeAdapter[TrainConfig] = TypeAdapter(TrainConfig)
_FIELDS = tuple(field.name for field in dataclasses.fields(TrainConfig))


def _checked(values: Mapping[str, Any], where: str, kind: type[RoadsenseError]) -> None:
    for key in values:
        if key not in _FIELDS:
            raise kind(f"{where}: {key!r} is unknown; {nearest(str(key), _FIELDS)}")


def read_train_config(preset: str | Path = "standard", overrides: Mapping[str, Any] | None = None) -> TrainConfig:
    """A preset or a YAML file, with the given values put over it.

    Args:
        preset: ``quick``, ``standard``, or the path of a YAML file.
        overrides: field → value; None values are left out.

    Raises:
        UsageError: there is no such preset, or an override is unknown or impossible.
        ParamsError: the YAML file cannot be read, or holds an unknown or impossible value.
    """
    path = params_dir() / "train" / f"{preset}.yaml" if str(preset) in PRESETS else Path(preset)
    if path.suffix not in (".yaml", ".yml"):
        raise UsageError(f"preset {str(preset)!r} is unknown; {nearest(str(preset), PRESETS)}")
    try:
        stated = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file; give a YAML file or one of {', '.join(PRESETS)}.") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ParamsError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())}).") from None
    if not isinstance(stated, dict):
        raise ParamsError(f"{path}: must hold `name: value` lines.")
    _checked(stated, str(path), ParamsError)
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    _checked(given, "training options", UsageError)
    try:
        _validated(stated)
    except UsageError as error:
        # what is impossible in the file alone may be mended by an override, what has the wrong type may not
        if not given:
            raise ParamsError(f"{path}: {error}") from None
    return _validated({**stated, **given})


def recorded_config(values: Mapping[str, Any], where: Path) -> TrainConfig:
    """The configuration that a training recorded.

    Raises:
        InputMismatchError: another version did, with other fields or values.
    """
    other = sorted({*values} ^ {*_FIELDS})
    try:
        if other:
            raise UsageError(f"{', '.join(other)} stand in one and not in the other.")
        return _validated(values)
    except UsageError as error:
        raise InputMismatchError(f"{where}: is configured as this version cannot train ({error})") from None


def _validated(values: Mapping[str, Any]) -> TrainConfig:
    try:
        return _ADAPTER.validate_python(dict(values))
    except ValidationError as error:
        raise UsageError(f"{explain(error, TrainConfig)}.") from None


def overridden(config: TrainConfig, values: Mapping[str, Any]) -> TrainConfig:
    """A configuration with the given values put over it.

    Args:
        config: the one below.
        values: field → value; None is a value like any other.

    Raises:
        UsageError: a field is unknown, or a value impossible.
    """
    _checked(values, "training options", UsageError)
    return _validated({**config.document(), **values})
