"""Synthetic training data: sentences made from facts and templates, with their triplets known."""

from __future__ import annotations

from tripletune.data.generator.builtin import build_default_domain
from tripletune.data.generator.domain import Domain, EntityType, Relation
from tripletune.data.generator.names import Pool, pool_of
from tripletune.data.generator.sentences import Difficulty, Sentence, SentenceGenerator

__all__ = [
    "Difficulty",
    "Domain",
    "EntityType",
    "Pool",
    "Relation",
    "Sentence",
    "SentenceGenerator",
    "build_default_domain",
    "pool_of",
]
