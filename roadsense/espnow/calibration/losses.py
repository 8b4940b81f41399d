"""Loss and bursts by distance over healthy links; links that are bad for themselves are left out by name.

Frames that met another board's on the air may have collided, which the emulator plays beside the loss of a link. They
are left out, so that they do not count twice.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from roadsense.errors import UsageError, nearest
from roadsense.espnow.calibration.figures import Figure, loss_share, mean_burst
from roadsense.espnow.calibration.findings import Findings
from roadsense.espnow.calibration.records import Bools, Floats, Ints
from roadsense.espnow.calibration.traces import Link
from roadsense.statistics import CONFIDENCE

FEWEST_FRAMES = 200
"""A step of distance with fewer frames is not measured."""

BAD_LOSS = 0.6
"""A link that loses this share, where the other links of the same distances lose less than half of it, is bad."""


MOST_MET = 0.5
"""A link of which more frames than this share met another board's is told: what is left may be no fair sample."""


@dataclass(frozen=True)
class Outcomes:
    """Frames of several links, one after the other; arrays are [frame]."""

    lost: Bools
    follows: Bools
    cluster: Ints
    """Sender and block of time: one frame's fate at two receivers is one event when it collides."""


def gather(links: Sequence[Link], inside: Sequence[Bools] | None = None) -> Outcomes:
    """Frames of some links that had the medium to themselves, within a mask each.

    A frame whose predecessor is left out follows nobody.
    """
    if not links:
        return Outcomes(np.zeros(0, np.bool_), np.zeros(0, np.bool_), np.zeros(0, np.int64))
    lost, follows, cluster = [], [], []
    senders = sorted({link.sender for link in links})
    for place, link in enumerate(links):
        rows = np.flatnonzero(link.free if inside is None else link.free & inside[place])
        lost.append(link.lost[rows])
        follows.append(link.follows[rows] & (np.diff(rows, prepend=-2) == 1))
        cluster.append(link.block[rows] + 10**12 * senders.index(link.sender))
    _, numbered = np.unique(np.concatenate(cluster), return_inverse=True)
    return Outcomes(np.concatenate(lost), np.concatenate(follows), numbered)


@dataclass(frozen=True)
class LossStep:
    """One step of distance; figures are None where too few frames were sent over it."""

    from_m: float
    to_m: float
    loss: Figure | None
    burst: Figure | None
    interval_ms: float | None = None
    """Between the frames that bursts are counted in, where it is not that of beacons."""


def steps_of(distance_m: Floats, edges_m: Sequence[float]) -> Ints:
    """The step that each distance falls into; −1 where it is unknown."""
    step = np.searchsorted(np.asarray(edges_m), np.nan_to_num(distance_m, nan=-1.0), side="right") - 1
    return np.where(np.isfinite(distance_m), step, -1)


def loss_by_distance(links: Sequence[Link], edges_m: Sequence[float], confidence: float = CONFIDENCE) -> list[LossStep]:
    """Loss and mean burst in every step of distance, the last one open."""
    found = []
    steps = [steps_of(link.distance_m, edges_m) for link in links]
    for number, (begin, end) in enumerate(zip(edges_m, [*edges_m[1:], np.inf], strict=True)):
        where = f"{begin:g}–{end:g} m" if np.isfinite(end) else f"{begin:g} m and more"
        frames = gather(links, [step == number for step in steps])
        if len(frames.lost) < FEWEST_FRAMES:
            found.append(LossStep(begin, end, None, None))
            continue
        loss = loss_share(f"loss at {where}", frames.lost, frames.cluster, confidence)
        burst = mean_burst(f"mean burst at {where}", frames.lost, frames.follows, frames.cluster, confidence)
        found.append(LossStep(begin, end, loss, burst))
    return found


def tell_unmeasured(
    links: Sequence[Link], steps: Sequence[LossStep], edges_m: Sequence[float], findings: Findings
) -> None:
    """Says which links lose most of their frames to other boards' on the air, and why no loss was measured at all."""
    for link in links:
        met = int((~link.free).sum())
        if met > MOST_MET * len(link.free):
            text = f"{met} of {len(link.free)} frames were sent while another board sent; left out of loss and latency"
            findings.add("shared_air", link.name, text)
    if any(step.loss is not None for step in steps):
        return
    free = sum(int(link.free.sum()) for link in links)
    known = sum(int((link.free & (steps_of(link.distance_m, edges_m) >= 0)).sum()) for link in links)
    text = (
        f"{len(links)} healthy links have {sum(len(link.free) for link in links)} frames, {free} of them alone on the "
        f"air and {known} of these over a known distance; a step needs {FEWEST_FRAMES}"
    )
    findings.add("loss_not_measured", "loss", f"{text}; as in the profile convoy")


def split_bad(
    links: Sequence[Link], edges_m: Sequence[float], excluded: Collection[str], findings: Findings
) -> tuple[list[Link], list[Link]]:
    """Healthy links and bad ones: those named, and those that lose far more than others over the same distances.

    Args:
        links: all of them.
        edges_m: begins of the steps of distance.
        excluded: names as ``V003:V001`` or ``V003→V001``, sender first.
        findings: one for every bad link.

    Raises:
        UsageError: a name is that of no link.
    """
    names = {link.name.replace("→", ":") for link in links}
    asked = {name.replace("→", ":") for name in excluded}
    for name in sorted(asked - names):
        raise UsageError(f"--exclude {name} is no link of these logs; {nearest(name, names)}")
    healthy, bad = [], []
    for link in links:
        share = float(link.lost.mean())
        if link.name.replace("→", ":") in asked:
            findings.add("bad_link", link.name, f"loses {share:.0%} of {len(link.lost)} frames; left out, as asked")
            bad.append(link)
        elif share >= BAD_LOSS and (others := _others(link, links, edges_m)) is not None and others < share / 2.0:
            text = f"loses {share:.0%} of {len(link.lost)} frames, other links over the same distances {others:.0%}"
            findings.add("bad_link", link.name, f"{text}; left out")
            bad.append(link)
        else:
            if share >= BAD_LOSS:
                text = f"loses {share:.0%} and no link over the same distances is much better; not left out"
                findings.add("lossy_link", link.name, text)
            healthy.append(link)
    return healthy, bad


def _others(link: Link, links: Sequence[Link], edges_m: Sequence[float]) -> float | None:
    """Median over the other links of their loss over a link's distances; None where there is none to compare with."""
    own = np.bincount(steps_of(link.distance_m, edges_m) + 1, minlength=len(edges_m) + 1)[1:]
    shares = []
    for other in links:
        step = steps_of(other.distance_m, edges_m)
        common = [k for k in range(len(edges_m)) if own[k] and (step == k).sum() >= FEWEST_FRAMES]
        if other is not link and common:
            shares.append(float(np.average([other.lost[step == k].mean() for k in common], weights=own[common])))
    return float(np.median(shares)) if shares else None
