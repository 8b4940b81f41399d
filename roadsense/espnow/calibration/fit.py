"""From figures to a params file: what was measured, and for the rest what the profile ``convoy`` states.

Every section says in its provenance which of its values are which.
"""

from __future__ import annotations

import json
import math
from typing import Any

from roadsense.espnow.calibration.figures import Figure
from roadsense.espnow.calibration.findings import Findings
from roadsense.espnow.calibration.gps_law import FROZEN_M
from roadsense.espnow.calibration.measure import Measured
from roadsense.espnow.params import RadioParams, parse_params
from roadsense.espnow.profiles import read_params
from roadsense.espnow.sections import least_mean_burst

BASE = "convoy"
"""The profile that stands in for what was not measured."""

BURST_INTERVAL_MS = 100.0
"""Parameters state the mean burst for beacons of this interval, whatever theirs is."""

_BORROWED = f"not measured; as in the profile {BASE}"


def least_latency_ms(base: RadioParams | None = None) -> float:
    """What the physics gives for the least latency: airtime, and the boards' software as in a profile."""
    base = base or read_params(BASE)
    return base.latency.shift_ms + _airtime_ms(base)


def fit_params(measured: Measured, name: str, source: str, findings: Findings) -> RadioParams:
    """Parameters that the emulator reads.

    Args:
        measured: the figures.
        name: of the parameters.
        source: what the logs are; begins the provenance.
        findings: takes what could not be used as measured.
    """
    base = read_params(BASE)
    document = base.model_dump(mode="json")
    why = {"source": source}
    document |= {
        "name": name,
        "beacon": _beacon(measured, document["beacon"], why),
        "loss": _loss(measured, base, why),
        "latency": _latency(measured, base, why, findings),
        "gps": _gps(measured, document["gps"], why, findings),
        "noise": _noise(measured, document["noise"], why),
    }
    for section in ("phy", "relays", "placement", "propagation", "alarms", "randomisation"):
        if document.get(section) is not None:
            why[section] = _BORROWED
    why["stale_after_ms"] = _BORROWED
    document["provenance"] = why
    return parse_params(json.dumps(document), f"fitted parameters {name!r}")


def _said(figure: Figure) -> str:
    return f"{figure.name} {figure.text()}, n {figure.n}" + (f" ({figure.note})" if figure.note else "")


def _beacon(measured: Measured, base: dict[str, Any], why: dict[str, str]) -> dict[str, Any]:
    interval, spread = measured.interval_ms, measured.drift_sd_ppm
    found, said = dict(base), []
    if interval is not None:
        found["interval_ms"] = min(max(round(interval.value, 3), 20.0), 1000.0)
        said.append(_said(interval))
    if spread is not None:
        found["drift_ppm_sd"] = min(spread.value, 1000.0)
        said.append(_said(spread))
    why["beacon"] = "; ".join([*said, f"what a clock shows at t = 0 is {_BORROWED}"])
    return found


def _loss(measured: Measured, base: RadioParams, why: dict[str, str]) -> dict[str, Any]:
    """The measured steps. An unmeasured one is no better than the last measured one before it."""
    shares: list[float] = []
    bursts: list[float] = []
    said, borrowed = [], []
    for step in measured.steps:
        usual = max(k for k, begin in enumerate(base.loss.from_m) if begin <= step.from_m)
        if step.loss is None:
            shares.append(max([base.loss.probability[usual], *shares[-1:]]))
            bursts.append(max([base.loss.mean_burst[usual], *bursts[-1:]]))
            borrowed.append(f"{step.from_m:g}")
            continue
        shares.append(step.loss.value)
        said += [_said(figure) for figure in (step.loss, step.burst) if figure is not None]
        if step.burst is None or not math.isfinite(step.burst.value):
            bursts.append(base.loss.mean_burst[usual])
            continue
        apart_ms = step.interval_ms or (measured.interval_ms.value if measured.interval_ms else BURST_INTERVAL_MS)
        bursts.append(burst_every(BURST_INTERVAL_MS, step.burst.value, step.loss.value, apart_ms))
        if abs(apart_ms - BURST_INTERVAL_MS) > 0.01 * BURST_INTERVAL_MS:
            text = f"which is {bursts[-1]:.2f} for frames every {BURST_INTERVAL_MS:g} ms instead of {apart_ms:.4g} ms"
            said[-1] = f"{said[-1]}, {text}"
    possible = [burst if share == 1.0 else max(burst, least_mean_burst(share))
                for share, burst in zip(shares, bursts, strict=True)]  # fmt: skip
    bad = ", ".join(link.name for link in measured.bad_links)
    if bad:
        said.append(f"without the bad links {bad}")
    if borrowed:
        said.append(f"steps from {', '.join(borrowed)} m: not measured, the worse of the step before and {BASE}")
    edges = [step.from_m for step in measured.steps]
    range_m = max(base.loss.range_m, edges[-1] + 1.0)
    said.append(f"range {range_m:g} m: {_BORROWED}")
    why["loss"] = "; ".join(said)
    return {"from_m": edges, "probability": shares, "mean_burst": possible, "range_m": range_m}


def burst_every(wanted_ms: float, burst: float, loss: float, interval_ms: float) -> float:
    """The mean burst in frames of another interval, of a link that loses the same share of them.

    The state of a Gilbert–Elliott link is correlated with itself a time t later by memory^t: a burst ends with
    1 / burst = (1 − loss) (1 − memory^interval).
    """
    arriving = (1.0 - loss) * burst
    if arriving <= 1.0:  # independent losses, or all lost
        return burst
    memory = (1.0 - 1.0 / arriving) ** (wanted_ms / interval_ms)
    return 1.0 / ((1.0 - loss) * (1.0 - memory))


def _latency(measured: Measured, base: RadioParams, why: dict[str, str], findings: Findings) -> dict[str, Any]:
    law = measured.latency
    if law is None:
        why["latency"] = _BORROWED
        return base.latency.model_dump(mode="json")
    airtime_ms = _airtime_ms(base)
    shift = law.shift_ms.value - airtime_ms
    if shift < 0.0:
        text = f"least latency {law.shift_ms.value:.2f} ms is less than the airtime {airtime_ms:.2f} ms; shift set to 0"
        findings.add("latency_below_airtime", "latency", text)
    said = [measured.latency_source, *map(_said, law.figures())]
    if base.phy is not None:
        said.append(f"the airtime of {airtime_ms:.3f} ms is taken off the shift, because phy adds it")
    why["latency"] = "; ".join(said)
    begin = min(max(0.0, law.tail_from_ms.value), 1000.0)
    return {
        "shift_ms": max(0.0, shift), "shape": min(max(law.shape.value, 0.1), 1000.0),
        "scale_ms": min(law.scale_ms.value, 1000.0), "tail_probability": law.tail_probability.value,
        "tail_ms": [begin, min(max(begin, law.tail_to_ms.value), 1000.0)],
    }  # fmt: skip


def _airtime_ms(base: RadioParams) -> float:
    return 1000.0 * base.phy.airtime_s if base.phy is not None else 0.0


def _gps(measured: Measured, base: dict[str, Any], why: dict[str, str], findings: Findings) -> dict[str, Any]:
    found, said = dict(base), []
    if measured.fixes is not None:
        held, changes_per_s = measured.fixes
        found["extrapolate"] = not held
        if held:
            found["rate_hz"] = min(max(round(changes_per_s, 2), 0.1), 10.0)
            said.append(f"positions stand still between {changes_per_s:.2f} fixes a second")
        else:
            said.append(f"positions are carried on between fixes; fixes a second are {_BORROWED}")
    error = measured.gps
    if error is not None and error.sigma_m.high < FROZEN_M:
        text = f"positions of standing boards vary by {error.sigma_m.value:.2f} m only, as if the receiver held them"
        findings.add("gps_frozen", "gps", f"{text}; the error in motion is not measured")
        error = None
    if error is None:
        why["gps"] = "; ".join([*said, f"error: {_BORROWED}"])
        return found
    found["sigma_m"] = min(error.sigma_m.value, 50.0)
    said.append(_said(error.sigma_m))
    if math.isfinite(error.tau_s.high):
        found["tau_s"] = error.tau_s.value
        said.append(_said(error.tau_s))
    else:
        said.append(f"correlation time at least {error.tau_s.low:.0f} s; {_BORROWED}")
    why["gps"] = "; ".join([*said, "measured at rest, taken to hold in motion"])
    return found


def _noise(measured: Measured, base: dict[str, Any], why: dict[str, str]) -> dict[str, Any]:
    found, said = dict(base), []
    for key, noise in measured.noise.items():
        if noise.best is None:
            said.append(f"{key}: {_BORROWED}")
        else:
            limit = {"speed_mps": 10.0, "accel_mps2": 20.0, "heading_deg": 90.0}[key]
            found[key] = min(noise.best.value, limit)
            said.append(_said(noise.best))
    why["noise"] = "; ".join(said)
    return found
