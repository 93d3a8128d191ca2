"""What a model wrote, as triplets with spans and confidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tripletune.data.linearize import EMPTY_TARGET, parse_free, parse_target
from tripletune.extraction.constraint import Constraint
from tripletune.extraction.generation_rows import Generated
from tripletune.extraction.grounding import choose_pair, ground_pair
from tripletune.extraction.guide import TripletGuide, WrittenLine, score_lines
from tripletune.extraction.text_form import TextForm, escape_item
from tripletune.extraction.vocabulary import Vocabulary
from tripletune.schema import Extraction, Triplet

__all__ = ["place_line", "read_constrained", "read_free"]


def read_constrained(
    text: str, generated: Generated, guide: TripletGuide, constraint: Constraint
) -> Extraction:
    """The extraction of an output that was held to the constraint.

    Every item is given as it stands in the text, at its span; `output` is in the target language.
    """
    lines, problem = guide.find_lines()
    scores = score_lines(constraint.vocabulary, generated.token_ids, generated.log_probabilities)
    confidence: dict[str, float] = {}
    for line in scores:
        confidence.setdefault(line.text, line.confidence)
    form = constraint.build_form(text)
    triplets = tuple(
        place_line(WrittenLine(line, confidence[line]), text, form, constraint) for line in lines
    )
    output = "\n".join(lines) if lines else EMPTY_TARGET
    return Extraction(text, triplets, output=output, problems=(problem,) if problem else ())


def place_line(line: WrittenLine, text: str, form: TextForm, constraint: Constraint) -> Triplet:
    """The triplet of one constrained line, with the occurrences closest to each other.

    Raises:
        DataError: the line is not in the target language.
    """
    (written,) = parse_target(line.text)
    subject_span, object_span = choose_pair(
        form.find(escape_item(written.subject)), form.find(escape_item(written.object))
    )
    relation = constraint.find_relation(written.relation)
    subject_type, object_type = relation.types[0] if len(relation.types) == 1 else ("", "")
    return Triplet(
        text[subject_span.start : subject_span.end],
        relation.name,
        text[object_span.start : object_span.end],
        subject_type=subject_type,
        object_type=object_type,
        subject_span=subject_span,
        object_span=object_span,
        confidence=line.confidence,
    )


def read_free(
    text: str,
    output: str,
    generated: Generated,
    vocabulary: Vocabulary | None,
    *,
    repeated: str = "",
) -> Extraction:
    """The extraction of an output that was not constrained, read tolerantly.

    Triplets keep the items as the model wrote them; an item that is not in the text has no span.
    Without a vocabulary they have no confidence.

    Args:
        text: What was extracted from.
        output: What the model wrote.
        generated: Its tokens.
        vocabulary: What they write, where that is known.
        repeated: What the output was ended for repeating, or "".
    """
    parsed = parse_free(output)
    problems = list(parsed.problems)
    if repeated:
        problems.append(f"{repeated!r} was repeated; the output was ended there")
    if not generated.is_complete:
        problems.append(f"the output did not end within {len(generated.token_ids)} tokens")
    confidence = _score_freely(generated, vocabulary) if vocabulary is not None else {}
    triplets = []
    for triplet in parsed.triplets:
        subject_span, object_span = ground_pair(text, triplet.subject, triplet.object)
        placed = replace(
            triplet,
            subject_span=subject_span,
            object_span=object_span,
            confidence=confidence.get(triplet),
        )
        triplets.append(placed)
    return Extraction(text, tuple(triplets), output=output, problems=tuple(problems))


def _score_freely(generated: Generated, vocabulary: Vocabulary) -> dict[Triplet, float]:
    lines: Sequence[WrittenLine] = score_lines(
        vocabulary, generated.token_ids, generated.log_probabilities
    )
    confidence: dict[Triplet, float] = {}
    for line in lines:
        for triplet in parse_free(line.text).triplets:
            confidence.setdefault(triplet, line.confidence)
    return confidence
