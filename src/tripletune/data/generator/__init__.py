"""Synthetic training data: sentences made from facts and templates, with their triplets known.

`SentenceGenerator` is an endless stream of examples; `write_dataset` writes training and validation
files that share no sentence and no entity. What sentences are about is a `Domain`: the built-in one
or one from the user's files (`domain_files.load_domain`).
"""

from __future__ import annotations

from tripletune.data.generator.builtin import build_default_domain
from tripletune.data.generator.dataset import (
    DatasetPlan,
    generate_examples,
    write_dataset,
    write_default_data,
)
from tripletune.data.generator.domain import Domain, EntityType, Relation
from tripletune.data.generator.names import Pool, pool_of
from tripletune.data.generator.sentences import (
    DIFFICULTIES,
    Difficulty,
    Sentence,
    SentenceGenerator,
)

__all__ = [
    "DIFFICULTIES",
    "DatasetPlan",
    "Difficulty",
    "Domain",
    "EntityType",
    "Pool",
    "Relation",
    "Sentence",
    "SentenceGenerator",
    "build_default_domain",
    "generate_examples",
    "pool_of",
    "write_dataset",
    "write_default_data",
]
