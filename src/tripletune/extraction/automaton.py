r"""Which symbols, and which tokens, may come next in the output for one text.

```
                     无
  start ───────────────────────────────▶ (end)
    │ (                                    ▲
    ▼      ,    ␣            ,    ␣        │
  subject ──▶ ──▶ relation ──▶ ──▶ object ─┤ )
    ▲                                      │
    └────────────────────── ( ◀─── \n ─────┘
```

Items are substrings of the text as the tokenizer writes it and the target language escapes it
(`TextForm`). They begin and end where a character of the original does, and not with white space.
A state inside an item is the set of places in the text where what was written so far may end. A
comma (in the subject) or bracket (in the object) may belong to the item or close it; the state
keeps both until the next symbol tells.

Tokens are found by walking the text and the tree of tokens together, place by place, and kept;
copying has few ways to go on, so that a set of allowed tokens is small and quickly made.
"""

from __future__ import annotations

import numpy as np

from tripletune.data.linearize import EMPTY_TARGET
from tripletune.extraction.relation_tree import RelationTree
from tripletune.extraction.states import ENTER_OBJECT, Chain, State, TokenArray
from tripletune.extraction.text_form import TextForm
from tripletune.extraction.vocabulary import TokenTrie, Vocabulary

__all__ = ["TextAutomaton"]


class _Item(State):
    """Inside a subject or an object; see the module's text."""

    __slots__ = ("_automaton", "_next", "is_closed", "is_object", "num_bytes", "places")

    def __init__(
        self, automaton: TextAutomaton, places: list[int], *, is_object: bool, is_closed: bool
    ) -> None:
        super().__init__(is_final=is_object and is_closed)
        self._automaton = automaton
        self._next: dict[str, State | None] = {}
        self.places = places
        self.is_object = is_object
        self.is_closed = is_closed
        self.num_bytes = 0
        automaton.items.append(self)

    @property
    def closing(self) -> str:
        """The symbol that may close the item."""
        return ")" if self.is_object else ","

    @property
    def may_close(self) -> bool:
        """Whether what was written is a whole item."""
        if self.num_bytes or self is self._automaton.start_of(is_object=self.is_object):
            return False
        closes = self._automaton.form.closes
        return any(closes[place] for place in self.places)

    def clear(self) -> None:
        """Lets go of everything; the state can no longer be used."""
        self._next.clear()
        del self._automaton

    def step(self, symbol: str) -> State | None:
        """The state after a symbol; None when it may not come."""
        if symbol not in self._next:
            self._next[symbol] = self._find(symbol)
        return self._next[symbol]

    def _find(self, symbol: str) -> State | None:
        automaton = self._automaton
        if symbol == "\n" and self.is_final:
            return automaton.line
        if symbol == " " and self.is_closed and not self.is_object:
            return automaton.relations.root
        if "\udc80" <= symbol <= "\udcff":
            return self._find_byte(symbol)
        places: list[int] = []
        if not self.num_bytes:
            symbols = automaton.form.symbols
            places = [place + 1 for place in self.places if symbols[place] == symbol]
        is_closed = symbol == self.closing and self.may_close
        if not places and not is_closed:
            return None
        return _Item(automaton, places, is_object=self.is_object, is_closed=is_closed)

    def _find_byte(self, symbol: str) -> State | None:
        automaton, places, is_last = self._automaton, [], False
        for place in self.places:
            spelling = automaton.spell(place)
            if spelling[self.num_bytes : self.num_bytes + 1] == symbol:
                places.append(place)
                is_last = self.num_bytes + 1 == len(spelling)
        if not places:
            return None
        if is_last:
            places = [place + 1 for place in places]
        state = _Item(automaton, places, is_object=self.is_object, is_closed=False)
        state.num_bytes = 0 if is_last else self.num_bytes + 1
        return state


class _Reach:
    """The tokens that lead on from a place of the text.

    Attributes:
        inside: Those that write text only.
        closing: Nodes of tokens that have come to a whole item, to be closed within the token.
    """

    __slots__ = ("closing", "inside")

    def __init__(self) -> None:
        self.inside: list[int] = []
        self.closing: list[TokenTrie] = []


class TextAutomaton:
    """All states of the output for one text.

    Args:
        form: The text as it is written.
        relations: What may stand between subject and object.
        vocabulary: The tokens.

    Attributes:
        start: The state before anything is written.
        line: The state at the start of every further line.
        items: All states inside subjects and objects that have been come to.
    """

    def __init__(self, form: TextForm, relations: RelationTree, vocabulary: Vocabulary) -> None:
        self.form = form
        self.relations = relations
        self.vocabulary = vocabulary
        self._spellings = [vocabulary.spell(symbol) or "" for symbol in form.symbols[:-1]] + [""]
        self._openings = {symbol for symbol in form.symbols if symbol}
        self._openings.update(spelling[0] for spelling in self._spellings if spelling)
        self.items: list[_Item] = []
        self._allowed: dict[int, TokenArray] = {}
        self._reach: dict[int, _Reach] = {}
        self._subject = _Item(self, form.starts, is_object=False, is_closed=False)
        self._object = _Item(self, form.starts, is_object=True, is_closed=False)
        self.line = Chain()
        self.start = Chain()
        shown = Chain() if vocabulary.hides_first_blank else self.start
        shown.add_character(EMPTY_TARGET, Chain(is_final=True), vocabulary)
        if form.starts and relations.root.next:
            self.line.next["("] = shown.next["("] = self._subject
        if shown is not self.start:
            self.start.next.update(shown.next)
            self.start.next[" "] = shown

    def clear(self) -> None:
        """Undoes the circle of references that the states are; none can be used any more.

        Without, a batch's states would wait for the collector, which takes long over them.
        """
        for item in self.items:
            item.clear()
        self.items.clear()
        self.line.next.clear()

    def start_of(self, *, is_object: bool) -> State:
        """The state before the first symbol of a subject or an object."""
        return self._object if is_object else self._subject

    def spell(self, place: int) -> str:
        """The byte symbols in which a place of the text may be written, or ""."""
        return self._spellings[place]

    def advance(self, state: State, symbols: str) -> State | None:
        """The state after some symbols; None when they may not come."""
        following: State | None = state
        for symbol in symbols:
            following = following.step(symbol) if following else None
            if following is ENTER_OBJECT:
                following = self._object
        return following

    def find_allowed(self, state: State) -> TokenArray:
        """The tokens that may come next, the end token included where the output may end."""
        if state.allowed is not None:
            return state.allowed
        allowed = self._allowed.get(id(state))
        if allowed is not None:
            return allowed
        found: list[int] = [self.vocabulary.end_token_id] if state.is_final else []
        if isinstance(state, _Item):
            self._collect_item(state, self.vocabulary.root, found)
            if len(state.places) > 1:
                found = list(dict.fromkeys(found))
        elif isinstance(state, Chain):
            stays_shared = self._collect(state, self.vocabulary.root, found)
            if not stays_shared:
                allowed = np.array(found, dtype=np.int64)
                self._allowed[id(state)] = allowed
                return allowed
        state.allowed = np.array(found, dtype=np.int64)
        return state.allowed

    def _collect(self, state: Chain, node: TokenTrie, found: list[int]) -> bool:
        """Adds the tokens below `node` that a chain allows; False when they depend on the text."""
        is_shared = True
        stack: list[tuple[Chain, TokenTrie]] = [(state, node)]
        while stack:
            state, node = stack.pop()
            for symbol, following in state.next.items():
                child = node.children.get(symbol)
                if child is None:
                    continue
                found.extend(child.token_ids)
                if not child.children:
                    continue
                if following is ENTER_OBJECT:
                    is_shared = False
                    following = self._object
                if isinstance(following, Chain):
                    stack.append((following, child))
                elif isinstance(following, _Item):
                    self._collect_item(following, child, found)
        return is_shared

    def _collect_item(self, state: _Item, node: TokenTrie, found: list[int]) -> None:
        is_root = node is self.vocabulary.root
        closing = [node] if state.may_close else []
        can_skip = not is_root and not state.num_bytes
        is_dead_end = can_skip and node.children.keys().isdisjoint(self._openings)
        for place in () if is_dead_end else state.places:
            if is_root and not state.num_bytes:
                reach = self._reach.get(place)
                if reach is None:
                    reach = self._reach[place] = self._walk(node, place, 0)
            elif self.form.symbols[place] in node.children or self._spellings[place]:
                reach = self._walk(node, place, state.num_bytes)
            else:
                continue
            found.extend(reach.inside)
            if reach.closing:
                closing.extend(reach.closing)
        for ending in closing:
            child = ending.children.get(state.closing)
            if child is not None:
                found.extend(child.token_ids)
                self._collect_after_close(child, found, is_object=state.is_object)
        if state.is_closed:
            if is_root and not state.is_object and self.relations.first_tokens is not None:
                found.extend(self.relations.first_tokens)
            else:
                self._collect_after_close(node, found, is_object=state.is_object)

    def _collect_after_close(self, node: TokenTrie, found: list[int], *, is_object: bool) -> None:
        child = node.children.get("\n" if is_object else " ")
        if child is not None:
            found.extend(child.token_ids)
            self._collect(self.line if is_object else self.relations.root, child, found)

    def _walk(self, node: TokenTrie, place: int, num_bytes: int) -> _Reach:
        reach = _Reach()
        symbols, closes = self.form.symbols, self.form.closes
        stack: list[tuple[TokenTrie, int]] = []
        spelling = self._spellings[place]
        if spelling:
            self._walk_bytes(node, spelling[num_bytes:], place, reach, stack)
        if not num_bytes:
            stack.append((node, place))
        while stack:
            node, place = stack.pop()
            symbol = symbols[place]
            child = node.children.get(symbol) if symbol else None
            if child is None:
                continue
            reach.inside.extend(child.token_ids)
            if not child.children:
                continue
            place += 1
            if closes[place]:
                reach.closing.append(child)
            stack.append((child, place))
            spelling = self._spellings[place]
            if spelling:
                self._walk_bytes(child, spelling, place, reach, stack)
        return reach

    def _walk_bytes(
        self,
        node: TokenTrie,
        spelling: str,
        place: int,
        reach: _Reach,
        stack: list[tuple[TokenTrie, int]],
    ) -> None:
        for symbol in spelling:
            child = node.children.get(symbol)
            if child is None:
                return
            reach.inside.extend(child.token_ids)
            node = child
        if self.form.closes[place + 1]:
            reach.closing.append(node)
        stack.append((node, place + 1))
        following = self._spellings[place + 1]
        if following:
            self._walk_bytes(node, following, place + 1, reach, stack)
