"""What each token of a vocabulary writes, whatever the kind of tokenizer.

Writing is described in symbols: a symbol is a character, or a single byte of one (U+DC80 to
U+DCFF, as Python's `surrogateescape` has it) where a token holds part of a character only.

- SentencePiece: `▁` is a blank, `<0xE4>` a byte; the first blank of an answer is not shown.
- ChatGLM-6B besides: `<n>` is a line feed, `<|tab|>` a tab, `<|blank_k|>` k blanks.
- Byte-level BPE: every token is some bytes, whole characters or not.
"""

from __future__ import annotations

import json
import re
import sys
from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from tripletune.data.prompts import find_end_token_id
from tripletune.errors import ModelError

__all__ = ["TokenTrie", "Vocabulary", "build_vocabulary", "restore_characters", "spell_bytes"]

_BLANK = "▁"
_GUARD = "甲"
_NAMED = re.compile(r"<\|blank_(\d+)\|>")
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


class TokenTrie:
    """A node of the tree of all tokens, symbol by symbol; children are made when first asked for.

    Attributes:
        token_ids: Tokens that end here.
    """

    __slots__ = ("_children", "_depth", "_high", "_low", "_table", "token_ids")

    def __init__(self, table: tuple[list[str], list[int]], low: int, high: int, depth: int) -> None:
        keys, ids = table
        first = low
        while first < high and len(keys[first]) == depth:
            first += 1
        self.token_ids: list[int] = ids[low:first]
        self._table = table
        self._low, self._high, self._depth = first, high, depth
        self._children: dict[str, TokenTrie] | None = {} if first == high else None

    @property
    def children(self) -> dict[str, TokenTrie]:
        """The nodes one symbol further."""
        if self._children is None:
            keys, depth, low = self._table[0], self._depth, self._low
            self._children = {}
            while low < self._high:
                prefix = keys[low][: depth + 1]
                code = ord(prefix[-1])
                high = self._high
                if code < sys.maxunicode:
                    high = bisect_left(keys, prefix[:-1] + chr(code + 1), low, self._high)
                self._children[prefix[-1]] = TokenTrie(self._table, low, high, depth + 1)
                low = high
        return self._children


class Vocabulary:
    """Tokens as symbols, and how the tokenizer rewrites a text before it cuts it into tokens.

    Args:
        symbols: What each token writes, by id; "" for tokens that may not be written.
        end_token_id: The token that ends an answer.
        hides_first_blank: Whether a blank at the very start of an answer is not shown.
        spells_all_in_bytes: Whether any character may be written byte by byte; else only those
            that have no token of their own.
        rewrite: Gives the form in which the tokenizer writes a cluster of characters.
        encode: Gives the token ids of a text, without special tokens.

    Attributes:
        root: The tree of all tokens.
        breaks_line: (number of tokens,) whether each writes a line feed.
    """

    def __init__(
        self,
        symbols: Sequence[str],
        *,
        end_token_id: int,
        hides_first_blank: bool,
        spells_all_in_bytes: bool,
        rewrite: Callable[[str], str],
        encode: Callable[[str], list[int]],
    ) -> None:
        self.symbols = list(symbols)
        self.end_token_id = end_token_id
        self.hides_first_blank = hides_first_blank
        self.rewrite = rewrite
        self.encode = encode
        order = sorted((text, index) for index, text in enumerate(self.symbols) if text)
        keys = [text for text, _ in order]
        self.root = TokenTrie((keys, [index for _, index in order]), 0, len(keys), 0)
        self.breaks_line = np.array(["\n" in text for text in self.symbols])
        self._spells_all = spells_all_in_bytes
        self._spellings: dict[str, str | None] = {}

    def spell(self, character: str) -> str | None:
        """The byte symbols a character may be written in; None when it is written whole only."""
        if character not in self._spellings:
            self._spellings[character] = self._find_spelling(character)
        return self._spellings[character]

    def can_write(self, character: str) -> bool:
        """Whether a character can be written, with a token of its own or byte by byte."""
        return self._has_token(character) or self.spell(character) is not None

    def _find_spelling(self, character: str) -> str | None:
        if not character or character < "\x80" or "\ud800" <= character <= "\udfff":
            return None
        if self._has_token(character) and not self._spells_all:
            return None
        spelling = spell_bytes(character)
        return spelling if all(self._has_token(symbol) for symbol in spelling) else None

    def _has_token(self, symbol: str) -> bool:
        node = self.root.children.get(symbol)
        return node is not None and bool(node.token_ids)


def spell_bytes(character: str) -> str:
    """The bytes of a character as symbols.

    Example:
        >>> [hex(ord(symbol)) for symbol in spell_bytes("é")]
        ['0xdcc3', '0xdca9']
    """
    return "".join(chr(0xDC00 + byte) for byte in character.encode("utf-8"))


def restore_characters(symbols: str) -> str:
    """The characters of some symbols; bytes that make no character become U+FFFD.

    Example:
        >>> restore_characters(spell_bytes("é"))
        'é'
    """
    return symbols.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def build_vocabulary(tokenizer: Any) -> Vocabulary:
    """The vocabulary of a ChatGLM tokenizer or a fast tokenizer of `transformers`.

    Raises:
        ModelError: the tokenizer is of a kind whose tokens cannot be read.
    """
    if hasattr(tokenizer, "sp_model"):
        return _read_sentencepiece(tokenizer)
    if hasattr(tokenizer, "backend_tokenizer"):
        return _read_fast_tokenizer(tokenizer)
    raise ModelError(
        f"tokenizer: {type(tokenizer).__name__} has neither a SentencePiece model nor a fast "
        "implementation, so its tokens cannot be constrained; use free decoding (--free)"
    )


def _read_sentencepiece(tokenizer: Any) -> Vocabulary:
    model = tokenizer.sp_model
    hidden = {int(index) for index in tokenizer.all_special_ids}
    hidden |= {getattr(tokenizer, name, -1) for name in ("gmask_token_id", "end_token_id")}
    pieces: list[str] = []
    is_byte: list[bool] = []
    for index in range(model.get_piece_size()):
        is_written = not (
            index in hidden
            or model.is_control(index)
            or model.is_unknown(index)
            or model.is_unused(index)
        )
        pieces.append(model.id_to_piece(index) if is_written else "")
        is_byte.append(bool(model.is_byte(index)))
    known = set(pieces)
    symbols = [
        _read_byte(piece, known) if byte else _read_piece(piece)
        for piece, byte in zip(pieces, is_byte, strict=True)
    ]

    def rewrite(cluster: str) -> str:
        if cluster in "\n\r\t":
            return cluster
        normal = model.normalize(f"{_GUARD}{cluster}{_GUARD}")
        return str(normal[normal.index(_GUARD) + 1 : -1]).replace(_BLANK, " ")

    return Vocabulary(
        symbols,
        end_token_id=find_end_token_id(tokenizer),
        hides_first_blank=True,
        spells_all_in_bytes=False,
        rewrite=lru_cache(maxsize=65536)(rewrite),
        encode=tokenizer.encode_plain
        if hasattr(tokenizer, "encode_plain")
        else lambda text: list(tokenizer(text, add_special_tokens=False)["input_ids"]),
    )


def _read_piece(piece: str) -> str:
    if piece == "<n>":
        return "\n"
    if piece == "<|tab|>":
        return "\t"
    named = _NAMED.fullmatch(piece)
    return " " * int(named.group(1)) if named else piece.replace(_BLANK, " ")


def _read_byte(piece: str, known: set[str]) -> str:
    match = _BYTE.fullmatch(piece)
    if match is None:
        return ""
    value = int(match.group(1), 16)
    if value >= 0x80:
        return chr(0xDC00 + value)
    character = chr(value)
    is_spare = (_BLANK if character == " " else character) in known
    return "" if is_spare or (character == "\n" and "<n>" in known) else character


def _read_fast_tokenizer(tokenizer: Any) -> Vocabulary:
    backend = tokenizer.backend_tokenizer
    description = json.loads(backend.to_str())
    kinds = _flatten(description.get("decoder"))
    names = {kind["type"] for kind in kinds}
    is_byte_level = "ByteLevel" in names
    if not is_byte_level and not names & {"Metaspace", "ByteFallback", "Replace"}:
        raise ModelError(
            f"tokenizer: the decoder {sorted(names)!r} of {type(tokenizer).__name__} is neither "
            "byte-level nor SentencePiece's, so its tokens cannot be constrained; use free "
            "decoding (--free)"
        )
    added = {token["id"]: token for token in description.get("added_tokens", [])}
    vocabulary = backend.get_vocab(with_added_tokens=True)
    known = set(vocabulary)
    hidden = {int(index) for index in tokenizer.all_special_ids}
    to_byte = _read_byte_alphabet() if is_byte_level else {}
    symbols = [""] * (max(vocabulary.values()) + 1)
    for piece, index in vocabulary.items():
        if index in hidden or (index in added and added[index]["special"]):
            continue
        if index in added:
            symbols[index] = piece
        elif is_byte_level:
            written = bytes(to_byte[character] for character in piece if character in to_byte)
            symbols[index] = written.decode("utf-8", "surrogateescape")
        else:
            symbols[index] = (
                _read_byte(piece, known) if _BYTE.fullmatch(piece) else piece.replace(_BLANK, " ")
            )
    prepends = any(
        (kind["type"] == "Strip" and kind.get("start")) or kind["type"] == "Metaspace"
        for kind in kinds
    )
    return Vocabulary(
        symbols,
        end_token_id=find_end_token_id(tokenizer),
        hides_first_blank=prepends,
        spells_all_in_bytes=is_byte_level,
        rewrite=_read_normalizer(backend.normalizer),
        encode=lambda text: list(tokenizer(text, add_special_tokens=False)["input_ids"]),
    )


def _read_normalizer(normalizer: Any) -> Callable[[str], str]:
    @lru_cache(maxsize=65536)
    def rewrite(cluster: str) -> str:
        if normalizer is None or cluster in "\n\r\t":
            return cluster
        normal = str(normalizer.normalize_str(f"{_GUARD}{cluster}{_GUARD}"))
        return normal[normal.index(_GUARD) + 1 : -1].replace(_BLANK, " ")

    return rewrite


def _flatten(part: Any) -> list[dict[str, Any]]:
    if part is None:
        return []
    if part["type"] == "Sequence":
        return [inner for entry in part["decoders"] for inner in _flatten(entry)]
    return [part]


def _read_byte_alphabet() -> dict[str, int]:
    """Character to byte of byte-level BPE: printable Latin-1 stands for itself, the rest follow.

    Source: the byte alphabet of GPT-2, as `tokenizers` implements it.
    """
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {chr(byte): byte for byte in plain}
    others = [byte for byte in range(256) if byte not in set(plain)]
    alphabet.update({chr(0x100 + place): byte for place, byte in enumerate(others)})
    return alphabet
