"""Whether an exported file drives as the network does: the same episodes, the same gates."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from roadsense.comparison import mcnemar, paired_bootstrap
from roadsense.evaluation.evaluate import Evaluation, EvaluationConfig, evaluate
from roadsense.evaluation.gates import RUN, SIGNIFICANT, Gate, Judge, paired_bounds, read_gates
from roadsense.evaluation.journal import Row
from roadsense.evaluation.metrics import EpisodeMetrics
from roadsense.export.formats import open_format
from roadsense.export.network import NETWORK, load_network
from roadsense.files import json_number
from roadsense.policies.base import BatchPolicy
from roadsense.policies.baselines import make_baseline

SUITE = "matrix"

MORE_EVENTS = 0.004
"""Where a format collides, or leaves hazards unanswered, more often than the network: largest upper bound of the
difference. Of 3,024 hazards that is four more; chance alone (McNemar's test) would let five pass."""
MORE_FALSE_BRAKES = 1.1
"""A format that brakes for nothing more often than so many times the network, beyond chance, is another policy."""
LATER_S = 0.05
"""And so is one that reacts later by more than half a step on average, beyond chance."""


@dataclass(frozen=True, kw_only=True)
class ClosedLoopConfig:
    """How formats are played."""

    gates: str = "default"
    """Gates by name or file: those of the suite that the network passes, every format must pass."""
    episodes_per_bucket: int | None = None
    """At most so many episodes of each bucket; None: all that the suite states."""


def play_formats(
    run_dir: str | Path, formats: Sequence[str], config: ClosedLoopConfig, *, folder: Path | None = None,
    progress: bool = True,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Plays the network and every named format over the suite, and compares them.

    Args:
        run_dir: the run folder, which has the formats.
        formats: names.
        config: gates, and how many episodes.
        folder: where episodes are kept as they end; a call that was stopped goes on there.
        progress: whether to show a bar on stderr.

    Returns:
        By format: ``passed``, ``why`` it did not, and the figures beside the network's, by radio.

    Raises:
        UsageError, InputMismatchError, RoadsenseError: see :func:`roadsense.export.formats.open_format`.
    """
    run_dir = Path(run_dir)
    network = load_network(run_dir)
    played: dict[str, BatchPolicy] = {}
    for name in formats:
        policy = open_format(run_dir, name)
        policy.name = name
        played[name] = policy
    return compare_policies(network, played, config, folder=folder, progress=progress)


def compare_policies(
    network: BatchPolicy, formats: dict[str, BatchPolicy], config: ClosedLoopConfig, *, folder: Path | None = None,
    progress: bool = True,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """As :func:`play_formats`, of policies that are open, each named as its key; the network is named so."""
    gates = [
        gate for gate in read_gates(config.gates).gates if Path(gate.suite or "").stem == SUITE and gate.policy == RUN
    ]
    rules = sorted({name for gate in gates for name in gate.policies if name.partition(":")[0] != RUN})
    policies = [network, *formats.values(), *map(make_baseline, rules)]
    asked = EvaluationConfig(suite=SUITE, engine="native", episodes_per_bucket=config.episodes_per_bucket)
    played = evaluate(policies, asked, folder=folder, progress=progress)
    gates = [gate for gate in gates if not any(name.startswith(f"{RUN}:") for name in gate.policies)]
    reference = _verdicts(played, gates, NETWORK)
    return {name: _compared(played, gates, reference, name) for name in formats}


def _verdicts(played: Evaluation, gates: Sequence[Gate], name: str) -> list[bool]:
    judge = Judge({str(gate.suite): played for gate in gates}, name, {})
    return [judge.judge(gate).passed for gate in gates]


def _compared(played: Evaluation, gates: Sequence[Gate], reference: Sequence[bool], name: str) -> dict[str, Any]:
    rows = {policy: [row for row in played.rows if row.policy == policy] for policy in (NETWORK, name)}
    verdicts = _verdicts(played, gates, name)
    found, why = {}, []
    for radio in dict.fromkeys(row.radio for row in rows[NETWORK]):
        pairs = _pairs(rows[name], rows[NETWORK], radio)
        if not pairs:
            why.append(f"{radio}: there is no episode that is valid for both")
            continue
        found[radio], reasons = _figures(pairs)
        why += [f"{radio}: {reason}" for reason in reasons]
    broken = [row for row in rows[name] if row.metrics.failure]
    if broken:
        why.append(f"it broke off {len(broken)} episodes; episode {broken[0].episode}: {broken[0].metrics.failure}")
    lost = [gate for gate, own, theirs in zip(gates, verdicts, reference, strict=True) if theirs and not own]
    why += [f"it fails a gate that the network passes, {gate.group}: {gate.name}" for gate in lost]
    suite = played.identity["suite"]
    return {
        "passed": not why, **({"why": "; ".join(why)} if why else {}),
        "suite": suite, "episodes": len(rows[name]), "radios": found,
        "gates": {"asked": len(gates), "passed": sum(verdicts), "passed_by_network": sum(reference)},
    }  # fmt: skip


def _pairs(own: Sequence[Row], others: Sequence[Row], radio: str) -> list[tuple[EpisodeMetrics, EpisodeMetrics]]:
    """Valid episodes of both, under one radio."""
    both = [(one.metrics, other.metrics) for one, other in zip(own, others, strict=True) if one.radio == radio]
    return [(one, other) for one, other in both if one.valid and other.valid]


def _figures(pairs: Sequence[tuple[EpisodeMetrics, EpisodeMetrics]]) -> tuple[dict[str, Any], list[str]]:
    """Collisions, hazards without a reaction, and false brakes beside the network's; and what is out of bounds."""
    hazards = [(one, other) for one, other in pairs if one.tested and other.tested]
    called = [
        (one, other)
        for one, other in pairs
        if all(each.hazard_happened and each.hazard_called for each in (one, other))
    ]
    collisions = _events(hazards, lambda episode: episode.crashed)
    silent = _events(called, lambda episode: not (episode.reacted or episode.braking_at_onset))
    braked = _false_brakes(pairs)
    why = [
        f"it {what} in {facts['format']} of {facts['n']} hazards, the network in {facts['network']}"
        f" (p = {facts['p']:.2g}, the difference is at most {facts['high']:.2g})"
        for what, facts in (("collides", collisions), ("does not react", silent))
        if facts["format"] > facts["network"] and (facts["p"] < SIGNIFICANT or facts["high"] > MORE_EVENTS)
    ]
    if (braked["low"] or 0.0) > 0.0 and braked["format"] > MORE_FALSE_BRAKES * braked["network"]:
        why.append(
            f"it brakes for nothing {braked['format']:.3g} times per calm km, the network {braked['network']:.3g} (the"
            f" difference is at least {braked['low']:.2g})"
        )
    reactions = _reactions(called)
    if (reactions["low"] or 0.0) > 0.0 and reactions["later"] > LATER_S:
        why.append(f"it reacts {reactions['later']:.3g} s later (at least {reactions['low']:.2g} s)")
    figures = {
        "collisions_in_hazards": collisions, "never_reacted": silent, "false_brakes_per_calm_km": braked,
        "reaction_from_onset_s": reactions,
    }  # fmt: skip
    return figures, why


def _events(
    pairs: Sequence[tuple[EpisodeMetrics, EpisodeMetrics]], happened: Callable[[EpisodeMetrics], bool]
) -> dict[str, Any]:
    """How often something happened to both, the difference of the rates with its bounds, and McNemar's test."""
    own, network = [happened(one) for one, _ in pairs], [happened(other) for _, other in pairs]
    test = mcnemar(own, network)
    low, high = paired_bounds(test, own, network, [one.scenario_id for one, _ in pairs])
    return {
        "format": sum(own), "network": sum(network), "n": len(pairs), "only_format": test.b, "only_network": test.c,
        "p": test.p, "low": low, "high": high,
    }  # fmt: skip


def _false_brakes(pairs: Sequence[tuple[EpisodeMetrics, EpisodeMetrics]]) -> dict[str, Any]:
    """False brakes per calm kilometre of both, and the difference with its bounds."""
    own, network = zip(*pairs, strict=True)
    counts = [[float(episode.false_brakes) for episode in one] for one in (own, network)]
    calm_km = [[episode.calm_distance_km for episode in one] for one in (own, network)]
    rates = [sum(count) / sum(km) if sum(km) else math.nan for count, km in zip(counts, calm_km, strict=True)]
    apart = paired_bootstrap(
        counts[0], counts[1], [episode.scenario_id for episode in own], first_over=calm_km[0], second_over=calm_km[1]
    )
    figures = {"format": rates[0], "network": rates[1], "low": apart.low, "high": apart.high}
    return {"n": len(pairs), **{name: json_number(value) for name, value in figures.items()}}


def _reactions(pairs: Sequence[tuple[EpisodeMetrics, EpisodeMetrics]]) -> dict[str, Any]:
    """Median and 95th percentile of the time to the first braking where both began one, and how much later it is."""
    known = [
        (one.reaction_from_onset_s, other.reaction_from_onset_s, one.scenario_id)
        for one, other in pairs
        if not math.isnan(one.reaction_from_onset_s) and not math.isnan(other.reaction_from_onset_s)
    ]
    if not known:
        none = {"p50": None, "p95": None}
        return {"n": 0, "format": none, "network": none, "later": None, "low": None, "high": None}
    own, network, scenarios = zip(*known, strict=True)
    found: dict[str, Any] = {"n": len(known)}
    for name, times in (("format", own), ("network", network)):
        found[name] = dict(zip(("p50", "p95"), np.percentile(times, (50, 95), method="higher").tolist(), strict=True))
    apart = paired_bootstrap(own, network, scenarios)
    return {**found, "later": apart.value, "low": json_number(apart.low), "high": json_number(apart.high)}
