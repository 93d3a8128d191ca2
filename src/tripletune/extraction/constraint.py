"""What outputs may be: the vocabulary, the relations, and guides for texts made of them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

from tripletune.data.relation_schema import Relation
from tripletune.errors import ConfigError
from tripletune.extraction.alignment import iter_clusters
from tripletune.extraction.automaton import TextAutomaton
from tripletune.extraction.guide import TripletGuide
from tripletune.extraction.relation_tree import RelationTree
from tripletune.extraction.text_form import TextForm, TextFormBuilder, escape_item
from tripletune.extraction.vocabulary import Vocabulary

__all__ = ["Constraint"]


class Constraint:
    """The outputs that a schema allows, for any text.

    Args:
        vocabulary: The model's tokens.
        relations: The relations that may be written.

    Raises:
        ConfigError: no relation is left.

    Warns:
        UserWarning: relations that the tokenizer cannot write, or cannot tell from another one;
            they are left out.
    """

    def __init__(self, vocabulary: Vocabulary, relations: Iterable[Relation]) -> None:
        self.vocabulary = vocabulary
        self._relations: dict[str, Relation] = {}
        left_out = []
        for relation in relations:
            written = self._write(relation.name)
            can_write = all(vocabulary.can_write(character) for character in escape_item(written))
            if can_write and written.strip() and written not in self._relations:
                self._relations[written] = relation
            else:
                left_out.append(relation.name)
        if not self._relations:
            raise ConfigError(
                f"relations: {left_out!r} leaves none to extract; give at least one name that the "
                "tokenizer can write, or a schema file"
            )
        if left_out:
            warnings.warn(
                f"relations {left_out!r} are left out: the tokenizer cannot write them, or writes "
                "them like another one",
                stacklevel=2,
            )
        self._tree = RelationTree(map(escape_item, self._relations), vocabulary)
        self._forms = TextFormBuilder(vocabulary)

    @property
    def relations(self) -> list[Relation]:
        """The relations that may be written, in order."""
        return list(self._relations.values())

    def build_guide(self, text: str, *, max_triplets: int, max_tokens: int) -> TripletGuide:
        """A guide for one output about a text."""
        return TripletGuide(
            lambda: TextAutomaton(self._forms.build(text), self._tree, self.vocabulary),
            self.vocabulary,
            max_triplets=max_triplets,
            max_tokens=max_tokens,
        )

    def build_form(self, text: str) -> TextForm:
        """The text as items of it are written."""
        return self._forms.build(text)

    def find_relation(self, written: str) -> Relation:
        """The relation that is written so.

        Raises:
            KeyError: there is none.
        """
        return self._relations[written]

    def _write(self, name: str) -> str:
        rewrite = self.vocabulary.rewrite
        return "".join(rewrite(name[start:end]) for start, end in iter_clusters(name.strip()))
