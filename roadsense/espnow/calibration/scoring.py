"""Maximum likelihood for latencies of several directions that share one law: a level and a drift of its own for each.

Where the law begins its density has a sharp edge, and there the likelihood knows most about the shift; so messages are
taken as they are and not rounded. The density is computed once at fixed nodes and read between them in straight lines.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from roadsense.espnow.calibration.records import Floats, Ints

LEAST_DENSITY = 1e-12
"""Of what no law explains, so that one wrong time cannot veto a law."""

_NUDGE = 1e-4
_MOST_STEPS = 60
_ENOUGH_GAIN = 1e-4
_NODES_PER_STEP = 400  # of the clocks' steps, in which the edge lies
_BODY_MS, _BODY_NODE_MS, _TAIL_NODE_MS = 15.0, 0.02, 0.1


@dataclass(frozen=True)
class Messages:
    """What the likelihood is of; arrays are [message]."""

    x_ms: Floats
    clusters: Ints
    """Which are alike, numbered from 0."""
    groups: Ints
    """Which share a level and a drift, numbered from 0."""
    along: Floats
    """Where in its group each lies, about −½ to ½: what the drift is multiplied with."""


@dataclass(frozen=True)
class Likeliest:
    """Parameters: those of the law, then the level [ms] of each group, then its drift [ms from end to end]."""

    u: Floats
    covariance: Floats
    log_likelihood: float


def nodes_ms(step_ms: float, longest_ms: float) -> Floats:
    """Where the density is computed: densely about the edge, which clocks of that step smear by up to a step."""
    edge = step_ms / _NODES_PER_STEP * np.arange(-_NODES_PER_STEP - 1, _NODES_PER_STEP + 1)
    body = np.arange(edge[-1] + _BODY_NODE_MS, edge[-1] + _BODY_MS, _BODY_NODE_MS)
    return np.concatenate(
        [edge, body, np.arange(body[-1], longest_ms, _TAIL_NODE_MS)[1:], [max(longest_ms, 0.0) + 1e6]]
    )


def maximise(
    u: Floats, laws: int, messages: Messages, nodes: Floats, density_of: Callable[[Floats], Floats]
) -> Likeliest:
    """The likeliest parameters by Fisher scoring, and their covariance with messages of a cluster alike (sandwich).

    Information is the sum of squared scores; a step that gains nothing is damped until it does (Levenberg).

    Args:
        u: where to start: the law, the levels, the drifts.
        laws: how many of them are the law's.
        messages: the data.
        nodes: as of :func:`nodes_ms`.
        density_of: the density at the nodes of a law whose shift is 0, by its parameters.
    """
    groups = (len(u) - laws) // 2
    order = np.lexsort((messages.x_ms, messages.groups))  # tables are read several times faster in order
    messages = Messages(*(values[order] for values in vars(messages).values()))
    rows = np.arange(len(messages.x_ms))

    def beyond_ms(v: Floats) -> Floats:
        return messages.x_ms - v[laws + messages.groups] - v[laws + groups + messages.groups] * messages.along

    def log_density(y_ms: Floats, v: Floats) -> Floats:
        return np.log(np.interp(y_ms, nodes, np.maximum(density_of(v[:laws]), LEAST_DENSITY)))

    def scores_of(v: Floats) -> Floats:
        y_ms, scores = beyond_ms(v), np.zeros((len(rows), len(v)))
        for k, step in enumerate(_NUDGE * np.eye(len(v))[:laws]):
            scores[:, k] = (log_density(y_ms, v + step) - log_density(y_ms, v - step)) / (2.0 * _NUDGE)
        of_level = (log_density(y_ms - _NUDGE, v) - log_density(y_ms + _NUDGE, v)) / (2.0 * _NUDGE)
        scores[rows, laws + messages.groups] = of_level
        scores[rows, laws + groups + messages.groups] = of_level * messages.along
        return scores

    likelihood, damping = float(log_density(beyond_ms(u), u).sum()), 1e-3
    for _ in range(_MOST_STEPS):
        scores = scores_of(u)
        information, gradient, gain = scores.T @ scores, scores.sum(axis=0), 0.0
        while damping < 1e6 and gain <= 0.0:
            step = np.linalg.lstsq(information + damping * np.diag(np.diag(information)), gradient)[0]
            tried = u + np.clip(step, -1.0, 1.0)
            gain = float(log_density(beyond_ms(tried), tried).sum()) - likelihood
            damping *= 0.2 if gain > 0.0 else 10.0
        if gain <= 0.0:
            break
        u, likelihood, damping = tried, likelihood + gain, max(damping, 1e-6)
        if gain < _ENOUGH_GAIN:
            break
    scores = scores_of(u)
    sums = np.zeros((int(messages.clusters.max()) + 1, len(u)))
    np.add.at(sums, messages.clusters, scores)
    inverse = np.linalg.pinv(scores.T @ scores)
    return Likeliest(u, np.asarray(inverse @ (sums.T @ sums) @ inverse), likelihood)
