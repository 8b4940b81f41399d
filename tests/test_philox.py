"""Philox4x32-10 against the published vectors, and the properties the simulator relies on."""

import numpy as np
import pytest

from roadsense.philox import generator_uniform, normal_pair, philox4x32, uniform, uniform_pair
from roadsense.randomness import Purpose, derive_seed, episode_seed, generator

# Random123, kat_vectors: philox4x32 with 10 rounds.
VECTORS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), VECTORS)
def test_published_vectors(counter, key, expected):
    words = philox4x32(*(np.uint64(c) for c in counter), *(np.uint64(k) for k in key))
    assert tuple(int(w) for w in words) == expected


def test_kernels_draw_what_numpys_generator_draws():
    for seed in (0, 7, 2**63 - 5):
        key = np.uint64(derive_seed(seed, Purpose.HAZARD, 3))
        drawn = [generator_uniform(key, place) for place in range(40)]
        assert drawn == generator(seed, Purpose.HAZARD, 3).random(40).tolist()


def test_every_part_of_the_key_changes_the_number():
    base = (7, 1, 3, 4, 0)
    numbers = {uniform(*base)}
    for position in range(5):
        changed = list(base)
        changed[position] += 1
        numbers.add(uniform(*changed))
    assert len(numbers) == 6
    assert uniform(*base) == uniform(*base)


def test_uniform_and_normal_have_their_moments():
    u = np.array([uniform_pair(11, 2, step, 0, 0) for step in range(20_000)]).ravel()
    z = np.array([normal_pair(11, 3, step, 0, 0) for step in range(20_000)]).ravel()
    assert 0.0 <= u.min() and u.max() < 1.0
    assert abs(u.mean() - 0.5) < 4 * np.sqrt(1 / 12 / u.size)
    assert abs(z.mean()) < 4 / np.sqrt(z.size)
    assert abs(z.var() - 1.0) < 4 * np.sqrt(2 / z.size)
    assert abs(np.corrcoef(z[0::2], z[1::2])[0, 1]) < 4 / np.sqrt(z.size / 2)


def test_seeds_below_one_seed_differ_and_repeat():
    seeds = {derive_seed(5, purpose, index) for purpose in Purpose for index in range(50)}
    assert len(seeds) == len(Purpose) * 50
    assert episode_seed(5, 3) == episode_seed(5, 3) != episode_seed(6, 3)
    first, again = generator(5, Purpose.HAZARD), generator(5, Purpose.HAZARD)
    assert first.random() == again.random() != generator(5, Purpose.DRIVER).random()
