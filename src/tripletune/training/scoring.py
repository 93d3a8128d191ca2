"""F1 of a model as it stands, by extracting from sentences whose triplets are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tripletune.evaluation import evaluate
from tripletune.extraction.extractor import Extractor
from tripletune.schema import Example
from tripletune.training.faults import extract_within_memory
from tripletune.training.ranks import map_over_ranks
from tripletune.training.sharding import lockstep

__all__ = ["score_model"]


def score_model(
    model: Any, tokenizer: Any, examples: Sequence[Example], *, halving: bool = True, **options: Any
) -> dict[str, float]:
    """Strict micro precision, recall and F1 (0 where undefined) of greedy extraction.

    Under torchrun the examples are divided among the processes, all of which call this.

    Args:
        model: Of any kind the `Extractor` takes, or with frozen weights that the processes share.
        tokenizer: Its tokenizer.
        examples: Texts and gold triplets.
        halving: Whether a batch that does not fit the memory is done in halves.
        **options: As the `Extractor`.
    """
    extractor = Extractor(model, tokenizer, **options)

    def extract(texts: Sequence[str]) -> list[Any]:
        with lockstep(model):
            return extract_within_memory(extractor, texts) if halving else extractor.extract(texts)

    extractions = map_over_ranks(extract, [example.text for example in examples])
    strict = evaluate(examples, extractions).strict
    return {
        "precision": strict.precision or 0.0,
        "recall": strict.recall or 0.0,
        "f1": strict.f1 or 0.0,
    }
