"""Answers to questions: what the model writes about a passage, read and grounded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tripletune.extraction.batch_reader import evaluation
from tripletune.extraction.generate import Generated, iter_greedy
from tripletune.extraction.reading import read_constrained, read_free
from tripletune.extraction.relation_parts import RelationPart
from tripletune.extraction.repetition import FreeGuide
from tripletune.extraction.sampling import derive_seed
from tripletune.extraction.slot_memory import find_room
from tripletune.extraction.votes import combine_votes
from tripletune.schema import Extraction

if TYPE_CHECKING:
    from tripletune.extraction.extractor import Extractor

__all__ = ["Question", "answer_questions"]

Question = tuple[str, RelationPart]
"""A passage, and what it is asked about."""


def answer_questions(
    extractor: Extractor,
    questions: Sequence[Question],
    on_answer: Callable[[int], None] | None = None,
) -> list[Extraction]:
    """The extraction for each question, by vote where outputs are drawn.

    Args:
        extractor: Whose model answers.
        questions: Answered together.
        on_answer: Called with the number of each question when it is answered.
    """
    votes = extractor.votes
    tell = on_answer or _ignore
    if votes == 1:
        return _generate(extractor, questions, None, tell)
    seeds = [
        derive_seed(text, part.names, vote) for text, part in questions for vote in range(votes)
    ]
    num_left = [votes] * len(questions)

    def count(index: int) -> None:
        question = index // votes
        num_left[question] -= 1
        if not num_left[question]:
            tell(question)

    asked = [question for question in questions for _ in range(votes)]
    drawn = _generate(extractor, asked, seeds, count)
    starts = range(0, len(drawn), votes)
    return [combine_votes(drawn[s : s + votes], share=extractor.vote_share) for s in starts]


def _ignore(question: int) -> None:
    """An answer that nobody waits for."""


def _generate(
    extractor: Extractor,
    questions: Sequence[Question],
    seeds: Sequence[int] | None,
    tell: Callable[[int], None],
) -> list[Extraction]:
    prompts, limits = extractor.encode_all(questions)
    found: dict[int, Extraction] = {}
    read: Callable[[int, Generated], Extraction]
    guides: list[Any]
    if extractor.constrained:
        guides = [
            extractor.build_guide(text, part, limit)
            for (text, part), limit in zip(questions, limits, strict=True)
        ]

        def read(index: int, output: Generated) -> Extraction:
            text, part = questions[index]
            return read_constrained(text, output, guides[index], part.find_constraint())

    else:
        vocabulary = extractor.find_vocabulary()
        guides = [FreeGuide(vocabulary) for _ in questions]

        def read(index: int, output: Generated) -> Extraction:
            written, repeated = extractor.decode(output.token_ids), guides[index].repeated
            text = questions[index][0]
            return read_free(text, written, output, vocabulary, repeated=repeated)

    if extractor.options.room is None:
        # Once for all texts, so that what is computed together does not go by what was before.
        extractor.options = replace(extractor.options, room=find_room(extractor.model))
    # Each output is read as it comes, while the device works on the others.
    with evaluation(extractor.model):
        for index, output in iter_greedy(
            extractor.model, prompts, extractor.options, guides=guides, limits=limits, seeds=seeds
        ):
            found[index] = read(index, output)
            guides[index].release()
            tell(index)
    return [found[index] for index in range(len(questions))]
