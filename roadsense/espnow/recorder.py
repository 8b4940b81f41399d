"""Notes what became of every frame, for whoever measures the radio."""

from __future__ import annotations

from roadsense.jit import inlined


@inlined
def record(
    frames, frame_count, world, sender, receiver, source, generation, sent_s, arrival_s, distance_m, hops, collided
):  # fmt: skip
    """Appends a frame at one car; counts it also where there is no room left.

    Args:
        frames: [n] of ``FRAME_DTYPE``.
        frame_count: [1], rewritten.
        world, sender, receiver, source, generation, sent_s, arrival_s, distance_m, hops, collided: what to note.
    """
    if frame_count[0] < frames.shape[0]:
        frame = frames[frame_count[0]]
        frame.world, frame.sender, frame.receiver, frame.source = world, sender, receiver, source
        frame.sent_s, frame.arrival_s, frame.distance_m = sent_s, arrival_s, distance_m
        frame.generation, frame.hops, frame.collided = generation, hops, collided
    frame_count[0] += 1
