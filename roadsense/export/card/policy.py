"""Sections of a card that follow from the signature: what the policy is for, what it reads, what its action means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from roadsense.convoy.control import HOLD_BELOW_MPS
from roadsense.export.card.text import bare, bullets, code, figure, paragraph, plain, section
from roadsense.markdown import table
from roadsense.policies.signature import Signature
from roadsense.traffic.base import STEP_S

_FOR = {
    "brake": "It assists the driver of a car that follows others in a convoy: from what those cars broadcast over"
    " ESP-NOW ten times a second it asks for braking, beside the driver, who drives.",
    "acceleration": "It is for research: it sets the acceleration of a car that follows others in a convoy, alone and"
    " without a driver, from what those cars broadcast over ESP-NOW ten times a second.",
}
_NEVER = (
    "**It is never the sole safety system.** It sees nothing and knows only what it is told by radio, as far as that"
    " arrives; it replaces neither a driver who looks nor an emergency brake that sees."
)
_NOT_FOR = (
    "Cars that do not transmit, pedestrians, cyclists, things on the road: it does not know that they are there.",
    "Cut-ins, lane changes, overtaking, crossing and oncoming traffic: none of them was trained or tested.",
    "Steering, and keeping a car at a standstill: it only ever asks for acceleration or braking.",
    "A channel on which anybody may send: messages are neither encrypted nor signed and their authenticity is not"
    " checked, so whoever can send can make the car brake, or claim that nobody brakes.",
)


def purpose(signature: Signature) -> str:
    """What it is for and what not."""
    return section(
        "What it is for", paragraph(_FOR[signature.control]), paragraph(_NEVER), "It is **not** for:", bullets(_NOT_FOR)
    )


def inputs(signature: Signature) -> str:
    """The observation as tables."""
    found = {one["name"]: one for one in signature.document()["inputs"]}
    k = signature.messages_per_peer
    rows = "a row for each car that is heard" if k == 1 else f"a row for each of the {k} newest messages of each car"
    parts = [
        paragraph(
            f"One observation each {bare(f'{STEP_S:g}')} s; every number is the raw value divided by its scale, then"
            " clipped to the bounds (which are of the divided value). ONNX files and engines take the raw values and do"
            " both themselves.",
            f"Layout hash {code(signature.layout_hash)}.",
        ),
        f"`ego`, float32 [{found['ego']['shape'][-1]}], the own car:",
        _features(found["ego"]["features"]),
        paragraph(
            f"`peers`, float32 [rows, {found['peers']['shape'][-1]}], {rows}, in any order and number (also none);"
            " `peer_mask`, int8 [rows], is 1 for a row that is used. Other rows hold zeros and are not read:"
        ),
        _features(found["peers"]["features"]),
    ]
    if signature.widths.lstm:
        parts.append(paragraph("It remembers what it saw: begin every drive with an empty memory (`policy.begin()`)."))
    return section("What it reads", *parts)


def _features(features: list[Mapping[str, Any]]) -> str:
    return table(
        ("#", "Feature", "Meaning", "Unit", "Scale", "Lowest", "Highest"),
        [
            (place, code(one["name"]), plain(one["meaning"]), plain(one["unit"]),
             *(figure(one[bound]) for bound in ("scale", "low", "high")))
            for place, one in enumerate(features)
        ],
    )  # fmt: skip


def action(signature: Signature, fallback: float) -> str:
    """What comes out, and what to do where nothing does."""
    about = signature.document()["action"]
    low, high, full, band = (figure(about[key]) for key in ("low", "high", "full_brake_mps2", "dead_band"))
    told = f"One number from {low} to {high}, the same for the same observation ({code(about['decoding'])})."
    if signature.control == "brake":
        meaning = [
            f"Below the dead band of {band} it asks for nothing, and the driver is left alone. From there on it asks"
            f" for a deceleration of {full} m/s² times the action; the harder of this and the driver's own braking"
            " counts.",
            "A request holds no car at a standstill. The simulation holds one that was braked below"
            f" {HOLD_BELOW_MPS:g} m/s while its driver looks away; a car must do that by itself.",
        ]
        instead = "ask for nothing; the driver is alone, as without the assistant"
    else:
        meaning = [
            f"{low} is full braking with {full} m/s², 0 no acceleration, {high} the car's full acceleration."
            " There is no dead band and no driver."
        ]
        instead = "brake fully"
    nothing = paragraph(
        f"**Without a decision the action is {figure(fallback)}: {instead}.** There is none where a number"
        " that is read is NaN or infinite: then `act` raises `ObservationError`, the C returns `ROADSENSE_REFUSED`, and"
        " a model run without this library says nothing, so test its inputs. The same holds for a decision that is late"
        " or never comes."
    )
    return section("What its action means", paragraph(told, *meaning), nothing)
