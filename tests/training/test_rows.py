from __future__ import annotations

import numpy as np
import pytest

from tripletune.config import TrainingSettings
from tripletune.data.encode import TokenizedExample
from tripletune.training.batch_order import ShuffledOrder
from tripletune.training.memory import Row
from tripletune.training.rows import DataLengths, find_evaluation_rows, find_training_rows

EXAMPLES = [TokenizedExample([0] * (10 + 7 * n), 5 + n) for n in range(50)]
LENGTHS = DataLengths.of(EXAMPLES)


def test_lengths_are_those_of_the_examples():
    assert LENGTHS.tokens.tolist() == [10 + 7 * n for n in range(50)]
    assert LENGTHS.labelled.tolist() == [5 + 6 * n for n in range(50)]


def test_lengths_of_a_cached_file_are_the_same(tmp_path):
    from tests.training.small_runs import build_small_settings
    from tripletune.data.cache import load_encoded
    from tripletune.data.readers import load_examples
    from tripletune.models.loading import load_tokenizer

    settings = build_small_settings(tmp_path, tmp_path)
    encoded, _ = load_encoded(
        load_examples(settings.train_file),
        load_tokenizer("embedded"),
        max_source_tokens=200,
        max_target_tokens=100,
        cache_dir=tmp_path / "cache",
    )
    found, expected = DataLengths.of(encoded), DataLengths.of(list(encoded))
    assert found.tokens.tolist() == expected.tokens.tolist()
    assert found.labelled.tolist() == expected.labelled.tolist()


def test_training_rows_are_the_batches_that_the_run_will_meet():
    settings = TrainingSettings(batch_size=4, gradient_accumulation_steps=2, num_epochs=2, seed=5)
    rows = find_training_rows(LENGTHS, settings, batch_size=4, packing=True)
    batches = []
    order = ShuffledOrder(50, seed=5)
    for epoch in range(2):
        order.set_epoch(epoch)
        indices = list(order)
        batches += [indices[start : start + 4] for start in range(0, 50, 4)]
    totals = [sum(10 + 7 * n for n in batch) for batch in batches]
    fullest = batches[int(np.argmax([-(-total // 128) for total in totals]))]
    assert rows.count == 26
    assert rows.tokens == 2 * sum(10 + 7 * n for n in range(50))
    assert rows.computed_tokens == sum(-(-total // 128) * 128 for total in totals)
    first = next(iter(rows.largest))
    assert first.tokens == max(-(-total // 128) * 128 for total in totals)
    assert max(row.labelled for row in rows.largest) == max(
        sum(5 + 6 * n for n in batch) for batch in batches
    )
    assert tuple(fullest) in rows.largest.values()


def test_training_rows_end_with_the_steps():
    settings = TrainingSettings(batch_size=2, gradient_accumulation_steps=3, max_steps=40)
    rows = find_training_rows(LENGTHS, settings, batch_size=2, packing=True)
    assert rows.count == 120
    joined = find_training_rows(LENGTHS, settings, batch_size=6, packing=True)
    assert joined.count == 40


def test_padded_rows_are_as_wide_as_their_longest():
    settings = TrainingSettings(num_epochs=1)
    lengths = DataLengths(np.array([10, 30]), np.array([4, 6]))
    rows = find_training_rows(lengths, settings, batch_size=2, packing=False)
    assert list(rows.largest) == [Row(60, 10)]
    assert (rows.tokens, rows.computed_tokens) == (40, 60)


@pytest.mark.parametrize("packing", [True, False])
def test_two_gpus_share_the_batches(packing):
    settings = TrainingSettings(batch_size=4, num_epochs=1)
    rows = find_training_rows(LENGTHS, settings, batch_size=4, packing=packing, num_ranks=2)
    assert rows.count == 7
    assert all(len(examples) <= 4 for examples in rows.largest.values())
    whole = sum(10 + 7 * n for n in range(50))
    assert 0.35 * whole < rows.tokens < 0.65 * whole


def test_evaluation_rows_take_the_examples_in_order():
    rows = find_evaluation_rows(LENGTHS, batch_size=20, packing=True)
    assert rows.count == 3
    # Examples 20 to 39: 20 * 10 + 7 * (20 + ... + 39) = 4330, then up to 128.
    assert next(iter(rows.largest)).tokens == 4352
