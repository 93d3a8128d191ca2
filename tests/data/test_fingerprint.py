from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripletune.data.fingerprint import (
    NUM_BANDS,
    compute_bands,
    compute_similarity,
    normalise_text,
    split_pieces,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ａpple  公司，成立！", "apple公司成立"),
        ("《呐 喊》（1923）", "呐喊1923"),
        ("㈠ ①", "一1"),
        ("……", "……"),
        ("ﬁ_X", "fix"),
    ],
)
def test_normalise_text_keeps_letters_and_digits(text: str, expected: str) -> None:
    assert normalise_text(text) == expected


@given(st.text(min_size=1))
def test_normalise_text_is_never_empty(text: str) -> None:
    assert normalise_text(text)


def test_pieces_are_all_runs_of_three() -> None:
    assert split_pieces("abcdc") == {"abc", "bcd", "cdc"}
    assert split_pieces("ab") == {"ab"}


def test_similarity_is_shared_over_all() -> None:
    assert compute_similarity(frozenset("abc"), frozenset("bcd")) == 0.5
    assert compute_similarity(frozenset("a"), frozenset("a")) == 1.0


@given(st.lists(st.text(alphabet="abc甲𝄞", min_size=1), min_size=1, max_size=8))
def test_bands_of_a_text_do_not_depend_on_its_neighbours(texts: list[str]) -> None:
    together = compute_bands(texts)
    assert together.shape == (len(texts), NUM_BANDS)
    alone = np.concatenate([compute_bands([text]) for text in texts])
    assert together.tolist() == alone.tolist()


def test_similar_texts_share_bands_and_different_ones_do_not() -> None:
    rng = np.random.Generator(np.random.PCG64(7))
    texts = ["".join(map(chr, rng.integers(0x4E00, 0x9000, 60))) for _ in range(300)]
    changed = [text[:40] + "龘" + text[41:] for text in texts]
    bands, others = compute_bands(texts), compute_bands(changed)
    # Three of 58 pieces differ: similarity 55 / 61 = 0.90.
    assert (bands == others).any(axis=1).mean() >= 0.99
    assert not (bands == np.roll(bands, 1, axis=0)).any()
