from __future__ import annotations

from itertools import chain

import torch
from hypothesis import given
from hypothesis import strategies as st

from tripletune.data.collate import PackedCollator, PaddedCollator
from tripletune.data.encode import TokenizedExample
from tripletune.models.loading import load_model
from tripletune.training.batch_order import CollateOrBlank, RankBatches, ShuffledOrder


class Given:
    """An order that is given."""

    def __init__(self, indices: list[int]) -> None:
        self.indices = indices
        self.epochs: list[int] = []

    def __iter__(self):
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)


def share(indices, lengths, *, batch_size, num_ranks, balanced=False):
    """The batches of each rank."""
    return [
        list(
            RankBatches(
                Given(indices),
                lengths,
                batch_size,
                num_ranks=num_ranks,
                rank=rank,
                balanced=balanced,
            )
        )
        for rank in range(num_ranks)
    ]


def test_shuffled_order_depends_on_seed_and_epoch_alone():
    order, again = ShuffledOrder(50, seed=3), ShuffledOrder(50, seed=3)
    first = list(order)
    order.set_epoch(1)
    second = list(order)
    again.set_epoch(1)
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second == list(again)
    assert list(ShuffledOrder(50, seed=4)) != first


def test_rank_batches_divide_each_chunk_in_order():
    shares = share([3, 0, 7, 5, 1, 6, 2, 4, 8], [1] * 9, batch_size=2, num_ranks=2)
    assert shares == [[[3, 0], [1, 6], [8]], [[7, 5], [2, 4], []]]


def test_rank_batches_balance_tokens():
    shares = share([0, 1, 2, 3], [9, 8, 2, 1], batch_size=2, num_ranks=2, balanced=True)
    assert shares == [[[0, 3]], [[1, 2]]]


def test_rank_batches_pass_the_epoch_on():
    order = Given([0, 1])
    RankBatches(order, [1, 1], 1).set_epoch(4)
    assert order.epochs == [4]


@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=40),
    st.integers(1, 5),
    st.integers(1, 4),
    st.booleans(),
)
def test_rank_batches_give_every_example_once_whatever_the_ranks(
    lengths, batch_size, num_ranks, balanced
):
    indices = list(ShuffledOrder(len(lengths), seed=1))
    shares = share(indices, lengths, batch_size=batch_size, num_ranks=num_ranks, balanced=balanced)
    assert len({len(batches) for batches in shares}) == 1
    assert len(shares[0]) == len(
        RankBatches(Given(indices), lengths, batch_size, num_ranks=num_ranks)
    )
    chunk = batch_size * num_ranks
    for number, step in enumerate(zip(*shares, strict=True)):
        together = sorted(index for batch in step for index in batch)
        assert together == sorted(indices[number * chunk : (number + 1) * chunk])
        assert max(map(len, step)) <= batch_size


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.booleans())
def test_one_rank_with_accumulation_sees_what_two_ranks_see(lengths, balanced):
    indices = list(ShuffledOrder(len(lengths), seed=2))
    (one,) = share(indices, lengths, batch_size=2, num_ranks=1, balanced=balanced)
    two = share(indices, lengths, batch_size=2, num_ranks=2, balanced=balanced)
    pairs = [sorted(chain(*one[n : n + 2])) for n in range(0, len(one), 2)]
    assert pairs == [sorted(a + b) for a, b in zip(*two, strict=True)]


def test_collate_makes_a_batch_without_labels_of_nothing():
    example = TokenizedExample([5, 6, 7, 8], 2)
    collate = CollateOrBlank(PaddedCollator(3, "one_row"), example)
    blank = collate([])
    assert blank["input_ids"].tolist() == [[5, 6, 7, 8]]
    assert blank["labels"].tolist() == [[-100] * 4]
    assert torch.equal(collate([example])["labels"], torch.tensor([[-100, -100, 7, 8]]))


def test_batch_of_nothing_adds_no_loss_where_labels_are_counted_beforehand(tiny_model_dir):
    model = load_model(str(tiny_model_dir), quantize=False)
    example = TokenizedExample([50, 60, model.config.gmask_token_id, 8, 9], 4)
    blank = CollateOrBlank(PackedCollator(3, "two_rows", 4, count_labels=True), example)([])
    loss = model(**blank, num_items_in_batch=7).loss
    loss.backward()
    assert loss.item() == 0.0
    assert all(not p.grad.any() for p in model.parameters() if p.grad is not None)
