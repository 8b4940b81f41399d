"""Radios by name: the shipped profiles, files, and profiles made worse on purpose.

A degradation shows what the radio is worth with one flag. All but ``off`` change the profile ``convoy``:

======================  ==================================================================================
``off``                 nothing arrives, and the car's own sensors are exact
``delayed:<ms>``        every message arrives that much later
``lossy:<p>,<burst>``   a share p of the beacons is lost, ``burst`` in a row on average, on every link; a third
                        number is the standard deviation of the GPS error [m]
``spoofed``             every 10 s one of the cars tells for 2 s that it brakes with 8 m/s², and does not
======================  ==================================================================================
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from roadsense._data import params_dir
from roadsense.errors import ParamsError, UsageError, nearest
from roadsense.espnow.flat import from_flat, is_flat
from roadsense.espnow.params import RadioParams, parse_params
from roadsense.espnow.sections import Alarms

OFF, SPOOFED = "off", "spoofed"
DEGRADED_PROFILE = "convoy"
"""What degradations make worse."""


def shipped_names() -> list[str]:
    """Names of the profiles that have a file."""
    return sorted(path.stem for path in (params_dir() / "espnow").glob("*.json"))


def radio_names() -> list[str]:
    """Names of all radios; those of degradations with the figures they take."""
    return [*shipped_names(), OFF, "delayed:<ms>", "lossy:<p>,<burst>", SPOOFED]


def read_params(name_or_path: str | Path) -> RadioParams:
    """Reads a radio by name (``"convoy"``, ``"lossy:0.3,4.6"``) or any ``.json`` file by path.

    Raises:
        UsageError: no radio has that name.
        ParamsError: there is no such file, it is not JSON, or it holds unknown or impossible values; the message
            names all of them.
    """
    path = params_path(name_or_path)
    if path is not None:
        return _read(path)
    name, _, figures = str(name_or_path).partition(":")
    return _DEGRADATIONS[name](str(name_or_path), figures)


def params_path(name_or_path: str | Path) -> Path | None:
    """The file that :func:`read_params` reads; None for a degradation, which has none.

    Raises:
        UsageError: no radio has that name.
    """
    if isinstance(name_or_path, Path) or "/" in name_or_path or name_or_path.endswith(".json"):
        return Path(name_or_path)
    kind = name_or_path.partition(":")[0]
    if kind in _DEGRADATIONS:
        return None
    if name_or_path not in shipped_names():
        raise UsageError(
            f"radio {name_or_path!r} is unknown; {nearest(kind, [*shipped_names(), *_DEGRADATIONS])} "
            "A file is given by its path, ending in .json."
        )
    return params_dir() / "espnow" / f"{name_or_path}.json"


def _read(path: Path) -> RadioParams:
    try:
        text: str | bytes = path.read_bytes()
    except OSError as error:
        raise ParamsError(
            f"{path}: cannot be read ({error.strerror}); give a params file or one of {', '.join(radio_names())}."
        ) from None
    try:
        document = json.loads(text)
    except ValueError:
        document = None  # which the parser tells
    if is_flat(document):
        text = json.dumps(from_flat(document, path.stem, str(path)))
    return parse_params(text, str(path))


def _changed(base: str, name: str, why: str, **sections: dict[str, Any] | None) -> RadioParams:
    """A profile under a new name, validated like a file: fields of sections replaced, or a whole one left out."""
    document = read_params(base).model_dump(mode="json")
    for section, fields in sections.items():
        document[section] = None if fields is None else {**(document[section] or {}), **fields}
    document |= {"name": name, "provenance": {**document["provenance"], "degradation": why}}
    return parse_params(json.dumps(document), f"radio {name!r}")


def _off(name: str, figures: str) -> RadioParams:
    _figures(name, figures, ())
    silence = {"from_m": (0.0,), "probability": (1.0,), "mean_burst": (1.0,)}
    return _changed("ideal", name, "by definition everything is lost", loss=silence)


def _delayed(name: str, figures: str) -> RadioParams:
    (delay_ms,) = _figures(name, figures, ("ms",))
    latency = read_params(DEGRADED_PROFILE).latency
    why = f"every message {delay_ms:g} ms later than in {DEGRADED_PROFILE}"
    return _changed(DEGRADED_PROFILE, name, why, latency={"shift_ms": latency.shift_ms + delay_ms})


def _lossy(name: str, figures: str) -> RadioParams:
    wanted = ("p", "burst") if figures.count(",") < 2 else ("p", "burst", "gps_m")
    share, burst, *gps_m = _figures(name, figures, wanted)
    flat = {"from_m": (0.0,), "probability": (share,), "mean_burst": (burst,)}
    why = f"loss {share:g} in bursts of {burst:g} on every link, wherever its boards are mounted"
    sections: dict[str, dict[str, Any] | None] = {"loss": flat, "placement": None}
    if gps_m:
        sections["gps"] = {"sigma_m": gps_m[0]}
        why += f", positions wrong by {gps_m[0]:g} m"
    return _changed(DEGRADED_PROFILE, name, why, **sections)


def _spoofed(name: str, figures: str) -> RadioParams:
    _figures(name, figures, ())
    why = "now and then a car tells that it brakes hard, and does not"
    return _changed(DEGRADED_PROFILE, name, why, alarms=Alarms().model_dump())


def _figures(name: str, text: str, wanted: tuple[str, ...]) -> list[float]:
    parts = text.split(",") if text else []
    try:
        found = [float(part) for part in parts]
    except ValueError:
        found = []
    if len(found) != len(wanted) or len(found) != len(parts) or min(found, default=0.0) < 0.0:
        kind = name.partition(":")[0]
        form = f"{kind}:{','.join(f'<{one}>' for one in wanted)}" if wanted else kind
        raise UsageError(f"radio {name!r}: give it as {form}, in numbers that are not negative.")
    return found


_DEGRADATIONS: dict[str, Callable[[str, str], RadioParams]] = {
    OFF: _off, "delayed": _delayed, "lossy": _lossy, SPOOFED: _spoofed,
}  # fmt: skip
"""By the part of a name before the colon; each gets the whole name and what stands behind the colon."""
