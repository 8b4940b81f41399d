"""Notes what became of every frame, for whoever measures the radio."""

from __future__ import annotations

import math

from roadsense.jit import kernel


@kernel
def record(frames, frame_count, arrivals, listeners, world, turn, number, source, generation, hops, sent_s, x, y):
    """Appends a frame at every car that it was played for; counts it also where there is no room left.

    Args:
        frames: [n] of ``FRAME_DTYPE``.
        frame_count: [1], rewritten.
        arrivals: [car], when it arrived: inf if it was lost, NaN where it was not played.
        listeners: how many cars.
        world, turn, number, source, generation, hops, sent_s: what it was.
        x, y: [car] positions [m].
    """
    for receiver in range(listeners):
        if math.isnan(arrivals[receiver]):
            continue
        if frame_count[0] < frames.shape[0]:
            frame = frames[frame_count[0]]
            dx, dy = x[turn.car] - x[receiver], y[turn.car] - y[receiver]
            frame.world, frame.sender, frame.receiver, frame.source = world, turn.car, receiver, source
            frame.sent_s, frame.arrival_s, frame.distance_m = sent_s, arrivals[receiver], math.sqrt(dx * dx + dy * dy)
            frame.generation, frame.hops, frame.collided = generation, hops, number < turn.collided
        frame_count[0] += 1
