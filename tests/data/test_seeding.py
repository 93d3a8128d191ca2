from __future__ import annotations

import hashlib
import random

from tripletune.data.seeding import seeded_random


def test_numbers_follow_from_the_parts_and_their_order():
    drawn = [
        seeded_random(*parts).random() for parts in ((1, "甲"), (1, "甲"), ("甲", 1), (2, "甲"))
    ]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) == 3


def test_numbers_are_the_same_on_every_machine():
    digest = hashlib.blake2b("42\n甲在乙".encode(), digest_size=8).hexdigest()
    assert seeded_random(42, "甲在乙").random() == random.Random(int(digest, 16)).random()
