"""False alarms: who claims to brake hard, and since when."""

from __future__ import annotations

import math

from roadsense.espnow.clock import key_of
from roadsense.jit import kernel
from roadsense.philox import uniform
from roadsense.randomness import Purpose

_ALARM = int(Purpose.RADIO_ALARM)


@kernel
def is_lying(table, seed, c, now_s, alive, transmits):
    """For how long a car has claimed to brake [s]; −1 where it tells the truth.

    Args:
        table: parameters in force, with alarms.
        seed: of the episode.
        c: column of the car.
        now_s: time of its tick.
        alive, transmits: [car].
    """
    if now_s < table.alarm_every_s or c == 0:
        return -1.0
    alarm = math.floor(now_s / table.alarm_every_s)
    since_s = now_s - alarm * table.alarm_every_s
    if since_s >= table.alarm_lasts_s:
        return -1.0
    lot = uniform(seed, _ALARM, key_of(alarm), c, 0)
    for other in range(1, alive.shape[0]):
        if other != c and alive[other] and transmits[other] and uniform(seed, _ALARM, key_of(alarm), other, 0) < lot:
            return -1.0
    return since_s
