"""How a figure reads."""

import math

import pytest

from roadsense.espnow.calibration.figures import Figure


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (51.506, 19.16, math.inf, "52 [19, ∞] s"),
        (51.506, -math.inf, 60.2, "52 [-∞, 60] s"),
        (6.234, 6.0, math.nan, "6.23 [6.00, ?] s"),
        (6.234, math.nan, 6.5, "6.23 [?, 6.50] s"),
        (0.12345, 0.1, 0.15, "0.123 [0.100, 0.150] s"),
        (0.0, 0.0, 0.000393, "0.00000 [0.00000, 0.00039] s"),
        (2.5, math.nan, math.nan, "2.500 s"),
        (0.0, 0.0, 0.0, "0.000 [0.000, 0.000] s"),
    ],
)
def test_digits_and_bounds(value, low, high, text):
    assert Figure("f", value, low, high, 100, "s").text() == text
