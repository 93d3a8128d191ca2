"""The tokenizers of ChatGLM2-6B and ChatGLM3-6B: `tokenizer.model` and what goes around it.

What is unusual about them:

- The prefix `[gMASK] sop` opens a prompt; nothing closes it. A pair is closed by `</s>`.
- No special token is recognised in a text: `</s>` or `<|user|>` written there are plain characters.
  (ChatGLM3 can be told to recognise its four role tokens, with `encode_special_tokens=True`.)
- The special tokens lie behind the vocabulary file's pieces. Decoding gives nothing for those of
  ChatGLM2 and their names for those of ChatGLM3.
- The padding token is the unknown token, which no text produces; padding stands on the left.
- An attention mask and position ids come with every encoding.
- ChatGLM2 renders a conversation as numbered rounds of plain text, ChatGLM3 as messages whose role
  token, metadata and content are encoded one by one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from transformers.tokenization_utils_base import BatchEncoding
from transformers.utils.generic import PaddingStrategy

from tripletune.errors import DataError
from tripletune.models.sentencepiece_tokenizer import SentencePieceTokenizer, find_width

__all__ = ["ChatGLM2Tokenizer", "ChatGLM3Tokenizer", "is_chatglm3_tokenizer"]

VOCABULARY_FILE = "tokenizer.model"
ROLES = ("system", "user", "assistant", "observation")
_SAVED_CLASS_NAME = "ChatGLMTokenizer"


def is_chatglm3_tokenizer(settings: dict[str, Any]) -> bool:
    """Whether the fields of a `tokenizer_config.json` are those of ChatGLM3, not ChatGLM2.

    Both generations give the same class name. ChatGLM3's official file has a chat template or is
    called chatglm3; a folder saved here has `encode_special_tokens`.
    """
    described = f"{settings.get('name_or_path', '')} {settings.get('chat_template', '')}"
    return (
        "encode_special_tokens" in settings or "chatglm3" in described.lower() or "<|" in described
    )


class ChatGLM2Tokenizer(SentencePieceTokenizer):
    """Text to the ids of ChatGLM2-6B, and back.

    Args:
        vocab_file: Path of `tokenizer.model`.
        padding_side: `left`, as the official tokenizer pads, or `right`.
        **kwargs: As every `transformers` tokenizer.

    Raises:
        ModelError: the vocabulary file is missing or no SentencePiece model.
    """

    family = "ChatGLM2/3-6B"
    vocab_files_names = {"vocab_file": VOCABULARY_FILE}  # noqa: RUF012
    model_input_names = ["input_ids", "attention_mask", "position_ids"]  # noqa: RUF012
    special_tokens: dict[str, int]
    special_names: ClassVar[tuple[str, ...]] = ("[MASK]", "[gMASK]", "[sMASK]", "sop", "eop")
    decodes_special_names: ClassVar[bool] = False

    # Fixed, and not registered as special tokens: the library would recognise those in a text.
    eos_token = "</s>"
    pad_token = "<unk>"
    unk_token = "<unk>"
    eos_token_id = 2
    pad_token_id = 0
    unk_token_id = 0

    def __init__(self, vocab_file: str, padding_side: str = "left", **kwargs: Any) -> None:
        self.sp_model = self.load_vocabulary(vocab_file)
        self.vocab_file = vocab_file
        self.num_pieces: int = self.sp_model.get_piece_size()
        self.special_tokens = {
            name: self.num_pieces + index for index, name in enumerate(self.special_names)
        }
        self._special_pieces = {index: name for name, index in self.special_tokens.items()}
        self.closing_ids = []
        self.opening_ids = [self.special_tokens["[gMASK]"], self.special_tokens["sop"]]
        fixed = ("eos_token", "pad_token", "unk_token", "auto_map", "extra_special_tokens")
        kwargs = {key: value for key, value in kwargs.items() if key not in fixed}
        kwargs.setdefault("clean_up_tokenization_spaces", False)
        super().__init__(padding_side=padding_side, **kwargs)

    @property
    def vocab_size(self) -> int:
        """Number of pieces of the vocabulary, the special tokens behind it included."""
        return self.num_pieces + len(self.special_names)

    @property
    def gmask_token_id(self) -> int:
        """Id of `[gMASK]`, the first token of a prompt."""
        return self.special_tokens["[gMASK]"]

    def get_vocab(self) -> dict[str, int]:
        """Every piece and its id."""
        pieces = {self.sp_model.id_to_piece(index): index for index in range(self.num_pieces)}
        added: dict[str, int] = self._added_tokens_encoder
        return pieces | self.special_tokens | added

    def get_command(self, token: str) -> int:
        """Id of a special token by its official name: `[gMASK]`, `sop`, `<eos>`, ...

        Raises:
            DataError: there is no special token of that name.
        """
        named = {"<bos>": 1, "<eos>": self.eos_token_id, "<pad>": self.pad_token_id}
        named |= self.special_tokens
        if token not in named:
            raise DataError(f"special token: {token!r} is unknown; there are {', '.join(named)}")
        return named[token]

    def get_prefix_tokens(self) -> list[int]:
        """Ids of `[gMASK] sop`, which open every prompt."""
        return list(self.opening_ids)

    def encode_plain(self, text: str) -> list[int]:
        """Ids of a text in which nothing is a special token, however it is written."""
        ids: list[int] = self.sp_model.encode(text)
        return ids

    def encode_text(self, text: str) -> list[int]:
        """Ids of a text alone, without `[gMASK] sop`.

        Example:
            For ChatGLM2-6B, `encode_text("你好")` is `[36474, 54591]`.
        """
        if self._added_tokens_encoder:
            return self._find_ids(super().tokenize(text))
        return self.encode_plain(text)

    def _find_ids(self, tokens: list[str]) -> list[int]:
        ids: Any = self.convert_tokens_to_ids(tokens)
        return list(ids)

    def tokenize(self, text: str, **kwargs: Any) -> list[str]:
        """Pieces of a text, without `[gMASK] sop`."""
        if self._added_tokens_encoder:
            pieces: list[str] = super().tokenize(text, **kwargs)
            return pieces
        return self._tokenize(text)

    def _tokenize(self, text: str, **kwargs: Any) -> list[str]:
        pieces: list[str] = self.sp_model.encode(text, out_type=str)
        return pieces

    def _convert_token_to_id(self, token: str) -> int:
        if token in self.special_tokens:
            return self.special_tokens[token]
        index: int = self.sp_model.piece_to_id(token)
        return index

    def _convert_id_to_token(self, index: int) -> str:
        """The piece; nothing for the three control ids and for ids that stand for no piece."""
        if index in self._special_pieces:
            return self._special_pieces[index] if self.decodes_special_names else ""
        if index <= self.eos_token_id or index >= self.num_pieces:
            return ""
        piece: str = self.sp_model.id_to_piece(index)
        return piece

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """The text of some pieces."""
        text: str = self.sp_model.decode_pieces(tokens)
        return text

    def decode_text(self, token_ids: Sequence[int]) -> str:
        """The text of some ids as it was written: special tokens give nothing, blanks stay."""
        text: str = self.sp_model.decode(
            [index for index in token_ids if self.eos_token_id < index < self.num_pieces]
        )
        return text

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """`[gMASK] sop A`, or `[gMASK] sop A B </s>` for a pair."""
        if token_ids_1 is None:
            return self.opening_ids + token_ids_0
        return [*self.opening_ids, *token_ids_0, *token_ids_1, self.eos_token_id]

    def get_special_tokens_mask(
        self,
        token_ids_0: list[int],
        token_ids_1: list[int] | None = None,
        already_has_special_tokens: bool = False,
    ) -> list[int]:
        """1 at ids that stand for no text, 0 at the others."""
        ids = token_ids_0
        if not already_has_special_tokens:
            ids = self.build_inputs_with_special_tokens(token_ids_0, token_ids_1)
        return [int(not self.eos_token_id < index < self.num_pieces) for index in ids]

    def build_prompt(self, query: str, history: Sequence[tuple[str, str]] | None = None) -> str:
        """The conversation as one text of numbered rounds, from 1."""
        rounds = [
            f"[Round {number}]\n\n问：{question}\n\n答：{answer}\n\n"
            for number, (question, answer) in enumerate(history or (), start=1)
        ]
        return "".join(rounds) + f"[Round {len(rounds) + 1}]\n\n问：{query}\n\n答："

    def build_chat_ids(
        self, query: str, history: Sequence[tuple[str, str]] | None = None
    ) -> list[int]:
        """Ids of the prompt for `query` after the given turns, `[gMASK] sop` included."""
        return self.opening_ids + self.encode_text(self.build_prompt(query, history))

    def build_next_chat_ids(self, query: str, history: Sequence[tuple[str, str]]) -> list[int]:
        """Ids of the newest round alone, to follow the cached keys and values of `history`."""
        if not history:
            return self.build_chat_ids(query)
        # The text is a continuation: the blank that opens every encoding is dropped.
        text = f"\n\n[Round {len(history) + 1}]\n\n问：{query}\n\n答："
        return self.encode_text(text)[1:]

    def build_prompt_ids(self, query: str) -> list[int]:
        """Ids of a prompt that holds a single query, taken as plain text."""
        return self.opening_ids + self.encode_plain(self.build_prompt(query))

    def decode_chat(self, token_ids: Sequence[int]) -> str:
        """The answer as official chat shows it."""
        text = str(self.decode(list(token_ids)))
        return text.strip().replace("[[训练时间]]", "2023年")

    def encode_rows(self, rows: Sequence[str]) -> list[list[int]]:
        """Ids of each text, as `encode_text`; in one call where nothing is to be looked for."""
        if self._added_tokens_encoder:
            return [self.encode_text(row) for row in rows]
        encoded: list[list[int]] = self.sp_model.encode(list(rows))
        return encoded

    def pad_rows(
        self,
        rows: list[list[int]],
        strategy: PaddingStrategy,
        max_length: int | None,
        multiple: int | None,
        side: str | None,
    ) -> dict[str, list[list[int]]]:
        """The three columns of a batch; positions count real tokens from 0 and are 0 on pads."""
        width = find_width(rows, strategy, max_length, multiple)
        lengths = [len(ids) for ids in rows]
        count = list(range(max(lengths)))
        columns = {
            "input_ids": rows,
            "attention_mask": [[1] * length for length in lengths],
            "position_ids": [count[:length] for length in lengths],
        }
        if width > min(lengths):
            on_left = (side or self.padding_side) == "left"
            pads = [[0] * (width - length) for length in lengths]
            for name, column in columns.items():
                pairs = zip(pads, column, strict=True)
                columns[name] = [p + real if on_left else real + p for p, real in pairs]
        return columns

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> Any:
        """Writes the tokenizer's files, with the official class name; returns their paths."""
        paths = super().save_pretrained(save_directory, *args, **kwargs)
        config_path = next(path for path in paths if path.endswith("tokenizer_config.json"))
        config = json.loads(Path(config_path).read_text(encoding="utf-8"))
        config["tokenizer_class"] = _SAVED_CLASS_NAME
        text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        Path(config_path).write_text(text, encoding="utf-8")
        return paths


class ChatGLM3Tokenizer(ChatGLM2Tokenizer):
    """Text to the ids of ChatGLM3-6B, and back.

    Args:
        vocab_file: Path of `tokenizer.model`.
        padding_side: `left`, as the official tokenizer pads, or `right`.
        encode_special_tokens: Whether role tokens written in a text are the tokens themselves.
        **kwargs: As every `transformers` tokenizer.
    """

    special_names = (*ChatGLM2Tokenizer.special_names, *(f"<|{role}|>" for role in ROLES))
    decodes_special_names = True
    _role_tokens = re.compile("|".join(re.escape(f"<|{role}|>") for role in ROLES))

    def __init__(
        self,
        vocab_file: str,
        padding_side: str = "left",
        encode_special_tokens: bool = False,
        **kwargs: Any,
    ) -> None:
        self.encode_special_tokens = encode_special_tokens
        # Passed on so that it is saved, which also tells a saved folder from one of ChatGLM2.
        super().__init__(
            vocab_file, padding_side, encode_special_tokens=encode_special_tokens, **kwargs
        )

    def encode_text(self, text: str) -> list[int]:
        """Ids of a text alone, without `[gMASK] sop`; see `encode_special_tokens`."""
        if not self.encode_special_tokens:
            return super().encode_text(text)
        return self._find_ids(self._tokenize(text))

    def _tokenize(self, text: str, **kwargs: Any) -> list[str]:
        if not self.encode_special_tokens:
            return super()._tokenize(text)
        pieces: list[str] = []
        end = 0
        for match in self._role_tokens.finditer(text):
            pieces += super()._tokenize(text[end : match.start()])
            pieces.append(match.group())
            end = match.end()
        return pieces + super()._tokenize(text[end:])

    def encode_rows(self, rows: Sequence[str]) -> list[list[int]]:
        """Ids of each text, as `encode_text`; see `encode_special_tokens`."""
        if self.encode_special_tokens:
            return [self.encode_text(row) for row in rows]
        return super().encode_rows(rows)

    def build_single_message(self, role: str, metadata: str, message: str) -> list[int]:
        """Ids of one message: role token, metadata and line feed, content.

        Raises:
            DataError: an unknown role.
        """
        if role not in ROLES:
            raise DataError(f"role: {role!r} is unknown; a message is of {', '.join(ROLES)}")
        content = self.encode_text(message)
        return [self.get_command(f"<|{role}|>"), *self.encode_text(f"{metadata}\n"), *content]

    def build_chat_ids(
        self, query: str, history: Sequence[Any] | None = None, *, role: str = "user"
    ) -> list[int]:
        """Ids of the prompt for `query` after the given messages, up to `<|assistant|>`.

        Args:
            query: What the user (or, with another `role`, a tool) says.
            history: Earlier messages: mappings with `role`, `content` and, where they apply,
                `metadata` and `tools`; or (query, answer) pairs.
            role: Who says `query`.

        Raises:
            DataError: an unknown role, or a message without role or content.
        """
        return [*self.opening_ids, *self.build_next_chat_ids(query, history or (), role=role)]

    def build_next_chat_ids(
        self, query: str, history: Sequence[Any], *, role: str = "user"
    ) -> list[int]:
        """Ids of the messages, without `[gMASK] sop`."""
        ids: list[int] = []
        for message in read_messages(history):
            content = message["content"]
            if message["role"] == "system" and "tools" in message:
                content += "\n" + json.dumps(message["tools"], indent=4, ensure_ascii=False)
            metadata = message.get("metadata", "")
            ids += self.build_single_message(message["role"], metadata, content)
        ids += self.build_single_message(role, "", query)
        return [*ids, self.get_command("<|assistant|>")]

    def build_chat_input(
        self, query: str, history: Sequence[Any] | None = None, role: str = "user"
    ) -> BatchEncoding:
        """`build_chat_ids` as a batch of one row of tensors, with mask and positions."""
        ids = self.build_chat_ids(query, history, role=role)
        columns = self.pad_rows([ids], PaddingStrategy.DO_NOT_PAD, None, None, None)
        return BatchEncoding(columns, tensor_type="pt")

    def build_prompt_ids(self, query: str) -> list[int]:
        """Ids of a prompt that holds a single query, taken as plain text.

        The empty metadata line of the answer is part of it, as in official fine-tuning.
        """
        command = self.get_command
        line = self.encode_plain("\n")
        asked = [command("<|user|>"), *line, *self.encode_plain(query)]
        return [*self.opening_ids, *asked, command("<|assistant|>"), *line]


def read_messages(history: Sequence[Any]) -> list[dict[str, Any]]:
    """The messages of a history, with (query, answer) pairs as two messages each.

    Raises:
        DataError: a message without role or content.
    """
    messages: list[dict[str, Any]] = []
    for item in history:
        if isinstance(item, (tuple, list)) and len(item) == 2:
            query, answer = item
            messages.append({"role": "user", "content": query})
            messages.append({"role": "assistant", "metadata": "", "content": answer})
        elif isinstance(item, dict) and "role" in item and "content" in item:
            messages.append(item)
        else:
            raise DataError(
                f"history: {item!r} is no message; give mappings with 'role' and 'content', or "
                "(query, answer) pairs"
            )
    return messages
