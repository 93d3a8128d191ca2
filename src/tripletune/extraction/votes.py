"""Several drawn outputs about one text as one extraction: what enough of them agree on.

Source: self-consistency, Wang et al. (ICLR 2023, arXiv 2203.11171), section 2, with a vote on each
triplet in place of one on the whole answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from tripletune.data.linearize import render_target
from tripletune.schema import Extraction, Triplet

__all__ = ["DEFAULT_SHARE", "combine_votes"]

DEFAULT_SHARE = 0.5
"""Of the outputs that must hold a triplet."""


def combine_votes(votes: Sequence[Extraction], *, share: float = DEFAULT_SHARE) -> Extraction:
    """The triplets that at least a share of the outputs hold, with that share as confidence.

    They stand in the order of the text: by subject, then object. `problems` has those of all
    outputs, each once.

    Args:
        votes: Extractions from the same text, at least one, with spans.
        share: From 0 to 1.
    """
    counts: Counter[Triplet] = Counter()
    for extraction in votes:
        counts.update(list(dict.fromkeys(extraction.triplets)))
    kept = [
        replace(triplet, confidence=count / len(votes))
        for triplet, count in counts.items()
        if count / len(votes) >= share
    ]
    kept.sort(key=_find_place)
    problems = dict.fromkeys(problem for vote in votes for problem in vote.problems)
    return replace(
        votes[0], triplets=tuple(kept), output=render_target(kept), problems=tuple(problems)
    )


def _find_place(triplet: Triplet) -> tuple[int, ...]:
    spans = (triplet.subject_span, triplet.object_span)
    return tuple(edge for span in spans if span for edge in (span.start, span.end))
