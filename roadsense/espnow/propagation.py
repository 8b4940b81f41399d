"""The power of a frame at its receiver, where a file asks for physics on top of the loss table.

Log-distance path loss; shadowing that changes with the way both cars travel (Gudmundson, Electronics Letters 27, 1991:
an autoregressive process in distance); a fixed loss per car in between; Nakagami fading, new for every frame; and the
share of frames that are lost as a logistic function of power.
"""

from __future__ import annotations

import math

from roadsense.espnow.channel import quantile
from roadsense.espnow.clock import key_of, link_of
from roadsense.jit import kernel
from roadsense.philox import four_uniforms, normal_quantile
from roadsense.randomness import Purpose

_PROPAGATION = int(Purpose.RADIO_PROPAGATION)
_HALF_WIDTH_M = 1.5  # a car whose front is no further from the line between two others stands in between


@kernel
def cars_between(x, y, alive, sender, receiver):
    """How many cars stand between two."""
    along_x, along_y = x[receiver] - x[sender], y[receiver] - y[sender]
    length = math.sqrt(along_x * along_x + along_y * along_y)
    count = 0
    for c in range(x.shape[0]):
        if not alive[c] or c in (sender, receiver):
            continue
        dx, dy = x[c] - x[sender], y[c] - y[sender]
        ahead, aside = dx * along_x + dy * along_y, dx * along_y - dy * along_x
        if 0.0 < ahead < length * length and abs(aside) <= _HALF_WIDTH_M * length:
            count += 1
    return count


@kernel
def move_shadow(shadow, table, travelled_m, draw):
    """Carries a link's shadowing on to where its cars have come; ``draw`` is uniform in (0, 1)."""
    kept = 0.0
    if shadow.drawn_m >= 0.0:
        kept = math.exp(-(travelled_m - shadow.drawn_m) / table.shadow_corr_m)
    spread = table.shadow_sd_db * math.sqrt(1.0 - kept * kept)
    shadow.gain_db = kept * shadow.gain_db + spread * normal_quantile(draw)
    shadow.drawn_m = travelled_m


@kernel
def is_too_weak(
    table, quantiles, shadow, cars, x, y, alive, sender, receiver, seed, generation, frame, distance_m
):  # fmt: skip
    """Tells whether a frame arrives with too little power to be read.

    Args:
        table: parameters in force.
        quantiles: of gamma distributions.
        shadow: of the link, of ``SHADOW_DTYPE``; carried on.
        cars: [car] of ``CAR_DTYPE``.
        x, y: [car] true positions [m].
        alive: [car].
        sender, receiver: columns.
        seed: of the episode.
        generation: of the sender's own beacon of that turn.
        frame: 0 for that beacon, 1 + source for a relayed message.
        distance_m: between the two.
    """
    slow, fade, chance, _ = four_uniforms(seed, _PROPAGATION, key_of(generation), link_of(receiver, sender), frame)
    move_shadow(shadow, table, cars[sender].travelled_m + cars[receiver].travelled_m, slow)
    far = distance_m >= table.fading_far_from_m
    m, row = (table.far_m, table.far_gamma) if far else (table.near_m, table.near_gamma)
    gain = quantile(quantiles, row, fade) / m
    margin_db = (
        table.margin_1m_db
        - table.db_per_decade * math.log10(max(1.0, distance_m))
        - table.blocking_db * cars_between(x, y, alive, sender, receiver)
        + shadow.gain_db
        + 10.0 * math.log10(gain)
    )
    return chance * (1.0 + math.exp(margin_db / table.error_width_db)) < 1.0
