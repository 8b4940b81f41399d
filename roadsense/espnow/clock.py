"""Steps, beacon generations and links as keys of random numbers."""

from __future__ import annotations

from roadsense.jit import kernel

STEP_S = 0.1
"""Length of a control step [s]; stated again because the radio knows nothing of traffic."""

_OFFSET = 1 << 20
_RECEIVERS = 1 << 16


@kernel
def key_of(number):
    """A step or a generation as the key of a random number: both are negative before t = 0, keys are not."""
    return number + _OFFSET


@kernel
def link_of(receiver, sender):
    """The key of a directed link, whatever the capacity of the arrays is."""
    return receiver * _RECEIVERS + sender
