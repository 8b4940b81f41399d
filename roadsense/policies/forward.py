"""The network's forward pass as a kernel: no torch, and the same bits alone and in a batch."""

from __future__ import annotations

import math

import numpy as np

from roadsense.convoy.observation import EGO_SCALES, PEER_SCALES
from roadsense.jit import counted_kernel, kernel


@kernel
def _dense(x, weight, bias, y):
    """y = bias + x · weight; ``weight`` is [in, out]."""
    inputs, outputs = weight.shape
    for j in range(outputs):
        y[j] = bias[j]
    for i in range(inputs):
        for j in range(outputs):
            y[j] += x[i] * weight[i, j]


@kernel
def _relu(x, size):
    for j in range(size):
        x[j] = max(x[j], np.float32(0.0))


@kernel
def _sigmoid(x):
    return np.float32(1.0) / (np.float32(1.0) + np.float32(math.exp(-x)))


@kernel
def _is_finite(ego, peers, mask):
    """Whether all numbers that are read are: the ego's and those of used rows."""
    for value in ego:
        if not math.isfinite(value):
            return False
    for row in range(mask.shape[0]):
        if mask[row] != 0:
            for value in peers[row]:
                if not math.isfinite(value):
                    return False
    return True


@counted_kernel
def refuse(ego, peers, mask, actions):
    """Makes an action NaN, which is no decision, in every world whose observation holds NaN or infinity."""
    for w in range(ego.shape[0]):
        if not _is_finite(ego[w], peers[w], mask[w]):
            actions[w] = np.nan


@counted_kernel
def most_used(mask):
    """Most rows that a world uses."""
    most = 0
    for w in range(mask.shape[0]):
        count = 0
        for row in range(mask.shape[1]):
            if mask[w, row] != 0:
                count += 1
        most = max(most, count)
    return most


@counted_kernel
def pack(ego, peers, mask, raw_ego, raw_peers, packed_mask):
    """Writes raw values: of every world the used rows, in their order, to the front; further rows stay zeros.

    Args:
        ego, peers, mask: as in ``Observation``.
        raw_ego: [world, 4], written, in the units of the features.
        raw_peers: [world, row, 8], zeros, written; at least as many rows as a world uses.
        packed_mask: [world, row], zeros, written.
    """
    for w in range(mask.shape[0]):
        for i in range(ego.shape[1]):
            raw_ego[w, i] = ego[w, i] * EGO_SCALES[i]
        place = 0
        for row in range(mask.shape[1]):
            if mask[w, row] != 0:
                for i in range(peers.shape[2]):
                    raw_peers[w, place, i] = peers[w, row, i] * PEER_SCALES[i]
                packed_mask[w, place] = 1
                place += 1


@counted_kernel
def _remember(features, weight_in, weight_back, bias, hidden, cell, gates, back):
    """One LSTM step on ``hidden`` and ``cell`` in place; gates in the order i, f, g, o."""
    width = hidden.shape[0]
    _dense(features, weight_in, bias, gates)
    _dense(hidden, weight_back, np.zeros_like(bias), back)
    for j in range(width):
        enter, keep = _sigmoid(gates[j] + back[j]), _sigmoid(gates[width + j] + back[width + j])
        new = np.float32(math.tanh(gates[2 * width + j] + back[2 * width + j]))
        cell[j] = keep * cell[j] + enter * new
        out = _sigmoid(gates[3 * width + j] + back[3 * width + j])
        hidden[j] = out * np.float32(math.tanh(cell[j]))


@counted_kernel
def decide(ego, peers, mask, phi, memory, head, low, high, hidden, cell, actions):
    """Writes the clipped mean action of every world; NaN, and no new memory, where it saw NaN or infinity.

    Args:
        ego, peers, mask: observation, as in ``Observation``.
        phi, head: layers as (weight [in, out], bias [out]).
        memory: (input weight, recurrent weight, bias) of the LSTM; of width 0 for none.
        low, high: bounds of the action.
        hidden, cell: [world, lstm], rewritten.
        actions: [world] float64, written.
    """
    num_peer, num_ego = peers.shape[2], ego.shape[1]
    width = phi[-1][1].shape[0]
    widest = max(2 * width + num_ego, 4 * hidden.shape[1])
    for _, bias in phi:
        widest = max(widest, bias.shape[0])
    for _, bias in head:
        widest = max(widest, bias.shape[0])
    one, other = np.zeros(widest, np.float32), np.zeros(widest, np.float32)
    of_ego = np.zeros(phi[0][1].shape[0], np.float32)
    pooled = np.zeros(2 * width + num_ego, np.float32)
    for w in range(ego.shape[0]):
        if not _is_finite(ego[w], peers[w], mask[w]):
            actions[w] = np.nan
            continue
        _dense(ego[w], phi[0][0][num_peer:], phi[0][1], of_ego)
        pooled[:] = 0.0
        count = 0
        for row in range(mask.shape[1]):
            if mask[w, row] == 0:
                continue
            count += 1
            _dense(peers[w, row], phi[0][0][:num_peer], of_ego, one)
            _relu(one, of_ego.shape[0])
            for layer in range(1, len(phi)):
                _dense(one, phi[layer][0], phi[layer][1], other)
                _relu(other, phi[layer][1].shape[0])
                one, other = other, one
            for j in range(width):
                pooled[j] = max(pooled[j], one[j])
                pooled[width + j] += one[j]
        for j in range(width):
            pooled[width + j] /= np.float32(max(count, 1))
        pooled[2 * width :] = ego[w]
        one[: pooled.shape[0]] = pooled
        if hidden.shape[1] > 0:
            _remember(pooled, memory[0], memory[1], memory[2], hidden[w], cell[w], one, other)
            one[: hidden.shape[1]] = hidden[w]
        for layer in range(len(head) - 1):
            _dense(one, head[layer][0], head[layer][1], other)
            _relu(other, head[layer][1].shape[0])
            one, other = other, one
        _dense(one, head[-1][0], head[-1][1], other)
        actions[w] = min(max(np.float64(other[0]), low), high)
