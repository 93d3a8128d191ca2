"""What one prompt asks about: the whole schema, or a part of it that the prompt lists."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tripletune.data.relation_schema import RelationSchema
from tripletune.data.subschemas import split_relations
from tripletune.errors import ConfigError
from tripletune.extraction.constraint import Constraint
from tripletune.extraction.vocabulary import Vocabulary

__all__ = ["RelationPart", "iter_parts"]


@dataclass(frozen=True, slots=True)
class RelationPart:
    """What one prompt asks for.

    Attributes:
        names: The relations that the prompt lists, or None when it lists none.
        constraint: The outputs that are allowed, when they are constrained.
    """

    names: tuple[str, ...] | None = None
    constraint: Constraint | None = None

    def find_constraint(self) -> Constraint:
        """The constraint.

        Raises:
            ConfigError: there is none.
        """
        if self.constraint is None:
            raise ConfigError("constrained: False, so outputs cannot be held to a constraint")
        return self.constraint


def iter_parts(
    schema: RelationSchema, relations_per_prompt: int | None, *, vocabulary: Vocabulary | None
) -> Iterator[RelationPart]:
    """The parts of a schema, one for each prompt about a text.

    Args:
        schema: The relations.
        relations_per_prompt: How many a prompt lists; None: one part, whose prompt lists none.
        vocabulary: Of the model whose outputs are held to the relations. None: they are not.

    Raises:
        ConfigError: no relation can be written with the vocabulary.
    """
    whole = None if vocabulary is None else Constraint(vocabulary, schema)
    if relations_per_prompt is None:
        yield RelationPart(constraint=whole)
        return
    relations = list(schema) if whole is None else whole.relations
    names = [relation.name for relation in relations]
    for part in split_relations(names, relations_per_prompt):
        constraint = None
        if vocabulary is not None:
            constraint = Constraint(vocabulary, [r for r in relations if r.name in part])
        yield RelationPart(part, constraint)
