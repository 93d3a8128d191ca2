from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tripletune.extraction.sampling import derive_seed, draw_gumbel

SEEDS = st.integers(0, 2**64 - 1)
IDS = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=30, unique=True)


@given(SEEDS, st.integers(0, 5000), IDS)
def test_noise_of_a_token_depends_on_seed_place_and_token_alone(seed, place, ids):
    noise = draw_gumbel(seed, place, np.array(ids))
    assert noise.dtype == np.float32
    assert np.isfinite(noise).all()
    alone = [float(draw_gumbel(seed, place, np.array([token]))[0]) for token in ids]
    assert noise.tolist() == alone


def test_seeds_places_and_tokens_give_noise_that_has_nothing_in_common():
    ids = np.arange(20_000)
    tables = [draw_gumbel(1, 0, ids), draw_gumbel(2, 0, ids), draw_gumbel(1, 1, ids)]
    tables.append(np.roll(tables[0], 1))
    correlation = np.corrcoef(np.stack(tables)) - np.eye(4)
    assert np.abs(correlation).max() < 0.03  # four standard deviations of chance


def test_noise_is_standard_gumbel():
    noise = draw_gumbel(7, 3, np.arange(100_000))
    assert abs(noise.mean() - 0.5772) < 0.02
    assert abs(noise.var() - np.pi**2 / 6) < 0.05


def test_highest_of_noisy_logits_is_drawn_from_their_softmax():
    logits = np.array([2.0, 1.0, 0.0, -1.0])
    ids = np.array([5, 90, 7, 1000])
    drawn = [int((logits + draw_gumbel(seed, 0, ids)).argmax()) for seed in range(20_000)]
    expected = np.exp(logits) / np.exp(logits).sum()
    shares = np.bincount(drawn, minlength=4) / len(drawn)
    # Four standard deviations of a share of 20,000 draws.
    assert np.abs(shares - expected).max() < 4 * 0.5 / 20_000**0.5


def test_seeds_tell_the_parts_apart():
    seeds = {derive_seed("甲", None, 0), derive_seed("甲", None, 1), derive_seed("甲0", None, "")}
    assert len(seeds) == 3
    assert derive_seed("甲", ("位于",), 2) == derive_seed("甲", ("位于",), 2)
    assert derive_seed("\ud800") != derive_seed("\ud801")  # a lone surrogate is a text, too
