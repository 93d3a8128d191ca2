"""From tokenized examples to the tensors of one step, padded or packed.

Padded, an example a row (`_` is padding, on the right):

```
input_ids      p p p a a _ _        p p p p a a a
labels         . . . a a . .        . . . . a a a
```

Packed, all examples in one row, without any padding between them:

```
input_ids      p p p a a P P P P A A A
position_ids   restart with every example, which is how the network keeps them apart
```
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from tripletune.data.encode import TokenizedExample

__all__ = ["PackedCollator", "PaddedCollator", "PositionScheme", "with_label_count"]

PositionScheme = Literal["two_rows", "one_row"]
"""`two_rows`: ChatGLM-6B, context and answer positions; `one_row`: every other model."""


@dataclass(frozen=True)
class PaddedCollator:
    """One example a row, padded on the right to the longest.

    Attributes:
        pad_token_id: What to pad with.
        positions: Position scheme of the network.
        count_labels: Add `num_labels`, for networks that need not count them on the GPU then.
    """

    pad_token_id: int
    positions: PositionScheme
    count_labels: bool = False

    def __call__(self, examples: Sequence[TokenizedExample]) -> dict[str, Any]:
        """`input_ids`, `labels`, `attention_mask` (B, S) and `position_ids` (B, S) or (B, 2, S)."""
        longest = max(len(example) for example in examples)
        input_ids = torch.full((len(examples), longest), self.pad_token_id)
        labels = torch.full((len(examples), longest), -100)
        attention_mask = torch.zeros((len(examples), longest), dtype=torch.long)
        rows = 2 if self.positions == "two_rows" else 1
        position_ids = torch.zeros((len(examples), rows, longest), dtype=torch.long)
        for row, example in enumerate(examples):
            length = len(example)
            input_ids[row, :length] = torch.tensor(example.input_ids)
            labels[row, :length] = torch.tensor(example.labels)
            attention_mask[row, :length] = 1
            position_ids[row, :, :length] = build_positions(example, self.positions)
        batch = {
            "input_ids": input_ids,
            "labels": labels,
            "attention_mask": attention_mask,
            "position_ids": position_ids if rows == 2 else position_ids[:, 0],
        }
        return with_label_count(batch) if self.count_labels else batch


@dataclass(frozen=True)
class PackedCollator:
    """All examples in one row, one after another.

    Attributes:
        pad_token_id: What to pad the row's end with.
        positions: Position scheme of the network.
        pad_to_multiple_of: The row's length is rounded up to a multiple of this, so that compiled
            code meets few lengths. The padding is a document of its own and has no labels.
        count_labels: See `PaddedCollator`.
    """

    pad_token_id: int
    positions: PositionScheme
    pad_to_multiple_of: int = 1
    count_labels: bool = False

    def __call__(self, examples: Sequence[TokenizedExample]) -> dict[str, Any]:
        """`input_ids`, `labels` (1, S) and `position_ids` (1, S) or (1, 2, S)."""
        ids = [token for example in examples for token in example.input_ids]
        labels: list[int] = []
        for example in examples:
            # The first token of a document is never predicted from the document before it.
            labels += [-100, *example.labels[1:]]
        positions = [build_positions(example, self.positions) for example in examples]
        num_pads = -len(ids) % self.pad_to_multiple_of
        if num_pads:
            ids += [self.pad_token_id] * num_pads
            labels += [-100] * num_pads
            padding = torch.zeros((positions[0].shape[0], num_pads), dtype=torch.long)
            padding[0] = torch.arange(num_pads)
            positions.append(padding)
        position_ids = torch.cat(positions, dim=1).unsqueeze(0)
        batch = {
            "input_ids": torch.tensor([ids]),
            "labels": torch.tensor([labels]),
            "position_ids": position_ids if self.positions == "two_rows" else position_ids[:, 0],
        }
        return with_label_count(batch) if self.count_labels else batch


def with_label_count(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The batch with `num_labels`, of every token but the first of each row."""
    return {**batch, "num_labels": int((batch["labels"][:, 1:] != -100).sum())}


def build_positions(example: TokenizedExample, scheme: PositionScheme) -> Tensor:
    """Positions of one example: (1, S), or (2, S) for ChatGLM-6B.

    A ChatGLM-6B prompt ends with the mask token and `<sop>`; from `<sop>` on the first row stays
    at the mask token's place and the second counts from 1.
    """
    length = len(example)
    if scheme == "one_row":
        return torch.arange(length).unsqueeze(0)
    context = example.num_prompt_tokens - 1
    positions = torch.zeros((2, length), dtype=torch.long)
    positions[0, :context] = torch.arange(context)
    positions[0, context:] = context - 1
    positions[1, context:] = torch.arange(1, length - context + 1)
    return positions
