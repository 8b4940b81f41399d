"""When the radio tells of a hazard. Metrics count reactions from there, and no policy on the radio can know earlier."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from roadsense.espnow.state import RadioState
from roadsense.traffic.base import EGO, STEP_S


def tells_of_hazard(records: NDArray[np.void], radio: RadioState) -> NDArray[np.bool_]:
    """Whether V001's table holds a message of the hazard's target that states its first braking, or a later state.

    The table forgets what is stale: whoever wants to know whether it was ever told must remember. In an episode without
    a hazard the onset never comes.

    Args:
        records: [world] of :data:`roadsense.convoy.world.WORLD_DTYPE`.
        radio: [world, car], what V001 has heard.

    Returns:
        [world].
    """
    worlds, target = np.arange(len(records)), np.maximum(records["hazard_target"], EGO)
    # a braking that begins at step k is first read at t = (k + 1) · 0.1 s; what is sent later tells of it
    told_s = (records["onset_step"] + 1) * STEP_S
    known: NDArray[np.bool_] = radio.message_count[worlds, target] > 0
    return known & (radio.message_sent_s[worlds, target, 0] > told_s)
