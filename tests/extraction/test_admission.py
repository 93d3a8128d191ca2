from __future__ import annotations

import random
from math import sqrt

import pytest

from tripletune.extraction.admission import Admission

START, TOKEN, STEP = 35.0, 0.022, 8.0
"""ms to start a batch of prompts, to read a token of it, and of a step."""


@pytest.mark.parametrize(
    ("num_slots", "length", "prompt", "expected"),
    [
        (16, 250, 60, 3),  # 16 √(10 / 250)
        (16, 4, 60, 8),  # half, where answers are short
        (128, 250, 60, 25),
        (128, 40, 64, 32),  # 2,048 tokens
        (512, 40, 64, 64),  # an eighth, which is more than 2,048 tokens
        (1, 1000, 500, 1),
    ],
)
def test_number_wanted_goes_by_what_costs_least(num_slots, length, prompt, expected):
    admission = Admission(num_slots)
    admission.note_finished(length)
    assert admission.count_wanted(prompt, []) == expected


def test_answers_of_unknown_length_are_taken_for_32_tokens():
    assert Admission(4096).count_wanted(1, []) == int(4096 * 1 / 2)
    assert Admission(64).count_wanted(64, []) == int(64 * min(1 / 2, sqrt(10 / 32)))


def test_begun_answers_count_towards_the_mean():
    admission = Admission(16)
    admission.note_finished(10)
    assert admission.count_wanted(60, []) == 8
    assert admission.count_wanted(60, [240] * 6) == int(16 * sqrt(10 / 1450))


def simulate(num_slots: int, lengths: list[int], prompt: int, count_wanted) -> float:
    """Milliseconds that answers of these lengths take."""
    waiting, active, time = lengths[::-1], [], 0.0
    finished: list[int] = []
    while waiting or active:
        free = num_slots - len(active)
        wanted = count_wanted(finished, [written for _, written in active])
        if waiting and (not active or free >= min(len(waiting), wanted)):
            count = min(free, len(waiting))
            active += [(waiting.pop(), 0) for _ in range(count)]
            time += max(START, count * prompt * TOKEN)
        time += STEP
        stepped = [(length, written + 1) for length, written in active]
        finished += [length for length, written in stepped if written == length]
        active = [(length, written) for length, written in stepped if written < length]
    return time


@pytest.mark.parametrize("num_slots", [16, 128])
@pytest.mark.parametrize("mean", [8, 25, 60, 200])
def test_no_fixed_number_is_much_faster(num_slots, mean):
    chance = random.Random(mean)
    lengths = [1 + int(chance.expovariate(1 / mean)) for _ in range(8 * num_slots)]
    admission, noted = Admission(num_slots), 0

    def learn(finished, begun):
        nonlocal noted
        for length in finished[noted:]:
            admission.note_finished(length)
        noted = len(finished)
        return admission.count_wanted(60, begun)

    shares = (1 / 16, 1 / 8, 1 / 6, 1 / 4, 1 / 3, 1 / 2, 2 / 3)
    fixed = [
        simulate(num_slots, lengths, 60, lambda *_, share=share: int(share * num_slots) or 1)
        for share in shares
    ]
    assert simulate(num_slots, lengths, 60, learn) < 1.04 * min(fixed)
