"""Radio and sensor parameters: the schema of ``params/espnow/*.json``."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from roadsense.errors import ParamsError, explain
from roadsense.espnow.sections import (
    Alarms,
    Beacon,
    Gps,
    Latency,
    Loss,
    Noise,
    Phy,
    Placement,
    Propagation,
    Randomisation,
    Relays,
    Section,
)

PENDING_MESSAGES = 16
"""Most messages of one sender that may be under way to one receiver at once; a further one takes the oldest's place."""

_LONGEST_INTERVALS = 7
"""Longer latencies are refused, in intervals between beacons; the other half of the room is for relayed messages."""


class RadioParams(Section):
    """Everything the emulator needs to know; one file of ``params/espnow``."""

    schema_version: Literal[1]
    name: Annotated[str, Field(min_length=1)]
    provenance: Annotated[dict[str, str], Field(min_length=1)]
    """Where each figure comes from, by topic."""
    beacon: Beacon
    loss: Loss
    latency: Latency
    gps: Gps
    noise: Noise
    phy: Phy | None = None
    """The shared medium; none: frames take no time and never meet."""
    relays: Relays | None = None
    """Whether cars repeat each other; none: they do not."""
    placement: Placement | None = None
    """How boards differ by where they are mounted; none: they do not."""
    propagation: Propagation | None = None
    """Physics of a frame's power, on top of the loss table; none: the table alone decides."""
    alarms: Alarms | None = None
    """A car that lies about braking; none: all tell the truth."""
    stale_after_ms: Annotated[float, Field(ge=100, le=10_000)] = 500.0
    """A peer leaves the table when the newest message of it arrived longer ago."""
    randomisation: Randomisation = Randomisation()

    @model_validator(mode="after")
    def _messages_under_way_fit(self) -> RadioParams:
        longest = self.latency.longest_ms * self.randomisation.latency_scale[1]
        limit = _LONGEST_INTERVALS * self.beacon.interval_ms
        if longest > limit:
            raise ValueError(
                f"latency: may reach {longest:.0f} ms, at beacon.interval_ms {self.beacon.interval_ms:g} at most "
                f"{limit:.0f} ms can be emulated, lower the latency"
            )
        return self

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the canonical JSON of all values."""
        document = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(document.encode()).hexdigest()


def parse_params(text: str | bytes, where: str) -> RadioParams:
    """Parameters from the JSON of a file.

    Args:
        text: the JSON.
        where: it comes from; begins the message.

    Raises:
        ParamsError: it is not JSON, or holds unknown or impossible values; the message names all of them.
    """
    try:
        json.loads(text)
    except ValueError as error:  # json.JSONDecodeError and UnicodeDecodeError
        raise ParamsError(f"{where}: is not JSON ({error}); correct or replace the file.") from None
    try:
        return RadioParams.model_validate_json(text)
    except ValidationError as error:
        raise ParamsError(f"{where}: {explain(error, RadioParams)}. Correct it.") from None
