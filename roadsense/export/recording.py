"""What a run's policy sees: in suites, to compare formats on, and in ``val/``, to calibrate them on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from roadsense.convoy.observation import Observation
from roadsense.evaluation.evaluate import EpisodeList, EvaluationConfig, open_worlds
from roadsense.evaluation.rollout import observations_of, play_all
from roadsense.export.sets import joined
from roadsense.policies.runtime import Policy
from roadsense.traffic.engines import choose_engine

SUITES = ("matrix", "calm")
"""Where formats are compared: hazards with every number of peers, and none."""
_WORLDS = 64
_CALIBRATION_EPISODES = 64


@dataclass(frozen=True, kw_only=True)
class Recording:
    """Decisions along the leading axis."""

    observations: Observation
    """To compare on."""
    calibration: Observation
    """To calibrate on; suites choose nothing, not even a scale."""
    origin: dict[str, Any]
    """Where they are from."""


def record(run_dir: str | Path, *, dataset_dir: str | None = None, max_peers: int | None = None) -> Recording:
    """Plays one episode of every bucket of :data:`SUITES`, and some of ``val/``.

    Args:
        run_dir: the run folder.
        dataset_dir: whose ``val/`` is played; None: the built-in scenarios.
        max_peers: cars that its worlds have room for; None: as many as it lists.

    Raises:
        UsageError, RoadsenseError, InputMismatchError: see :meth:`roadsense.policies.runtime.Policy.load`.
    """
    policy = Policy.load(run_dir)
    parts, suites = [], {}
    for suite in SUITES:
        seen, facts = _seen(policy, EvaluationConfig(suite=suite, episodes_per_bucket=1))
        parts.append(seen)
        suites[suite] = {**facts["suite"], **_counts(facts, seen)}
    calibration, facts = _seen(policy, EvaluationConfig(
        dataset_dir=dataset_dir, split="val", episodes=_CALIBRATION_EPISODES, max_peers=max_peers
    ))  # fmt: skip
    calibrated_on = {"split": facts["split"], "dataset_digest": facts["dataset_digest"], **_counts(facts, calibration)}
    return Recording(
        observations=joined(parts), calibration=calibration, origin={"suites": suites, "calibrated_on": calibrated_on}
    )


def _seen(policy: Policy, config: EvaluationConfig) -> tuple[Observation, dict[str, Any]]:
    """What it sees in a list of episodes, and which list that is."""
    listed = EpisodeList(config)
    try:
        engine = choose_engine("auto", listed.scenarios)
        worlds = open_worlds(policy, engine, _WORLDS if engine == "native" else 1, listed.max_peers)
        try:
            seen = observations_of(play_all(policy, worlds, listed.episodes, observations=True))
        finally:
            worlds.close()
    finally:
        listed.close()
    return seen, listed.identity


def _counts(identity: dict[str, Any], seen: Observation) -> dict[str, int]:
    return {"episodes": identity["episodes"], "decisions": len(seen.ego)}
