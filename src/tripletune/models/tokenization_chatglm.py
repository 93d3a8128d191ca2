"""The tokenizer of ChatGLM-6B: `ice_text.model` and what the official code does around it.

What is unusual about it:

- A line feed is the piece `<n>`, a tab `<|tab|>`, a run of 2 to 80 spaces one piece `<|blank_k|>`.
- SentencePiece normalises (NFKC): full-width letters and commas become ASCII, so decoding is lossy.
- The prompt is closed by `[gMASK] <sop>`, not opened; padding stands on the left and comes with a
  boolean mask (True is masked) and two rows of positions.
- `<sop> <eop> <unk> <pad> [MASK]` in a text are the special tokens themselves and swallow the
  blanks beside them; `[gMASK]` and `</s>` in a text are plain characters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from transformers.utils import PaddingStrategy

from tripletune.models.sentencepiece_tokenizer import SentencePieceTokenizer, find_width

__all__ = ["ChatGLMTokenizer"]

VOCABULARY_FILE = "ice_text.model"
_MAX_BLANKS = 80
_BLANKS = re.compile(r" {2,80}")
_BLANK_PIECE = re.compile(r"<\|blank_(\d+)\|>")
_OFFICIAL_CLEAN_UP = [
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
]
_TO_FULL_WIDTH = {",": "，", "!": "！", ":": "：", ";": "；", "?": "？"}
_HALF_WIDTH_IN_CHINESE = re.compile(r"(?<=[\u4e00-\u9fff])[,!:;?]|[,!:;?](?=[\u4e00-\u9fff])")


class ChatGLMTokenizer(SentencePieceTokenizer):
    """Text to the ids of the first ChatGLM-6B, and back.

    Args:
        vocab_file: Path of `ice_text.model`.
        bos_token: `<sop>`, the start of the answer.
        eos_token: `<eop>`, the end of the answer.
        end_token: `</s>`.
        mask_token: `[MASK]`.
        gmask_token: `[gMASK]`.
        pad_token: `<pad>`.
        unk_token: `<unk>`.
        **kwargs: As every `transformers` tokenizer.

    Raises:
        ModelError: the vocabulary file is missing or no SentencePiece model.
    """

    family = "ChatGLM-6B"
    vocab_files_names: ClassVar[dict[str, str]] = {"vocab_file": VOCABULARY_FILE}
    model_input_names: ClassVar[list[str]] = ["input_ids", "attention_mask", "position_ids"]
    padding_side = "left"

    def __init__(
        self,
        vocab_file: str,
        bos_token: str = "<sop>",
        eos_token: str = "<eop>",
        end_token: str = "</s>",
        mask_token: str = "[MASK]",
        gmask_token: str = "[gMASK]",
        pad_token: str = "<pad>",
        unk_token: str = "<unk>",
        **kwargs: Any,
    ) -> None:
        self.sp_model = self.load_vocabulary(vocab_file)
        self.vocab_file = vocab_file
        # transformers would make [gMASK] and </s> unsplittable in a text; officially they are not.
        kwargs.pop("model_specific_special_tokens", None)
        kwargs.pop("extra_special_tokens", None)
        super().__init__(
            bos_token=bos_token,
            eos_token=eos_token,
            mask_token=mask_token,
            pad_token=pad_token,
            unk_token=unk_token,
            **kwargs,
        )
        self._gmask_id: int = self.sp_model.piece_to_id(str(gmask_token))
        self._end_id: int = self.sp_model.piece_to_id(str(end_token))
        self.opening_ids = []
        self.closing_ids = [self._gmask_id, self.sp_model.piece_to_id(str(bos_token))]
        special = [str(t) for t in (bos_token, eos_token, unk_token, pad_token, mask_token)]
        self._special_ids: dict[str, int] = {
            token: self.sp_model.piece_to_id(token) for token in special
        }
        self._special = re.compile("(" + "|".join(map(re.escape, special)) + ")")

    @property
    def gmask_token_id(self) -> int:
        """Id of `[gMASK]`, the mask token that closes a prompt."""
        return self._gmask_id

    @property
    def end_token_id(self) -> int:
        """Id of `</s>`."""
        return self._end_id

    @property
    def vocab_size(self) -> int:
        """Number of pieces of the vocabulary."""
        size: int = self.sp_model.get_piece_size()
        return size

    def get_vocab(self) -> dict[str, int]:
        """Every piece and its id."""
        return {self.sp_model.id_to_piece(index): index for index in range(self.vocab_size)}

    def encode_text(self, text: str) -> list[int]:
        """Ids of a text alone, without `[gMASK] <sop>`.

        Example:
            For ChatGLM-6B, `encode_text("你好")` is `[5, 74874]`.
        """
        if not text:
            return []
        parts = self._special.split(text) if "<" in text or "[" in text else [text]
        if len(parts) == 1:
            ids: list[int] = self.sp_model.encode(_mark_blanks(text))
            return ids
        ids = []
        for index, part in enumerate(parts):
            if index % 2:
                ids.append(self._special_ids[part])
                continue
            part = part.lstrip() if index > 0 else part
            part = part.rstrip() if index < len(parts) - 1 else part
            if part:
                ids.extend(self.sp_model.encode(_mark_blanks(part)))
        return ids

    def encode_plain(self, text: str) -> list[int]:
        """Ids of a text in which nothing is a special token, however it is written."""
        ids: list[int] = self.sp_model.encode(_mark_blanks(text)) if text else []
        return ids

    def build_prompt_ids(self, query: str) -> list[int]:
        """Ids of a prompt that holds a single query, taken as plain text."""
        return self.build_inputs_with_special_tokens(self.encode_plain(query))

    def tokenize(self, text: str, **kwargs: Any) -> list[str]:
        """Pieces of a text, without `[gMASK] <sop>`."""
        return [self.sp_model.id_to_piece(index) for index in self.encode_text(text)]

    def _convert_token_to_id(self, token: str) -> int:
        index: int = self.sp_model.piece_to_id(token)
        return index

    def _convert_id_to_token(self, index: int) -> str:
        piece: str = self.sp_model.id_to_piece(index)
        return piece

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """The text of some pieces."""
        return self._decode([self._convert_token_to_id(token) for token in tokens])

    def decode_text(self, token_ids: Sequence[int]) -> str:
        """The text of some ids as it was written: special tokens give nothing, blanks stay."""
        return self._decode(list(token_ids), clean_up_tokenization_spaces=False)

    def _decode(
        self,
        token_ids: Any,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
        **kwargs: Any,
    ) -> str:
        ids = [token_ids] if isinstance(token_ids, int) else list(token_ids)
        # The network's vocabulary is a little larger than the tokenizer's: such ids have no text.
        kept = [index for index in ids if index != self.pad_token_id and index < self.vocab_size]
        if skip_special_tokens:
            hidden = set(self.all_special_ids)
            kept = [index for index in kept if index not in hidden]
        text: str = self.sp_model.decode(kept)
        text = text.replace("<n>", "\n").replace("<|tab|>", "\t")
        text = _BLANK_PIECE.sub(lambda match: " " * int(match.group(1)), text)
        if clean_up_tokenization_spaces is False:
            return text
        for blank, tight in _OFFICIAL_CLEAN_UP:
            text = text.replace(blank, tight)
        return text

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """`A [gMASK] <sop>`, or `A [gMASK] <sop> B <eop>` for a pair."""
        ids = [*token_ids_0, *self.closing_ids]
        if token_ids_1 is not None:
            ids += [*token_ids_1, self._special_ids[self.eos_token]]
        return ids

    def build_chat_ids(self, query: str, history: Sequence[tuple[str, str]] = ()) -> list[int]:
        """Ids of the prompt for `query` after the given turns, `[gMASK] <sop>` included."""
        return self.build_inputs_with_special_tokens(
            self.encode_text(self.build_prompt(query, history))
        )

    def build_prompt(self, query: str, history: Sequence[tuple[str, str]] = ()) -> str:
        """The conversation as one text: the bare query, or numbered rounds from 0."""
        if not history:
            return query
        rounds = [
            f"[Round {number}]\n问：{question}\n答：{answer}\n"
            for number, (question, answer) in enumerate(history)
        ]
        return "".join(rounds) + f"[Round {len(rounds)}]\n问：{query}\n答："

    def decode_chat(self, token_ids: Sequence[int]) -> str:
        """The answer as official chat shows it: punctuation beside Chinese is full-width."""
        text = self._decode(token_ids, skip_special_tokens=True).strip()
        text = text.replace("[[训练时间]]", "2023年")
        return _HALF_WIDTH_IN_CHINESE.sub(lambda match: _TO_FULL_WIDTH[match.group()], text)

    def encode_rows(self, rows: Sequence[str]) -> list[list[int]]:
        """Ids of each text, as `encode_text`; those without special tokens in one call."""
        encoded: list[list[int]] = self.sp_model.encode([_mark_blanks(row) for row in rows])
        for index, row in enumerate(rows):
            if ("<" in row or "[" in row) and self._special.search(row):
                encoded[index] = self.encode_text(row)
        return encoded

    def pad_rows(
        self,
        rows: list[list[int]],
        strategy: PaddingStrategy,
        max_length: int | None,
        multiple: int | None,
        side: str | None,
    ) -> dict[str, list[Any]]:
        """The ids alone, or, padded, on the left whatever `side` says, with masks and positions."""
        if strategy == PaddingStrategy.DO_NOT_PAD:
            return {"input_ids": rows}
        width = find_width(rows, strategy, max_length, multiple)
        columns: dict[str, list[Any]] = {"input_ids": [], "attention_mask": [], "position_ids": []}
        for ids in rows:
            num_pads = max(0, width - len(ids))
            columns["input_ids"].append([self.pad_token_id] * num_pads + ids)
            columns["attention_mask"].append(_official_mask(ids, self._start_id, num_pads))
            columns["position_ids"].append(self._official_positions(ids, num_pads))
        return columns

    @property
    def _start_id(self) -> int:
        return self._special_ids[self.bos_token]

    def _official_positions(self, ids: list[int], num_pads: int) -> np.ndarray[Any, Any]:
        """(2, S). Unlike the model, the tokenizer takes [MASK] before [gMASK]."""
        context = ids.index(self._start_id) if self._start_id in ids else len(ids)
        mask_id = self._special_ids[self.mask_token]
        mask_id = mask_id if mask_id in ids else self._gmask_id
        place = ids.index(mask_id) if mask_id in ids else context
        positions = np.zeros((2, num_pads + len(ids)), dtype=np.int64)
        positions[0, num_pads : num_pads + context] = np.arange(context)
        positions[0, num_pads + context :] = place
        positions[1, num_pads + context :] = np.arange(1, len(ids) - context + 1)
        return positions


def _mark_blanks(text: str) -> str:
    # Asking first is several times faster than replacing nothing, and most texts have none.
    if "\n" in text:
        text = text.replace("\n", "<n>")
    if "\t" in text:
        text = text.replace("\t", "<|tab|>")
    if "  " in text:
        text = _BLANKS.sub(lambda match: f"<|blank_{len(match.group())}|>", text)
    return text


def _official_mask(ids: list[int], start_id: int, num_pads: int) -> np.ndarray[Any, Any]:
    """(1, S, S) bool, True where attention is not allowed; pads see and show nothing."""
    length = len(ids)
    context = ids.index(start_id) if start_id in ids else length
    allowed = np.tril(np.ones((length, length), dtype=bool))
    allowed[:, :context] = True
    masked = np.ones((1, num_pads + length, num_pads + length), dtype=bool)
    masked[0, num_pads:, num_pads:] = ~allowed
    return masked
