"""What a car knows about itself: noisy readings, made once per tick at the source."""

from __future__ import annotations

import math

from roadsense.espnow.clock import STEP_S, key_of
from roadsense.jit import kernel
from roadsense.philox import fill_uniforms, normal_pair, normal_quantile
from roadsense.randomness import Purpose

_SENSOR, _GPS = int(Purpose.SENSOR), int(Purpose.GPS)


@kernel
def refresh_gps_error(car, table, seed, step, item):
    """Advances both axes of the error to this step: the exact discretisation of an Ornstein–Uhlenbeck process."""
    elapsed = (step - car.gps_step) * STEP_S
    kept = math.exp(-elapsed / table.gps_tau_s) if car.sensing else 0.0
    spread = table.gps_sigma_m * math.sqrt(1.0 - kept * kept)
    east, north = normal_pair(seed, _GPS, key_of(step), item, 0)
    car.gps_error_x_m = kept * car.gps_error_x_m + spread * east
    car.gps_error_y_m = kept * car.gps_error_y_m + spread * north
    car.gps_step = step


@kernel
def draw_noise(draws, count, seed, step):
    """Draws what the sensors of all cars are off by at a step: [4, car], uniform in (0, 1)."""
    fill_uniforms(draws, count, seed, _SENSOR, key_of(step), 0, 1, 0)


@kernel
def sense(table, car, draws, seed, step, item, x, y, speed, accel, heading):
    """Makes the reading of a car from its true state at this step; ``item`` is its column.

    Between fixes the position is carried on by what the car itself measures. A car that starts has a fix at once.
    """
    car.speed_mps = max(0.0, speed + table.speed_sd_mps * normal_quantile(draws[0, item]))
    car.accel_mps2 = accel + table.accel_sd_mps2 * normal_quantile(draws[1, item])
    car.heading_rad = heading + table.heading_sd_rad * normal_quantile(draws[2, item])
    car.along_x, car.along_y = math.cos(car.heading_rad), math.sin(car.heading_rad)
    fixes = math.floor((step * STEP_S - car.gps_phase_s) * table.gps_rate_hz)
    if fixes > car.gps_fixes or not car.sensing:
        refresh_gps_error(car, table, seed, step, item)
        car.gps_fixes = fixes
        car.x_m, car.y_m = x + car.gps_error_x_m, y + car.gps_error_y_m
    elif table.extrapolate:
        car.x_m += car.speed_mps * STEP_S * car.along_x
        car.y_m += car.speed_mps * STEP_S * car.along_y
    car.sensing = True
